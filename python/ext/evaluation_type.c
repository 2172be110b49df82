/* The Python type of Evaluation: members, headers of the reported part, and the type. */
#include "evaluation_type.h"

#include <stddef.h>
#include <strings.h>
#include <structmember.h>

#include "clock.h"
#include "evaluation.h"
#include "evaluation_store.h"
#include "tuples.h"
#include "values.h"

#define SELF(object) ((struct core_evaluation *)(object))

/* -------------------------------------------------------------------------------------- parts */

static struct core_item *item_at(struct core_evaluation *self, PyObject *argument, Py_ssize_t *i) {
    *i = PyNumber_AsSsize_t(argument, PyExc_IndexError);
    if (*i == -1 && PyErr_Occurred())
        return NULL;
    if (*i < 0 || *i >= self->check->count) {
        PyErr_SetString(PyExc_IndexError, "there is no such part");
        return NULL;
    }
    return &self->item[*i];
}

static PyObject *evaluation_verdict(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    struct core_item *item = item_at(SELF(object), argument, &i);
    return item ? core_verdict_new(SELF(object)->check->state, &item->verdict) : NULL;
}

static PyObject *evaluation_client(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    Py_ssize_t i;
    if (!item_at(self, argument, &i))
        return NULL;
    PyObject *client = self->item[self->check->part[i].key_index].client;
    if (!client)
        return PyUnicode_New(0, 0);
    return PyUnicode_Check(client)
               ? Py_NewRef(client)
               : PyUnicode_DecodeUTF8(PyBytes_AS_STRING(client), PyBytes_GET_SIZE(client),
                                      "backslashreplace");
}

static PyObject *evaluation_scope(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    struct core_item *item = item_at(SELF(object), argument, &i);
    return !item ? NULL : Py_NewRef(item->scope ? item->scope : Py_None);
}

static PyObject *evaluation_key(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    return item_at(SELF(object), argument, &i) ? evaluation_key_of(SELF(object), i) : NULL;
}

static PyObject *evaluation_cost(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    struct core_item *item = item_at(SELF(object), argument, &i);
    return item ? PyLong_FromLongLong(item->cost) : NULL;
}

static PyObject *evaluation_refuse(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_evaluation *self = SELF(object);
    int64_t now_ns = core_now(self->check->state);
    if (now_ns < 0)
        return NULL;
    self->now_ns = now_ns;
    for (Py_ssize_t i = 0; i < self->check->count; i++)
        if (self->parts & CORE_PART_BIT(i) && i < self->check->main) {
            const struct weir_limit *limit = &self->check->part[i].limit->limit;
            self->item[i].verdict = (struct weir_verdict){
                .limit = limit->burst ? limit->burst : limit->amount,
                .reset_at_ns = now_ns,
                .retry_after_ns = WEIR_NEVER,
            };
        } else if (self->parts & CORE_PART_BIT(i)) {
            self->item[i].verdict.allowed = 1;
        }
    evaluation_conclude(self);
    Py_RETURN_NONE;
}

static PyObject *evaluation_reports(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    if (!item_at(SELF(object), argument, &i))
        return NULL;
    SELF(object)->reported = (int32_t)i;
    Py_RETURN_NONE;
}

static bool is_retry_after(PyObject *pair) {
    static const char name[] = "retry-after";
    PyObject *text =
        PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) > 0 ? PyTuple_GET_ITEM(pair, 0) : NULL;
    return text && PyUnicode_Check(text) && PyUnicode_IS_COMPACT_ASCII(text) &&
           PyUnicode_GET_LENGTH(text) == (Py_ssize_t)sizeof name - 1 &&
           strncasecmp((const char *)PyUnicode_1BYTE_DATA(text), name, sizeof name - 1) == 0;
}

/* Whole seconds until the same request is allowed, or else until the reset; rounded up. */
static int64_t seconds_to_wait(const struct weir_verdict *verdict, int64_t now_us, int64_t reset) {
    if (verdict->allowed || verdict->retry_after_ns == WEIR_NEVER)
        return (reset * 1000000 - now_us) / 1000000;
    int64_t wait_us = verdict->retry_after_ns / 1000 + (verdict->retry_after_ns % 1000 > 0);
    return wait_us / 1000000 + (wait_us % 1000000 > 0);
}

