/*
 * PreparedCheck: the limits of one check with everything that does not change between requests.
 *
 * It is created once: limits are validated, and each part has its role, the fixed pieces of its key
 * and its label. For each request, functions return the client, whether a limit applies, its scope
 * and its cost. One decision then evaluates all parts (weir_decide_prepared(), or another store).
 *
 * Index i always means part i: in masks, verdicts, costs. User functions only run while nothing of
 * libweir is borrowed.
 */
#include "prepared_type.h"

#include <stddef.h>
#include <structmember.h>

#include "evaluation.h"
#include "limit.h"
#include "lost.h"
#include "prepared_check.h"
#include "table.h"
#include "values.h"
#include "weir/stats.h"

#define SELF(object) ((struct core_prepared *)(object))

static PyObject *bytes_of(PyObject *text, const char *what) {
    if (PyUnicode_Check(text))
        return PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    PyErr_Format(PyExc_TypeError, "%s must be str, not %.100s", what, Py_TYPE(text)->tp_name);
    return NULL;
}

/* ------------------------------------------------------------------------------------- making */

static PyObject *callable_or_null(PyObject *object) {
    return object == Py_None ? NULL : Py_NewRef(object);
}

/* The index of a key function, by identity. */
static int32_t index_of_key(struct core_prepared *self, PyObject *key_func) {
    for (Py_ssize_t i = 0; i < self->key_funcs; i++)
        if (self->key_func[i] == key_func)
            return (int32_t)i;
    self->key_func[self->key_funcs] = Py_NewRef(key_func);
    return (int32_t)self->key_funcs++;
}

/* A part of (limit, key_func, after, cost, role, exempt_when, scope_of, cost_of, deduct_when). */
static int read_part(struct core_prepared *self, struct core_part *part, PyObject *arguments) {
    PyObject *limit, *key_func, *after, *cost, *exempt_when, *scope_of, *cost_of, *deduct_when;
    if (!PyTuple_Check(arguments)) {
        PyErr_SetString(PyExc_TypeError, "a part must be a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(arguments, "OOOOiOOOO:PreparedCheck", &limit, &key_func, &after, &cost,
                          &part->role, &exempt_when, &scope_of, &cost_of, &deduct_when))
        return -1;
    if (!core_is_limit(self->state, limit)) {
        PyErr_Format(PyExc_TypeError, "limits must be of Limit, not %.100s",
                     Py_TYPE(limit)->tp_name);
        return -1;
    }
    part->limit = (struct core_limit *)Py_NewRef(limit);
    part->key_index = index_of_key(self, key_func);
    part->exempt_when = callable_or_null(exempt_when);
    part->scope_of = callable_or_null(scope_of);
    part->cost_of = callable_or_null(cost_of);
    part->deduct_when = callable_or_null(deduct_when);
    uint32_t bit = CORE_PART_BIT(part - self->part);
    self->peeked |= part->role == WEIR_ROLE_PEEKED ? bit : 0;
    self->deferred |= part->role == WEIR_ROLE_DEFERRED ? bit : 0;
    self->shadows |= part->role == WEIR_ROLE_SHADOW ? bit : 0;
    self->responsive |= part->deduct_when ? bit : 0;
    self->scopes |= part->scope_of != NULL;
    part->after = bytes_of(after, "what follows the client in a key");
    return part->after ? core_count(cost, "cost", &part->cost) : -1;
}

static int read_parts(struct core_prepared *self, PyObject *parts) {
    self->count = PySequence_Fast_GET_SIZE(parts);
    if (self->count < 1 || self->count > WEIR_CHECKS_MAX) {
        PyErr_Format(PyExc_ValueError, "1 to %d limits can be decided at once, not %zd",
                     WEIR_CHECKS_MAX, self->count);
        self->count = 0;
        return -1;
    }
    self->part = PyMem_Calloc((size_t)self->count, sizeof *self->part);
    self->key_func = PyMem_Calloc((size_t)self->count, sizeof(PyObject *));
    if (!self->part || !self->key_func) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->count; i++)
        if (read_part(self, &self->part[i], PySequence_Fast_GET_ITEM(parts, i)) < 0)
            return -1;
    return 0;
}

