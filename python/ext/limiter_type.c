/* The Python type RateLimiter: creation, members and the type. */
#include "limiter_type.h"

#include <stddef.h>
#include <structmember.h>

#include "limiter.h"
#include "strategies.h"
#include "values.h"

#define SELF(object) ((struct core_limiter *)(object))

static int require_methods(struct core_state *state, PyObject *storage) {
    PyObject *names[] = {state->str_decide, state->str_clear};
    for (int i = 0; i < 2; i++) {
        PyObject *method = PyObject_GetAttr(storage, names[i]);
        if (!method) {
            if (PyErr_ExceptionMatches(PyExc_AttributeError))
                PyErr_Format(PyExc_TypeError,
                             "storage must be a Table or have decide() and clear(), not %.100s",
                             Py_TYPE(storage)->tp_name);
            return -1;
        }
        Py_DECREF(method);
    }
    return 0;
}

static PyObject *limiter_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                             PyObject *Py_UNUSED(kwargs)) {
    struct core_state *state = core_state_of(type);
    struct core_limiter *self = state ? SELF(type->tp_alloc(type, 0)) : NULL;
    if (self)
        self->state = state;
    return (PyObject *)self;
}

static int limiter_init(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"storage", "strategy", NULL};
    struct core_limiter *self = SELF(object);
    PyObject *storage;
    const char *strategy = "fixed-window";
    Py_ssize_t strategy_len = (Py_ssize_t)strlen(strategy);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s#:RateLimiter", (char **)names, &storage,
                                     &strategy, &strategy_len))
        return -1;
    int number = core_strategy_of(strategy, (size_t)strategy_len);
    if (number < 0)
        return -1;
    int in_c = core_table_decides(self->state, storage);
    if (in_c < 0 || (!in_c && require_methods(self->state, storage) < 0))
        return -1;
    self->strategy = number;
    self->table = in_c ? (struct core_table *)storage : NULL;
    Py_XSETREF(self->storage, Py_NewRef(storage));
    return 0;
}

static int limiter_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->storage);
    return 0;
}

static int limiter_clear_refs(PyObject *object) {
    SELF(object)->table = NULL;
    Py_CLEAR(SELF(object)->storage);
    return 0;
}

static void limiter_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (SELF(object)->weakrefs)
        PyObject_ClearWeakRefs(object);
    limiter_clear_refs(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *get_storage(PyObject *object, void *Py_UNUSED(closure)) {
    PyObject *storage = SELF(object)->storage;
    return Py_NewRef(storage ? storage : Py_None);
}

static PyObject *get_strategy(PyObject *object, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(weir_strategy_name(SELF(object)->strategy));
}

static PyObject *limiter_repr(PyObject *object) {
    PyObject *storage = get_storage(object, NULL);
    PyObject *text = PyUnicode_FromFormat("<%s %s over %R>", Py_TYPE(object)->tp_name,
                                          weir_strategy_name(SELF(object)->strategy), storage);
    Py_DECREF(storage);
    return text;
}

/* ---------------------------------------------------------------------------------------- type */

PyDoc_STRVAR(limiter_doc, "RateLimiter(storage, strategy='fixed-window')\n--\n\n"
                          "One strategy over one store.\n\n"
                          "storage: a Table or any object with decide() and clear() like\n"
                          "weir.storage.Storage.\n"
                          "strategy: for limits without a strategy.\n\n"
                          ">>> limiter = RateLimiter(Table())\n"
                          ">>> limiter.hit(parse('1/minute'), 'alice')\n"
                          "True\n"
                          ">>> limiter.hit(parse('1/minute'), 'alice')\n"
                          "False");

#define WITH_KEYWORDS(function)                                                                    \
    (PyCFunction)(void (*)(void)) function, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef limiter_methods[] = {
    {"hit", WITH_KEYWORDS(limiter_hit),
     PyDoc_STR("hit($self, item, /, *identifiers, cost=1)\n--\n\n"
               "Charges `cost` if the limit has room for it. True if it was charged.")},
    {"test", WITH_KEYWORDS(limiter_test),
     PyDoc_STR("test($self, item, /, *identifiers, cost=1)\n--\n\n"
               "True if the limit has room for `cost`. Charges nothing.")},
    {"refund", WITH_KEYWORDS(limiter_refund),
     PyDoc_STR("refund($self, item, /, *identifiers, cost=1)\n--\n\n"
               "Gives `cost` back, at most what was charged.")},
    {"decide", WITH_KEYWORDS(limiter_decide),
     PyDoc_STR("decide($self, item, /, *identifiers, cost=1, mode=HIT)\n--\n\n"
               "Like hit(), but returns the whole Verdict.")},
    {"get_window_stats", (PyCFunction)(void (*)(void))limiter_get_window_stats, METH_FASTCALL,
     PyDoc_STR("get_window_stats($self, item, /, *identifiers)\n--\n\n"
               "(reset_time, remaining): the time of the reset and the remaining hits.")},
    {"clear", (PyCFunction)(void (*)(void))limiter_clear, METH_FASTCALL,
     PyDoc_STR("clear($self, item, /, *identifiers)\n--\n\n"
               "Deletes this counter.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef limiter_getset[] = {
    {"storage", get_storage, NULL, PyDoc_STR("As given."), NULL},
    {"strategy", get_strategy, NULL, PyDoc_STR("Its name."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef limiter_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct core_limiter, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_doc, (void *)limiter_doc},
    {Py_tp_new, limiter_new},
    {Py_tp_init, limiter_init},
    {Py_tp_dealloc, limiter_dealloc},
    {Py_tp_traverse, limiter_traverse},
    {Py_tp_clear, limiter_clear_refs},
    {Py_tp_repr, limiter_repr},
    {Py_tp_methods, limiter_methods},
    {Py_tp_getset, limiter_getset},
    {Py_tp_members, limiter_members},
    {0, NULL},
};

PyType_Spec core_limiter_spec = {
    .name = "weir.RateLimiter",
    .basicsize = sizeof(struct core_limiter),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = limiter_slots,
};
