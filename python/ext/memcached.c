/*
 * MemcachedCheck: the commands and replies of one limit of a decision on Memcached. It has no
 * connection: weir.stores.memcached sends and receives the bytes.
 */
#include "memcached.h"

#include <stddef.h>
#include <structmember.h>

#include "convert.h"
#include "errors.h"
#include "tuples.h"
#include "values.h"
#include "weir/memcached.h"

struct memcached_check {
    PyObject_HEAD
    struct core_state *state;
    struct weir_limit limit;
    int64_t cost;
    PyObject *name; /* bytes */
    char counts;
    char peek;
};

#define SELF(object) ((struct memcached_check *)(object))

/* The check for libweir. The key is not needed after the name is made. */
static struct weir_check check_of(const struct memcached_check *self) {
    return (struct weir_check){.limit = &self->limit, .cost = self->cost};
}

static void check_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(SELF(object)->name);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *check_command(PyObject *object, PyObject *args) {
    struct memcached_check *self = SELF(object);
    int what;
    unsigned long long cas;
    double now;
    int64_t now_ns;
    if (!PyArg_ParseTuple(args, "iKd:command", &what, &cas, &now) ||
        core_seconds_to_ns(now, "now", &now_ns) < 0)
        return NULL;
    char buffer[WEIR_MEMCACHED_COMMAND_MAX];
    struct weir_check check = check_of(self);
    int len =
        weir_memcached_command(&check, PyBytes_AS_STRING(self->name),
                               (size_t)PyBytes_GET_SIZE(self->name), what, cas, now_ns, buffer);
    return len < 0 ? core_raise(self->state, len, NULL) : PyBytes_FromStringAndSize(buffer, len);
}

static PyObject *check_evaluate(PyObject *object, PyObject *args) {
    struct memcached_check *self = SELF(object);
    struct weir_memcached_reply reply = {.kind = WEIR_MEMCACHED_COUNT};
    int there, what;
    unsigned long long count;
    long long left_ns;
    double now;
    int64_t now_ns;
    if (!PyArg_ParseTuple(args, "pKLid:evaluate", &there, &count, &left_ns, &what, &now) ||
        core_seconds_to_ns(now, "now", &now_ns) < 0)
        return NULL;
    if (!there)
        reply.kind = WEIR_MEMCACHED_NONE;
    reply.count = count;
    reply.left_ns = left_ns;
    struct weir_verdict verdict;
    struct weir_check check = check_of(self);
    weir_memcached_evaluate(&check, &reply, what, now_ns, &verdict);
    return core_verdict_new(self->state, &verdict);
}

static PyObject *check_window(PyObject *object, PyObject *args) {
    struct memcached_check *self = SELF(object);
    struct weir_memcached_reply reply = {.kind = WEIR_MEMCACHED_COUNT};
    unsigned long long number;
    long long left_s;
    double now;
    int64_t now_ns;
    if (!PyArg_ParseTuple(args, "KLd:window", &number, &left_s, &now) ||
        core_seconds_to_ns(now, "now", &now_ns) < 0)
        return NULL;
    reply.count = number;
    reply.left_s = left_s;
    weir_memcached_window(&self->limit, &reply, now_ns);
    return Py_BuildValue("KLK", (unsigned long long)reply.count, (long long)reply.left_ns,
                         (unsigned long long)reply.start);
}

static PyObject *check_opened(PyObject *object, PyObject *now) {
    struct memcached_check *self = SELF(object);
    double seconds = PyFloat_AsDouble(now);
    uint64_t number;
    int64_t now_ns, expires_s;
    if ((seconds == -1.0 && PyErr_Occurred()) || core_seconds_to_ns(seconds, "now", &now_ns) < 0)
        return NULL;
    struct weir_check check = check_of(self);
    int rc = weir_memcached_opened(&check, now_ns, &number, &expires_s);
    return rc < 0 ? core_raise(self->state, rc, NULL)
                  : Py_BuildValue("KL", (unsigned long long)number, (long long)expires_s);
}