static PyObject *prepared_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    struct core_state *state = core_state_of(type);
    PyObject *table, *store, *parts, *prefix, *on_empty;
    Py_ssize_t main;
    unsigned labels, evaluated, lenient, unshared, observed;
    int mode;
    if (!state || !PyArg_ParseTuple(args, "O!OOOOniIIIII:PreparedCheck", state->table_type, &table,
                                    &store, &parts, &prefix, &on_empty, &main, &mode, &labels,
                                    &evaluated, &lenient, &unshared, &observed))
        return NULL;
    struct core_prepared *self = SELF(type->tp_alloc(type, 0));
    if (!self)
        return NULL;
    self->state = state;
    self->table = (struct core_table *)Py_NewRef(table);
    self->store = callable_or_null(store);
    self->on_empty = Py_NewRef(on_empty);
    self->renewals = self->table->renewals;
    self->main = main;
    self->labels = labels;
    self->mode = mode == WEIR_EACH ? WEIR_EACH : WEIR_HIT;
    self->prefix = bytes_of(prefix, "a prefix");
    parts = core_tuple_of(parts, "parts must be a sequence");
    if (!self->prefix || !parts || read_parts(self, parts) < 0 || !core_table_borrow(self->table) ||
        core_prepared_prepare(self, true, &self->labelled) < 0 ||
        core_prepared_prepare(self, false, &self->plain) < 0)
        Py_CLEAR(self);
    Py_XDECREF(parts);
    if (self) {
        uint32_t all = UINT32_MAX >> (WEIR_CHECKS_MAX - self->count);
        self->evaluated = evaluated & all;
        self->lenient = lenient & all;
        self->unshared = unshared & all;
        self->observed = observed & all;
    }
    return (PyObject *)self;
}

static int prepared_traverse(PyObject *object, visitproc visit, void *arg) {
    struct core_prepared *self = SELF(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->table);
    Py_VISIT(self->store);
    Py_VISIT(self->on_empty);
    Py_VISIT(self->headers);
    for (Py_ssize_t i = 0; i < self->key_funcs; i++)
        Py_VISIT(self->key_func[i]);
    for (Py_ssize_t i = 0; self->part && i < self->count; i++) {
        Py_VISIT(self->part[i].exempt_when);
        Py_VISIT(self->part[i].scope_of);
        Py_VISIT(self->part[i].cost_of);
        Py_VISIT(self->part[i].deduct_when);
    }
    return 0;
}

/* Clears only members that are part of every cycle. An Evaluation may still use the others. */
static int prepared_clear(PyObject *object) {
    Py_CLEAR(SELF(object)->on_empty);
    return 0;
}

static void prepared_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    struct core_prepared *self = SELF(object);
    PyObject_GC_UnTrack(object);
    for (Py_ssize_t i = 0; self->part && i < self->count; i++) {
        struct core_part *part = &self->part[i];
        Py_XDECREF(part->limit);
        Py_XDECREF(part->after);
        Py_XDECREF(part->exempt_when);
        Py_XDECREF(part->scope_of);
        Py_XDECREF(part->cost_of);
        Py_XDECREF(part->deduct_when);
    }
    for (Py_ssize_t i = 0; i < self->key_funcs; i++)
        Py_XDECREF(self->key_func[i]);
    PyMem_Free(self->part);
    PyMem_Free(self->key_func);
    weir_prepared_free(self->labelled);
    weir_prepared_free(self->plain);
    Py_XDECREF(self->table);
    Py_XDECREF(self->store);
    Py_XDECREF(self->prefix);
    Py_XDECREF(self->on_empty);
    Py_XDECREF(self->headers);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *prepared_evaluate(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_evaluation *evaluation = core_evaluation_gather(SELF(object));
    if (evaluation && core_evaluation_decide(evaluation) < 0)
        Py_CLEAR(evaluation);
    return (PyObject *)evaluation;
}

static PyObject *prepared_gather(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    return (PyObject *)core_evaluation_gather(SELF(object));
}

