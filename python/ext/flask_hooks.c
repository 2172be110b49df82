/*
 * Door: the three moments at which weir.flask looks at a request, on the path that most take.
 *
 * Before dispatch, when a limited function is called, and when the response is there. Each answers
 * whether all is done; if not, nothing was done, and Python goes on from the beginning. What the
 * tuples hold is said in weir/flask/_check.py.
 */
#include "core.h"

#include <stddef.h>

#define SELF(object) ((struct core_door *)(object))

struct core_door {
    PyObject ob_base;
    PyObject *current; /* returns the request context; fails outside of a request */
    PyObject *slot;    /* str: its attribute that is ours */
    PyObject *str_request, *str_rule, *str_endpoint, *str_method, *str_follow, *str_tell,
        *str_headers, *str_list;
};

static int intern_names(struct core_door *self) {
    const struct {
        PyObject **place;
        const char *text;
    } names[] = {
        {&self->str_request, "request"},   {&self->str_rule, "url_rule"},
        {&self->str_endpoint, "endpoint"}, {&self->str_method, "method"},
        {&self->str_follow, "follow"},     {&self->str_tell, "tell"},
        {&self->str_headers, "headers"},   {&self->str_list, "_list"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(*names[i].place = PyUnicode_InternFromString(names[i].text)))
            return -1;
    return 0;
}

static PyObject *door_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *current, *slot;
    if (kwargs && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Door() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OU:Door", &current, &slot))
        return NULL;
    struct core_door *self = SELF(type->tp_alloc(type, 0));
    if (!self)
        return NULL;
    self->current = Py_NewRef(current);
    self->slot = Py_NewRef(slot);
    if (intern_names(self) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int door_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->current);
    return 0;
}

static int door_clear(PyObject *object) {
    struct core_door *self = SELF(object);
    Py_CLEAR(self->current);
    return 0;
}

static void door_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    struct core_door *self = SELF(object);
    PyObject_GC_UnTrack(object);
    PyObject *members[] = {self->current,     self->slot,         self->str_request, self->str_rule,
                           self->str_method,  self->str_endpoint, self->str_follow,  self->str_tell,
                           self->str_headers, self->str_list};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        Py_XDECREF(members[i]);
    type->tp_free(object);
    Py_DECREF(type);
}

/* The context of the request; NULL without an exception where there is none. */
static PyObject *context_of(struct core_door *self) {
    PyObject *context = self->current ? PyObject_CallNoArgs(self->current) : NULL;
    if (!context)
        PyErr_Clear();
    return context;
}

/* What is in our slot of the context; NULL without an exception if nothing is. */
static PyObject *seen_in(struct core_door *self, PyObject *context) {
    PyObject *seen = PyObject_GetAttr(context, self->slot);
    if (!seen)
        PyErr_Clear();
    return seen;
}