static PyObject *check_step(PyObject *object, PyObject *args) {
    struct memcached_check *self = SELF(object);
    const char *value;
    Py_ssize_t len;
    int mode, changed;
    double now;
    int64_t now_ns, expires_s;
    size_t next_len;
    if (!PyArg_ParseTuple(args, "z#id:step", &value, &len, &mode, &now) ||
        core_seconds_to_ns(now, "now", &now_ns) < 0)
        return NULL;
    char *next = PyMem_RawMalloc(WEIR_MEMCACHED_VALUE_MAX);
    if (!next)
        return PyErr_NoMemory();
    struct weir_verdict verdict;
    struct weir_check check = check_of(self);
    PyObject *result = NULL;
    int rc = weir_memcached_step(&check, value, (size_t)len, now_ns, (enum weir_mode)mode, &verdict,
                                 next, &next_len, &expires_s, &changed);
    if (rc < 0)
        core_raise(self->state, rc, NULL);
    else
        result =
            Py_BuildValue("Ny#LO", core_verdict_new(self->state, &verdict), next,
                          (Py_ssize_t)next_len, (long long)expires_s, changed ? Py_True : Py_False);
    PyMem_RawFree(next);
    return result;
}

static PyObject *check_with_cost(PyObject *object, PyObject *cost) {
    struct memcached_check *self = SELF(object);
    int64_t count;
    if (core_count(cost, "cost", &count) < 0)
        return NULL;
    struct memcached_check *other = SELF(Py_TYPE(object)->tp_alloc(Py_TYPE(object), 0));
    if (!other)
        return NULL;
    other->state = self->state;
    other->limit = self->limit;
    other->cost = count;
    other->counts = self->counts;
    other->peek = self->peek;
    other->name = Py_NewRef(self->name);
    return (PyObject *)other;
}

