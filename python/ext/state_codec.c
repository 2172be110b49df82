/*
 * StateRequest: one decision over packed states, with the names of its counters. weir.stores.state
 * reads and writes the states.
 */
#include "state_codec.h"

#include <stdlib.h>
#include <structmember.h>

#include "convert.h"
#include "decision.h"
#include "errors.h"
#include "key.h"
#include "values.h"
#include "weir/state.h"

struct state_request {
    PyObject_HEAD
    struct core_state *state;
    struct core_request request;
    struct weir_counter counter[WEIR_CHECKS_MAX];
    size_t count;
    char place[WEIR_CHECKS_MAX]; /* the counter of each check */
    int mode;
    PyObject *names;    /* tuple of str, sorted */
    PyObject *identity; /* bytes: equal for equal requests */
};

#define SELF(object) ((struct state_request *)(object))

static void request_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    core_request_free(&SELF(object)->request);
    Py_XDECREF(SELF(object)->names);
    Py_XDECREF(SELF(object)->identity);
    type->tp_free(object);
    Py_DECREF(type);
}

/* Borrows the bytes of `values`, a list or tuple that must not change during the call. */
static int read_values(struct state_request *self, PyObject *values) {
    if (PySequence_Fast_GET_SIZE(values) != (Py_ssize_t)self->count) {
        PyErr_Format(PyExc_ValueError, "%zu values are needed, one for each name", self->count);
        return -1;
    }
    for (size_t i = 0; i < self->count; i++) {
        PyObject *value = PySequence_Fast_GET_ITEM(values, (Py_ssize_t)i);
        self->counter[i].was = NULL;
        self->counter[i].was_len = 0;
        if (value == Py_None)
            continue;
        if (!PyBytes_Check(value)) {
            PyErr_Format(PyExc_TypeError, "a value must be bytes or None, not %.100s",
                         Py_TYPE(value)->tp_name);
            return -1;
        }
        self->counter[i].was = PyBytes_AS_STRING(value);
        self->counter[i].was_len = (size_t)PyBytes_GET_SIZE(value);
    }
    return 0;
}

/*
 * Always finite, since stores compute with it: never is in the year 2262, where int64_t nanoseconds
 * end.
 */
static double expiry_of(const struct weir_counter *counter) {
    int64_t ns = counter->expires_ns;
    return core_ns_to_seconds(ns == WEIR_NEVER ? WEIR_NEVER - 1 : ns);
}

/* [(place, value or None, when it expires), ...] */
static PyObject *changes_of(const struct state_request *self) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < self->count; i++) {
        const struct weir_counter *counter = &self->counter[i];
        if (!counter->changed)
            continue;
        PyObject *change = counter->next_len
                               ? Py_BuildValue("(ny#d)", (Py_ssize_t)i, (const char *)counter->next,
                                               (Py_ssize_t)counter->next_len, expiry_of(counter))
                               : Py_BuildValue("(nOd)", (Py_ssize_t)i, Py_None, 0.0);
        if (!change || PyList_Append(list, change) < 0)
            Py_CLEAR(list);
        Py_XDECREF(change);
    }
    return list;
}

static PyObject *raise_foreign(struct state_request *self, int rc, size_t bad) {
    if (rc != WEIR_EFORMAT)
        return core_raise(self->state, rc, NULL);
    PyErr_Format(self->state->storage_error, "%U holds something that is not a counter",
                 PyTuple_GET_ITEM(self->names, (Py_ssize_t)bad));
    return NULL;
}