int core_evaluation_write_headers(struct core_evaluation *self, PyObject *pairs, PyObject *names) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs); i++)
        if (is_retry_after(PyList_GET_ITEM(pairs, i)))
            return 0;
    int64_t now_ns = core_now(self->check->state);
    if (now_ns < 0)
        return -1;
    const struct weir_verdict *verdict = &self->item[self->reported].verdict;
    /* Rounded up to microseconds first, as everywhere. */
    int64_t reset = (verdict->reset_at_ns / 1000 + (verdict->reset_at_ns % 1000 > 0)) / 1000000 + 1;
    int64_t numbers[] = {verdict->remaining, reset, seconds_to_wait(verdict, now_ns / 1000, reset)};
    int rc = PyList_Append(pairs, PyTuple_GET_ITEM(names, 0));
    for (int i = 0; i < 3 && rc == 0; i++) {
        PyObject *value = core_decimal(numbers[i]);
        PyObject *pair = value ? PyTuple_Pack(2, PyTuple_GET_ITEM(names, i + 1), value) : NULL;
        Py_XDECREF(value);
        rc = core_list_add(pairs, pair);
    }
    return rc < 0 ? -1 : 1;
}

static PyObject *evaluation_write_headers(PyObject *object, PyObject *const *args,
                                          Py_ssize_t nargs) {
    if (nargs != 2 || !PyList_Check(args[0]) || !PyTuple_Check(args[1]) ||
        PyTuple_GET_SIZE(args[1]) != 4 || SELF(object)->reported < 0) {
        PyErr_SetString(
            PyExc_TypeError,
            "write_headers() takes a list and a tuple of four, of a reported evaluation");
        return NULL;
    }
    int rc = core_evaluation_write_headers(SELF(object), args[0], args[1]);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

/* --------------------------------------------------------------------------------------- type */

static PyObject *get_now(PyObject *object, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(core_ns_to_seconds(SELF(object)->now_ns));
}

static PyObject *get_rule(PyObject *object, void *Py_UNUSED(closure)) {
    int32_t rule = SELF(object)->rule;
    return PyUnicode_FromString(rule == WEIR_RULE_BLOCK   ? "block"
                                : rule == WEIR_RULE_ALLOW ? "allow"
                                                          : "");
}

static PyObject *get_delay(PyObject *object, void *Py_UNUSED(closure)) {
    struct core_evaluation *self = SELF(object);
    int64_t delay_ns = 0;
    for (Py_ssize_t i = 0; i < self->check->main; i++)
        if (self->parts & ~self->check->lenient & CORE_PART_BIT(i) &&
            self->item[i].verdict.delay_ns > delay_ns)
            delay_ns = self->item[i].verdict.delay_ns;
    return PyFloat_FromDouble(core_ns_to_seconds(delay_ns));
}

PyDoc_STRVAR(evaluation_doc,
             "The evaluation of a PreparedCheck for one request. In masks, bit i means part i.");

static PyMethodDef evaluation_methods[] = {
    {"decide", evaluation_decide, METH_NOARGS,
     PyDoc_STR("decide($self, /)\n--\n\n"
               "Decides on the check's store. True if no part denies.")},
    {"add", evaluation_add, METH_O,
     PyDoc_STR("add($self, parts, /)\n--\n\n"
               "Gathers more parts, for settle(); the mask of those that apply.")},
    {"settle", (PyCFunction)(void (*)(void))evaluation_settle, METH_FASTCALL,
     PyDoc_STR("settle($self, mode, parts, unit_cost=False, /)\n--\n\n"
               "Charges (EACH) or gives back (REFUND) parts; keeps the verdicts that allow.\n"
               "unit_cost: at a cost of 1.")},
    {"decide_on", evaluation_decide_on, METH_VARARGS,
     PyDoc_STR("decide_on($self, table, mode, parts, settling, /)\n--\n\n"
               "Decides parts on a table; for stores that use one.")},
    {"rule_match", evaluation_rule, METH_O,
     PyDoc_STR("rule_match($self, parts, /)\n--\n\n"
               "Whether a rule of the table decides about the clients.")},
    {"record", (PyCFunction)(void (*)(void))evaluation_record, METH_FASTCALL,
     PyDoc_STR("record($self, parts, shadow, settled=False, /)\n--\n\n"
               "Counts what was decided elsewhere in the table's statistics;\n"
               "settled: by settle().")},
    {"checks", evaluation_checks, METH_O,
     PyDoc_STR("checks($self, parts, /)\n--\n\n"
               "(indices, limits, keys, costs) of parts, for Storage.decide().")},
    {"keep", (PyCFunction)(void (*)(void))evaluation_keep, METH_FASTCALL,
     PyDoc_STR("keep($self, parts, decision, settling, /)\n--\n\n"
               "Takes over the verdicts of a Decision; whether it allows.\n"
               "parts: their indices in its order, or their mask.")},
    {"verdict", evaluation_verdict, METH_O,
     PyDoc_STR("verdict($self, index, /)\n--\n\n"
               "The Verdict of a part.")},
    {"client", evaluation_client, METH_O,
     PyDoc_STR("client($self, index, /)\n--\n\n"
               "The client that a part counts, as text.")},
    {"scope", evaluation_scope, METH_O,
     PyDoc_STR("scope($self, index, /)\n--\n\n"
               "The result of scope_of; None if there is none.")},
    {"key", evaluation_key, METH_O,
     PyDoc_STR("key($self, index, /)\n--\n\n"
               "The name of a part's counter in stores, beside the limit.")},
    {"cost", evaluation_cost, METH_O,
     PyDoc_STR("cost($self, index, /)\n--\n\n"
               "The cost of the request for a part.")},
    {"refuse", evaluation_refuse, METH_NOARGS,
     PyDoc_STR("refuse($self, /)\n--\n\n"
               "Deny all main parts without an end: the request cannot be evaluated.")},
    {"report", evaluation_reports, METH_O,
     PyDoc_STR("report($self, index, /)\n--\n\n"
               "Makes this the part that is reported to the client.")},
    {"write_headers", (PyCFunction)(void (*)(void))evaluation_write_headers, METH_FASTCALL,
     PyDoc_STR("write_headers($self, pairs, names, /)\n--\n\n"
               "Appends the headers of the reported part to a list of (name, value): names[0]\n"
               "itself, and what remains, the reset and the seconds to wait under names[1:].\n"
               "False, with nothing appended, if there is a Retry-After.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef evaluation_members[] = {
    {"check", T_OBJECT, offsetof(struct core_evaluation, check), READONLY,
     PyDoc_STR("The PreparedCheck.")},
    {"parts", T_UINT, offsetof(struct core_evaluation, parts), READONLY,
     PyDoc_STR("Mask of the parts that apply to this request.")},
    {"denied", T_UINT, offsetof(struct core_evaluation, denied), READONLY,
     PyDoc_STR("Mask of the parts that deny.")},
    {"reported", T_INT, offsetof(struct core_evaluation, reported), READONLY,
     PyDoc_STR("Index of the part to report to the client; -1: none.")},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef evaluation_getset[] = {
    {"now", get_now, NULL, PyDoc_STR("The time of the decision, seconds since the epoch."), NULL},
    {"rule", get_rule, NULL,
     PyDoc_STR("'block' or 'allow' if a rule about the client decided, else ''."), NULL},
    {"delay", get_delay, NULL, PyDoc_STR("Seconds for which a leaky bucket delays the request."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot evaluation_slots[] = {
    {Py_tp_doc, (void *)evaluation_doc},
    {Py_tp_dealloc, evaluation_dealloc},
    {Py_tp_traverse, evaluation_traverse},
    {Py_tp_methods, evaluation_methods},
    {Py_tp_members, (void *)evaluation_members},
    {Py_tp_getset, evaluation_getset},
    {0, NULL},
};

PyType_Spec core_evaluation_spec = {
    .name = "weir.Evaluation",
    .basicsize = offsetof(struct core_evaluation, item),
    .itemsize = sizeof(struct core_item),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = evaluation_slots,
};