static PyMethodDef check_methods[] = {
    {"with_cost", check_with_cost, METH_O,
     PyDoc_STR("with_cost($self, cost, /)\n--\n\n"
               "The same with another cost.")},
    {"command", check_command, METH_VARARGS,
     PyDoc_STR("command($self, what, cas, now, /)\n--\n\n"
               "The meta command for a limit that the server counts. now: the true time.")},
    {"evaluate", check_evaluate, METH_VARARGS,
     PyDoc_STR("evaluate($self, there, count, left_ns, what, now, /)\n--\n\n"
               "The Verdict for the reply to command().")},
    {"window", check_window, METH_VARARGS,
     PyDoc_STR("window($self, number, left, now, /)\n--\n\n"
               "A number that the server keeps: (hits, ns until the window ends, its start).\n"
               "left: seconds until the item expires, or -1. now: the true time.")},
    {"opened", check_opened, METH_O,
     PyDoc_STR("opened($self, now, /)\n--\n\n"
               "The number of a window that begins now, and for how many seconds to keep it.")},
    {"step", check_step, METH_VARARGS,
     PyDoc_STR(
         "step($self, value, mode, now, /)\n--\n\n"
         "Steps a stored state: (verdict, next value, seconds to keep it, whether it changed).\n"
         "Raises TableError if value is not a state of this limit or would become too long.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_limit(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(SELF(object)->limit.amount);
}

static PyObject *get_count_bits(PyObject *Py_UNUSED(object), void *Py_UNUSED(closure)) {
    return PyLong_FromLong(WEIR_MEMCACHED_COUNT_BITS);
}

static PyGetSetDef check_getset[] = {
    {"count_bits", get_count_bits, NULL, PyDoc_STR("How many bits of a number are the hits."),
     NULL},
    {"amount", get_limit, NULL, PyDoc_STR("The limit's amount."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef check_members[] = {
    {"name", T_OBJECT_EX, offsetof(struct memcached_check, name), READONLY,
     PyDoc_STR("The name of the counter.")},
    {"counts", T_BOOL, offsetof(struct memcached_check, counts), READONLY,
     PyDoc_STR("Whether the server itself can count this limit.")},
    {"peek", T_BOOL, offsetof(struct memcached_check, peek), READONLY,
     PyDoc_STR("Whether it is a peek: nothing is charged.")},
    {"cost", T_LONGLONG, offsetof(struct memcached_check, cost), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot check_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One limit of a decision on Memcached; see memcached_checks().")},
    {Py_tp_dealloc, check_dealloc},
    {Py_tp_methods, check_methods},
    {Py_tp_members, check_members},
    {Py_tp_getset, check_getset},
    {0, NULL},
};

static PyType_Spec check_spec = {
    .name = "weir._core.MemcachedCheck",
    .basicsize = sizeof(struct memcached_check),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = check_slots,
};

static PyObject *new_check(PyTypeObject *type, struct core_state *state,
                           const struct weir_check *check, const char *prefix, size_t prefix_len) {
    char name[WEIR_MEMCACHED_NAME_MAX];
    int len = weir_memcached_name(check, prefix, prefix_len, name);
    if (len < 0)
        return core_raise(state, len, NULL);
    struct memcached_check *self = SELF(type->tp_alloc(type, 0));
    if (!self)
        return NULL;
    self->state = state;
    self->limit = *check->limit;
    self->cost = check->cost;
    self->counts = (char)weir_memcached_counts(check->limit);
    self->peek = (check->flags & WEIR_CHECK_PEEK) != 0;
    self->name = PyBytes_FromStringAndSize(name, len);
    if (!self->name)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *module_checks(PyObject *module, PyObject *args) {
    struct core_state *state = PyModule_GetState(module);
    const char *prefix;
    Py_ssize_t prefix_len;
    PyObject *limits, *keys, *costs, *list = NULL;
    if (!PyArg_ParseTuple(args, "y#OOO:memcached_checks", &prefix, &prefix_len, &limits, &keys,
                          &costs))
        return NULL;
    PyObject *type = PyObject_GetAttrString(module, "MemcachedCheck");
    if (!type)
        return NULL;
    struct core_request request;
    if (core_request_read(&request, state, NULL, limits, keys, costs) == 0)
        list = PyList_New(request.count);
    for (Py_ssize_t i = 0; list && i < request.count; i++) {
        PyObject *check =
            new_check((PyTypeObject *)type, state, &request.check[i], prefix, (size_t)prefix_len);
        if (!check)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, check);
    }
    core_request_free(&request);
    Py_DECREF(type);
    return list;
}

static PyObject *module_read(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *bytes;
    Py_ssize_t len, from;
    struct weir_memcached_reply reply;
    if (!PyArg_ParseTuple(args, "y#n:memcached_read", &bytes, &len, &from))
        return NULL;
    if (from < 0 || from > len) {
        PyErr_SetString(PyExc_ValueError, "there is no such place");
        return NULL;
    }
    int rc = weir_memcached_read(bytes + from, (size_t)(len - from), &reply);
    if (rc < 0) {
        PyErr_SetString(PyExc_ValueError, "not a reply of Memcached");
        return NULL;
    }
    if (rc == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("inKLKs#", (int)reply.kind, from + (Py_ssize_t)reply.used,
                         (unsigned long long)reply.count, (long long)reply.left_s,
                         (unsigned long long)reply.cas, reply.error ? reply.error : "",
                         (Py_ssize_t)reply.error_len);
}

static PyMethodDef functions[] = {
    {"memcached_checks", module_checks, METH_VARARGS,
     PyDoc_STR("memcached_checks($module, prefix, limits, keys, costs, /)\n--\n\n"
               "The arguments of Storage.decide() as one MemcachedCheck for each limit.")},
    {"memcached_read", module_read, METH_VARARGS,
     PyDoc_STR(
         "memcached_read($module, data, start, /)\n--\n\n"
         "One reply: (kind, its end, count, seconds left, cas, error); None: more is needed.")},
    {NULL, NULL, 0, NULL},
};

int memcached_init(PyObject *module) {
    PyTypeObject *type = core_add_type(module, &check_spec, NULL);
    int rc = type ? PyModule_AddFunctions(module, functions) : -1;
    Py_XDECREF(type);
    return rc;
}