/* enter(context), and resume(context, outcome) if that is not None. 0, or -1 with an exception. */
static int make_check(PyObject *enter, PyObject *resume, PyObject *context) {
    PyObject *outcome = PyObject_CallOneArg(enter, context);
    if (!outcome)
        return -1;
    PyObject *result = Py_NewRef(Py_None);
    if (outcome != Py_None) {
        PyObject *args[] = {NULL, context, outcome};
        Py_DECREF(result);
        result = PyObject_Vectorcall(resume, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_DECREF(outcome);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* ------------------------------------------------------------------------------- before dispatch */

/* What is ready for the request's endpoint and method, if the view is still the one it was made
 * for; NULL without an exception otherwise. Borrowed. */
static PyObject *find_ready(struct core_door *self, PyObject *request, PyObject *ready,
                            PyObject *views) {
    PyObject *found = NULL;
    PyObject *rule = PyObject_GetAttr(request, self->str_rule);
    PyObject *endpoint =
        rule && rule != Py_None ? PyObject_GetAttr(rule, self->str_endpoint) : NULL;
    PyObject *method = endpoint ? PyObject_GetAttr(request, self->str_method) : NULL;
    PyObject *methods = method ? PyDict_GetItemWithError(ready, endpoint) : NULL;
    if (methods && PyDict_Check(methods))
        found = PyDict_GetItemWithError(methods, method);
    if (found && (!PyTuple_CheckExact(found) || PyTuple_GET_SIZE(found) != 4 ||
                  PyDict_GetItemWithError(views, endpoint) != PyTuple_GET_ITEM(found, 0)))
        found = NULL;
    PyErr_Clear();
    Py_XDECREF(rule);
    Py_XDECREF(endpoint);
    Py_XDECREF(method);
    return found;
}

static PyObject *door_before(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_door *self = SELF(object);
    if (nargs != 2 || !PyDict_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "before() takes two dicts");
        return NULL;
    }
    PyObject *context = context_of(self);
    PyObject *request = context ? PyObject_GetAttr(context, self->str_request) : NULL;
    PyObject *entry = request ? find_ready(self, request, args[0], args[1]) : NULL;
    int done = 0;
    if (entry) {
        Py_INCREF(entry); /* plans may be forgotten meanwhile */
        done = 1;
        if (PyObject_SetAttr(context, self->slot, PyTuple_GET_ITEM(entry, 1)) < 0 ||
            (PyTuple_GET_ITEM(entry, 2) != Py_None &&
             make_check(PyTuple_GET_ITEM(entry, 2), PyTuple_GET_ITEM(entry, 3), context) < 0))
            done = -1;
        Py_DECREF(entry);
    } else {
        PyErr_Clear();
    }
    Py_XDECREF(request);
    Py_XDECREF(context);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

/* ------------------------------------------------------------------------------------- the call */

/* What makes the check of a function that is called now. New reference; NULL without an exception. */
static PyObject *armed_in(struct core_door *self, PyObject *seen) {
    if (!PyTuple_CheckExact(seen) || PyTuple_GET_SIZE(seen) < 3)
        return NULL;
    if (PyTuple_GET_ITEM(seen, 0) != Py_None)
        return Py_NewRef(seen);
    /* The check before dispatch was made. */
    PyObject *follow = PyObject_GetAttr(PyTuple_GET_ITEM(seen, 1), self->str_follow);
    if (!follow)
        PyErr_Clear();
    else if (!PyTuple_CheckExact(follow) || PyTuple_GET_SIZE(follow) != 3)
        Py_CLEAR(follow);
    return follow;
}

static PyObject *door_call(PyObject *object, PyObject *view) {
    struct core_door *self = SELF(object);
    PyObject *context = context_of(self);
    PyObject *seen = context ? seen_in(self, context) : NULL;
    PyObject *armed = seen ? armed_in(self, seen) : NULL;
    int done = 0;
    if (armed && PyTuple_GET_SIZE(armed) == 3 && PyTuple_GET_ITEM(armed, 0) == view)
        done = make_check(PyTuple_GET_ITEM(armed, 1), PyTuple_GET_ITEM(armed, 2), context) < 0 ? -1
                                                                                               : 1;
    Py_XDECREF(armed);
    Py_XDECREF(seen);
    Py_XDECREF(context);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

/* --------------------------------------------------------------------------------- the response */

/* check.tell: what is to be done when the response is there. */
enum { TOLD, SAID, WRITE, WHEN, CHARGE, TELL_SIZE };

static PyObject *call_two(PyObject *function, PyObject *first, PyObject *second) {
    PyObject *args[] = {NULL, first, second};
    return PyObject_Vectorcall(function, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

/* Appends the headers that a decision tells of. 0, or -1 with an exception. */
static int write_headers(struct core_door *self, PyObject *response, PyObject *decision,
                         PyObject *told) {
    PyObject *result = NULL;
    PyObject *headers = PyObject_GetAttr(response, self->str_headers);
    PyObject *pairs = headers ? PyObject_GetAttr(headers, self->str_list) : NULL;
    if (pairs && PyList_CheckExact(pairs)) {
        PyObject *args[] = {decision, pairs, PyTuple_GET_ITEM(told, TOLD),
                            PyTuple_GET_ITEM(told, SAID)};
        result = PyObject_VectorcallMethod(self->str_tell, args, 4, NULL);
    }
    PyErr_Clear();
    Py_XDECREF(pairs);
    Py_XDECREF(headers);
    if (result != Py_True) { /* there is a Retry-After that has to be merged */
        Py_XDECREF(result);
        result = call_two(PyTuple_GET_ITEM(told, WRITE), response, decision);
    }
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* Charges the limit that depends on the response, if it wants to be: the decision after that, a new
 * reference; NULL with an exception. */
static PyObject *deduct(PyObject *response, PyObject *seen, PyObject *told) {
    PyObject *decision = PyTuple_GET_ITEM(seen, 3);
    PyObject *wanted = PyObject_CallOneArg(PyTuple_GET_ITEM(told, WHEN), response);
    int rc = wanted ? PyObject_IsTrue(wanted) : -1;
    Py_XDECREF(wanted);
    if (rc <= 0)
        return rc < 0 ? NULL : Py_NewRef(decision);
    return call_two(PyTuple_GET_ITEM(told, CHARGE), PyTuple_GET_ITEM(seen, 2), decision);
}

/* Does what check.tell says: 1, 0 if that is not for us, -1 with an exception. */
static int finish(struct core_door *self, PyObject *response, PyObject *seen, PyObject *told) {
    if (told == Py_False)
        return 1; /* there is nothing to do */
    if (!PyTuple_CheckExact(told) || PyTuple_GET_SIZE(told) != TELL_SIZE)
        return 0;
    PyObject *decision = PyTuple_GET_ITEM(told, WHEN) == Py_None
                             ? Py_NewRef(PyTuple_GET_ITEM(seen, 3))
                             : deduct(response, seen, told);
    int rc = decision ? write_headers(self, response, decision, told) : -1;
    Py_XDECREF(decision);
    return rc < 0 ? -1 : 1;
}

static PyObject *door_after(PyObject *object, PyObject *response) {
    struct core_door *self = SELF(object);
    PyObject *context = context_of(self);
    PyObject *seen = context ? seen_in(self, context) : NULL;
    PyObject *told = NULL;
    int done = 0;
    if (seen && PyTuple_CheckExact(seen) && PyTuple_GET_SIZE(seen) == 4) {
        told = PyObject_GetAttr(PyTuple_GET_ITEM(seen, 1), self->str_tell);
        if (told)
            done = finish(self, response, seen, told);
        else
            PyErr_Clear();
    }
    Py_XDECREF(told);
    Py_XDECREF(seen);
    Py_XDECREF(context);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

/* --------------------------------------------------------------------------------------- type */

PyDoc_STRVAR(door_doc, "Door(current, slot, /)\n--\n\n"
                       "The way of most requests through weir.flask.\n\n"
                       "current: returns the request context. slot: its attribute that is used.");

PyDoc_STRVAR(before_doc, "before($self, ready, views, /)\n--\n\n"
                         "Makes the check before dispatch; False if that is not ready.");

PyDoc_STRVAR(call_doc, "call($self, view, /)\n--\n\n"
                       "Makes the check of a limited function; False if that is not ready.");

PyDoc_STRVAR(after_doc, "after($self, response, /)\n--\n\n"
                        "Writes headers; False if there is more to do.");

static PyMethodDef door_methods[] = {
    {"before", (PyCFunction)(void (*)(void))door_before, METH_FASTCALL, before_doc},
    {"call", door_call, METH_O, call_doc},
    {"after", door_after, METH_O, after_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot door_slots[] = {
    {Py_tp_doc, (void *)door_doc},
    {Py_tp_new, door_new},
    {Py_tp_dealloc, door_dealloc},
    {Py_tp_traverse, door_traverse},
    {Py_tp_clear, door_clear},
    {Py_tp_methods, door_methods},
    {0, NULL},
};

PyType_Spec core_door_spec = {
    .name = "weir.Door",
    .basicsize = sizeof(struct core_door),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = door_slots,
};