static PyObject *request_decide(PyObject *object, PyObject *args) {
    struct state_request *self = SELF(object);
    PyObject *given, *values;
    double now;
    int64_t now_ns;
    if (!PyArg_ParseTuple(args, "Od:decide", &given, &now) ||
        core_seconds_to_ns(now, "now", &now_ns) < 0 || !(values = PySequence_Tuple(given)))
        return NULL;
    PyObject *result = NULL;
    struct core_decision *decision = NULL;
    char *buffer = NULL;
    size_t bad = 0;
    if (read_values(self, values) < 0)
        goto out;
    buffer =
        PyMem_RawMalloc(weir_state_room(self->counter, self->count, (size_t)self->request.count));
    decision = core_decision_new(self->state, self->request.count);
    if (!buffer || !decision) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        goto out;
    }
    decision->now_ns = now_ns;
    int rc = weir_state_decide(self->request.check, (size_t)self->request.count, self->counter,
                               self->count, now_ns, (enum weir_mode)self->mode, buffer,
                               decision->verdict, &decision->decision, &bad);
    PyObject *changes = rc < 0 ? raise_foreign(self, rc, bad) : changes_of(self);
    if (changes)
        result = Py_BuildValue("(ON)", (PyObject *)decision, changes);
out:
    for (size_t i = 0; i < self->count; i++)
        self->counter[i].was = self->counter[i].next = NULL;
    PyMem_RawFree(buffer);
    Py_XDECREF(decision);
    Py_DECREF(values);
    return result;
}