/* --------------------------------------------------------------------------------------- type */

PyDoc_STRVAR(prepared_doc,
             "PreparedCheck(table, store, parts, prefix, on_empty, main, mode, labels, evaluated,\n"
             "              lenient, unshared, observed, /)\n--\n\n"
             "The limits of one check; only the data of the request is missing.\n\n"
             "table: has the statistics and the rules, and decides unless there is a store.\n"
             "store: decides by its method decide_prepared(evaluation, mode, parts, settling);\n"
             "None: the table.\n"
             "parts: tuples of (limit, key_func, after, cost, role, exempt_when, scope_of,\n"
             "cost_of, deduct_when); after follows the client in a key; functions that do not\n"
             "apply are None. 1 to 32 of them.\n"
             "prefix: precedes the client in keys. on_empty: called with the index of a part\n"
             "that has no client to count, and \"key\" or \"scope\". main: how many parts, the\n"
             "first, are limits of the route.\n"
             "mode: HIT or EACH. Masks, bit i for part i: labels: counted in the statistics;\n"
             "evaluated: decided by evaluate(); lenient: refuse no request; unshared: reported\n"
             "to the client before others; observed: evaluated separately, charge nothing and\n"
             "refuse no request.");

static PyMethodDef prepared_methods[] = {
    {"evaluate", prepared_evaluate, METH_NOARGS,
     PyDoc_STR("evaluate($self, /)\n--\n\n"
               "Gathers and decides; returns an Evaluation.")},
    {"gather", prepared_gather, METH_NOARGS,
     PyDoc_STR("gather($self, /)\n--\n\n"
               "Calls the functions; returns an Evaluation that is not decided yet.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef prepared_members[] = {
    {"evaluated", T_UINT, offsetof(struct core_prepared, evaluated), READONLY,
     PyDoc_STR("Mask of the parts that evaluate() decides.")},
    {"responsive", T_UINT, offsetof(struct core_prepared, responsive), READONLY,
     PyDoc_STR("Mask of the parts that are settled by the response.")},
    {"observed", T_UINT, offsetof(struct core_prepared, observed), READONLY,
     PyDoc_STR("Mask of the parts that are evaluated separately and charge nothing.")},
    {"peeked", T_UINT, offsetof(struct core_prepared, peeked), READONLY,
     PyDoc_STR("Mask of the parts whose role is ROLE_PEEKED.")},
    {"deferred", T_UINT, offsetof(struct core_prepared, deferred), READONLY,
     PyDoc_STR("Mask of the parts whose role is ROLE_DEFERRED.")},
    {"shadows", T_UINT, offsetof(struct core_prepared, shadows), READONLY,
     PyDoc_STR("Mask of the parts whose role is ROLE_SHADOW.")},
    {"mode", T_INT, offsetof(struct core_prepared, mode), READONLY, PyDoc_STR("HIT or EACH.")},
    {"defaults", T_BOOL, offsetof(struct core_prepared, defaults), 0,
     PyDoc_STR("Whether the default limits are among the parts.")},
    {"headers", T_OBJECT, offsetof(struct core_prepared, headers), 0,
     PyDoc_STR("The names for write_headers() for each main part, or None.")},
    {"store", T_OBJECT, offsetof(struct core_prepared, store), READONLY,
     PyDoc_STR("The store that decides, or None for the table.")},
    {"table", T_OBJECT, offsetof(struct core_prepared, table), READONLY,
     PyDoc_STR("The table with the statistics and the rules.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot prepared_slots[] = {
    {Py_tp_doc, (void *)prepared_doc},
    {Py_tp_new, prepared_new},
    {Py_tp_dealloc, prepared_dealloc},
    {Py_tp_traverse, prepared_traverse},
    {Py_tp_clear, prepared_clear},
    {Py_tp_methods, prepared_methods},
    {Py_tp_members, (void *)prepared_members},
    {0, NULL},
};

PyType_Spec core_prepared_spec = {
    .name = "weir.PreparedCheck",
    .basicsize = sizeof(struct core_prepared),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = prepared_slots,
};
