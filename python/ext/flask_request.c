/* RequestBase and PlanBase, the bases of weir.flask's classes. */
#include "flask_request.h"

#include <stddef.h>
#include <structmember.h>

#include "evaluation.h"

/* -------------------------------------------------------------------------------- request state */

static PyObject *request_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *plan;
    if (!PyArg_ParseTuple(args, "O:RequestBase", &plan))
        return NULL;
    PyObject *self = type->tp_alloc(type, 0);
    if (self)
        REQUEST(self)->plan = Py_NewRef(plan);
    return self;
}

static int request_traverse(PyObject *object, visitproc visit, void *arg) {
    struct core_flask_request *self = REQUEST(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->plan);
    Py_VISIT(self->evaluation);
    Py_VISIT(self->pending);
    Py_VISIT(self->cache);
    return 0;
}

/* The other members can only be part of a cycle through these. */
static int request_clear(PyObject *object) {
    struct core_flask_request *self = REQUEST(object);
    Py_CLEAR(self->pending);
    Py_CLEAR(self->cache);
    return 0;
}

static void request_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    struct core_flask_request *self = REQUEST(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->plan);
    Py_XDECREF((PyObject *)self->evaluation);
    Py_XDECREF(self->pending);
    Py_XDECREF(self->cache);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef request_members[] = {
    {"plan", T_OBJECT, offsetof(struct core_flask_request, plan), READONLY,
     PyDoc_STR("The plan of its endpoint.")},
    {"pending", T_OBJECT, offsetof(struct core_flask_request, pending), 0,
     PyDoc_STR("Evaluations that are settled by the response, or None.")},
    {"cache", T_OBJECT, offsetof(struct core_flask_request, cache), 0,
     PyDoc_STR("The evaluation in the form of the public interface.")},
    {"defaults_counted", T_BOOL, offsetof(struct core_flask_request, defaults_counted), 0,
     PyDoc_STR("Whether the default limits have counted this request.")},
    {"wake", T_DOUBLE, offsetof(struct core_flask_request, wake), 0,
     PyDoc_STR("When the view may run, in seconds since the epoch; 0.0: at once.")},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_evaluation(PyObject *object, void *Py_UNUSED(closure)) {
    PyObject *evaluation = (PyObject *)REQUEST(object)->evaluation;
    return Py_NewRef(evaluation ? evaluation : Py_None);
}

static int set_evaluation(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    struct core_flask_request *self = REQUEST(object);
    if (value && value != Py_None && !core_is_evaluation(value)) {
        PyErr_SetString(PyExc_TypeError, "evaluation must be an Evaluation or None");
        return -1;
    }
    Py_XSETREF(self->evaluation,
               value && value != Py_None ? (struct core_evaluation *)Py_NewRef(value) : NULL);
    return 0;
}

static PyGetSetDef request_getset[] = {
    {"evaluation", get_evaluation, set_evaluation, PyDoc_STR("Of the last check, or None."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The state of one request: base class of weir.flask.")},
    {Py_tp_new, request_new},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_members, (void *)request_members},
    {Py_tp_getset, request_getset},
    {0, NULL},
};

PyType_Spec core_request_spec = {
    .name = "weir.RequestBase",
    .basicsize = sizeof(struct core_flask_request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = request_slots,
};

/* ----------------------------------------------------------------------------------------- plan */

static PyObject *plan_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                          PyObject *Py_UNUSED(kwargs)) {
    return type->tp_alloc(type, 0);
}

static PyObject **plan_members_of(PyObject *object, size_t *count) {
    *count = (sizeof(struct core_plan) - offsetof(struct core_plan, function)) / sizeof(PyObject *);
    return &PLAN(object)->function;
}

static int plan_traverse(PyObject *object, visitproc visit, void *arg) {
    size_t count;
    PyObject **member = plan_members_of(object, &count);
    Py_VISIT(Py_TYPE(object));
    for (size_t i = 0; i < count; i++)
        Py_VISIT(member[i]);
    return 0;
}

static int plan_clear(PyObject *object) {
    size_t count;
    PyObject **member = plan_members_of(object, &count);
    for (size_t i = 0; i < count; i++)
        Py_CLEAR(member[i]);
    return 0;
}

static void plan_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    plan_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

#define PLAN_MEMBER(name) {#name, T_OBJECT, offsetof(struct core_plan, name), 0, NULL}
static PyMemberDef plan_members[] = {
    PLAN_MEMBER(function),        PLAN_MEMBER(filters),  PLAN_MEMBER(bare),
    PLAN_MEMBER(before),          PLAN_MEMBER(view),     PLAN_MEMBER(at_call),
    PLAN_MEMBER(at_call_counted), {NULL, 0, 0, 0, NULL},
};

static PyType_Slot plan_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("The plan of one endpoint and method: base class of weir.flask.")},
    {Py_tp_new, plan_new},
    {Py_tp_dealloc, plan_dealloc},
    {Py_tp_traverse, plan_traverse},
    {Py_tp_clear, plan_clear},
    {Py_tp_members, (void *)plan_members},
    {0, NULL},
};

PyType_Spec core_plan_spec = {
    .name = "weir.PlanBase",
    .basicsize = sizeof(struct core_plan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = plan_slots,
};