static PyMethodDef request_methods[] = {
    {"decide", request_decide, METH_VARARGS,
     PyDoc_STR("decide($self, values, now, /)\n--\n\n"
               "values: what the store has under each of `names`, bytes or None.\n"
               "Returns the Decision and the changes to write: [(index in names, value or None,\n"
               "expiry), ...]. Raises StorageError for a value that is not a state of the limit.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef request_members[] = {
    {"names", T_OBJECT_EX, offsetof(struct state_request, names), READONLY,
     PyDoc_STR("The counters' names, sorted, each once: printable ASCII, at most 250 characters.")},
    {"identity", T_OBJECT_EX, offsetof(struct state_request, identity), READONLY,
     PyDoc_STR("Bytes that are equal for equal requests.")},
    {"mode", T_INT, offsetof(struct state_request, mode), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One decision over packed states; see state_request().")},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_methods, request_methods},
    {Py_tp_members, request_members},
    {0, NULL},
};

static PyType_Spec request_spec = {
    .name = "weir._core.StateRequest",
    .basicsize = sizeof(struct state_request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = request_slots,
};

/* A counter's name while the names are sorted. */
struct named {
    struct weir_counter counter;
    int len;
    char name[WEIR_STATE_NAME_MAX];
};

static int compare_named(const void *a, const void *b) {
    const struct named *x = a, *y = b;
    int order = memcmp(x->name, y->name, (size_t)(x->len < y->len ? x->len : y->len));
    return order ? order : x->len - y->len;
}

static int name_check(const struct state_request *self, size_t check, const char *prefix,
                      size_t prefix_len, struct named *named) {
    named->len = weir_state_name(&self->request.check[check], prefix, prefix_len, named->name);
    if (named->len < 0)
        core_raise(self->state, named->len, NULL);
    return named->len < 0 ? -1 : 0;
}

/* Finds the counter of a check. */
static int find_counter(struct state_request *self, size_t check, const char *prefix,
                        size_t prefix_len, const struct named *named) {
    for (size_t j = 0; j < self->count; j++)
        if (named[j].counter.check == check)
            return (int)j;
    struct named same;
    if (name_check(self, check, prefix, prefix_len, &same) < 0)
        return -1;
    const struct named *found = bsearch(&same, named, self->count, sizeof *named, compare_named);
    return found ? (int)(found - named) : 0;
}

/* Sorts the counters by name, so that all processes lock them in the same order. */
static int name_counters(struct state_request *self, const char *prefix, size_t prefix_len) {
    struct named named[WEIR_CHECKS_MAX];
    int rc = weir_state_counters(self->request.check, (size_t)self->request.count, self->counter,
                                 &self->count);
    if (rc < 0) {
        core_raise(self->state, rc, NULL);
        return -1;
    }
    for (size_t j = 0; j < self->count; j++) {
        named[j].counter = self->counter[j];
        if (name_check(self, named[j].counter.check, prefix, prefix_len, &named[j]) < 0)
            return -1;
    }
    qsort(named, self->count, sizeof *named, compare_named);
    self->names = PyTuple_New((Py_ssize_t)self->count);
    for (size_t j = 0; self->names && j < self->count; j++) {
        PyObject *text = PyUnicode_FromStringAndSize(named[j].name, named[j].len);
        if (!text)
            return -1;
        PyTuple_SET_ITEM(self->names, (Py_ssize_t)j, text);
        self->counter[j] = named[j].counter;
    }
    for (size_t i = 0; self->names && i < (size_t)self->request.count; i++) {
        int place = find_counter(self, i, prefix, prefix_len, named);
        if (place < 0)
            return -1;
        self->place[i] = (char)place;
    }
    return self->names ? 0 : -1;
}

static int describe_question(struct state_request *self) {
    struct core_key identity;
    core_key_init(&identity);
    char mode = (char)self->mode;
    int rc = core_key_append(&identity, &mode, 1);
    for (size_t i = 0; i < self->count && rc == 0; i++) {
        Py_ssize_t len;
        const char *name =
            PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(self->names, (Py_ssize_t)i), &len);
        rc = !name || core_key_append(&identity, name, (size_t)len + 1) < 0 ? -1 : 0;
    }
    for (Py_ssize_t i = 0; i < self->request.count && rc == 0; i++) {
        const struct weir_check *check = &self->request.check[i];
        if (core_key_append(&identity, &self->place[i], 1) < 0 ||
            core_key_append(&identity, &check->cost, sizeof check->cost) < 0 ||
            core_key_append(&identity, &check->flags, sizeof check->flags) < 0 ||
            core_key_append(&identity, &check->limit->max_delay_ns, sizeof(int64_t)) < 0)
            rc = -1;
    }
    if (rc == 0)
        self->identity = PyBytes_FromStringAndSize(identity.data, (Py_ssize_t)identity.len);
    core_key_free(&identity);
    return self->identity ? 0 : -1;
}

static PyObject *module_request(PyObject *module, PyObject *args) {
    const char *prefix;
    Py_ssize_t prefix_len;
    PyObject *limits, *keys, *costs;
    int mode;
    if (!PyArg_ParseTuple(args, "y#OOOi:state_request", &prefix, &prefix_len, &limits, &keys,
                          &costs, &mode))
        return NULL;
    if (mode < WEIR_HIT || mode > WEIR_REFUND) {
        PyErr_SetString(PyExc_ValueError, "mode must be HIT, TEST, EACH or REFUND");
        return NULL;
    }
    PyObject *type = PyObject_GetAttrString(module, "StateRequest");
    struct state_request *self =
        type ? SELF(((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0)) : NULL;
    Py_XDECREF(type);
    if (!self)
        return NULL;
    self->state = PyModule_GetState(module);
    self->mode = mode;
    limits = PySequence_Tuple(limits); /* kept: checks point into its limits */
    int rc =
        limits ? core_request_read(&self->request, self->state, NULL, limits, keys, costs) : -1;
    Py_XDECREF(limits);
    if (rc < 0 || name_counters(self, prefix, (size_t)prefix_len) < 0 ||
        describe_question(self) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyMethodDef functions[] = {
    {"state_request", module_request, METH_VARARGS,
     PyDoc_STR("state_request($module, prefix, limits, keys, costs, mode, /)\n--\n\n"
               "The arguments of Storage.decide() as a StateRequest.")},
    {NULL, NULL, 0, NULL},
};

int state_init(PyObject *module) {
    PyTypeObject *type = core_add_type(module, &request_spec, NULL);
    int rc = type ? PyModule_AddFunctions(module, functions) : -1;
    Py_XDECREF(type);
    return rc;
}
