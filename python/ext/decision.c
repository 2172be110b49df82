/*
 * Decision: the verdicts of all limits of one check; and the named tuples Verdict, WindowStats,
 * Granularity and others.
 *
 * A Decision stores libweir's structs and creates Python objects on demand: most callers only read
 * `allowed`.
 */
#include "decision.h"

#include <stddef.h>
#include <strings.h>
#include <structmember.h>

#include "checks.h"
#include "clock.h"
#include "item_class.h"
#include "limit.h"
#include "tuples.h"
#include "values.h"

#define SELF(object) ((struct core_decision *)(object))

/* ------------------------------------------------------------------------------- named tuples */

/* ----------------------------------------------------------------------------------- Decision */

struct core_decision *core_decision_new(struct core_state *state, Py_ssize_t count) {
    PyTypeObject *type = state->decision_type;
    struct core_decision *self = SELF(type->tp_alloc(type, count));
    if (self)
        self->state = state;
    return self;
}

/* A float of seconds as nanoseconds; infinity becomes WEIR_NEVER. */
static int read_seconds(PyObject *object, const char *what, int64_t *ns) {
    double seconds = core_number(object, what);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (seconds > 1e18) {
        *ns = WEIR_NEVER;
        return 0;
    }
    return core_seconds_to_ns(seconds, what, ns);
}

/* A Verdict, or any sequence like it. */
static int read_verdict(PyObject *object, struct weir_verdict *verdict) {
    PyObject *items = core_tuple_of(object, "a verdict must be a Verdict");
    if (!items)
        return -1;
    int rc = -1;
    if (PySequence_Fast_GET_SIZE(items) != 6) {
        PyErr_SetString(PyExc_TypeError, "a verdict must have the six items of Verdict");
        goto out;
    }
    PyObject **item = PySequence_Fast_ITEMS(items);
    int allowed = PyObject_IsTrue(item[0]);
    if (allowed < 0 || core_count(item[1], "limit", &verdict->limit) < 0 ||
        core_count(item[2], "remaining", &verdict->remaining) < 0 ||
        read_seconds(item[3], "reset_at", &verdict->reset_at_ns) < 0 ||
        read_seconds(item[4], "retry_after", &verdict->retry_after_ns) < 0 ||
        read_seconds(item[5], "delay", &verdict->delay_ns) < 0)
        goto out;
    verdict->allowed = allowed;
    verdict->reserved = 0;
    rc = 0;
out:
    Py_DECREF(items);
    return rc;
}

/* The kind of rule that a text names; -1 with an exception set. */
static int read_rule(const char *text) {
    static const char *const names[] = {"", "block", "allow"};
    for (int rule = WEIR_RULE_NONE; rule <= WEIR_RULE_ALLOW; rule++)
        if (strcmp(text, names[rule]) == 0)
            return rule;
    PyErr_Format(PyExc_ValueError, "rule must be \"\", \"block\" or \"allow\", not \"%.20s\"",
                 text);
    return -1;
}

static PyObject *decision_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"verdicts", "deciding", "now", "rule", NULL};
    PyObject *verdicts;
    int deciding, rule;
    double now;
    const char *rule_name = "";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oid|s:Decision", (char **)names, &verdicts,
                                     &deciding, &now, &rule_name) ||
        (rule = read_rule(rule_name)) < 0)
        return NULL;
    struct core_state *state = core_state_of(type);
    PyObject *items = state ? core_tuple_of(verdicts, "verdicts must be a sequence") : NULL;
    if (!items)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(items);
    struct core_decision *self = NULL;
    if (count < 1 || count > WEIR_CHECKS_MAX || deciding < 0 || deciding >= count) {
        PyErr_Format(PyExc_ValueError, "1 to %d verdicts and the index of one of them are needed",
                     WEIR_CHECKS_MAX);
        goto out;
    }
    self = core_decision_new(state, count);
    if (!self)
        goto out;
    self->decision.allowed = 1;
    self->decision.deciding = deciding;
    self->decision.rule = rule;
    int rc = core_seconds_to_ns(now, "now", &self->now_ns);
    for (Py_ssize_t i = 0; i < count && rc == 0; i++) {
        rc = read_verdict(PySequence_Fast_GET_ITEM(items, i), &self->verdict[i]);
        self->decision.allowed &= self->verdict[i].allowed;
    }
    if (rc < 0)
        Py_CLEAR(self);
out:
    Py_DECREF(items);
    return (PyObject *)self;
}

static int decision_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static void decision_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *get_allowed(PyObject *object, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(SELF(object)->decision.allowed);
}

static PyObject *get_deciding(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromLong(SELF(object)->decision.deciding);
}

static PyObject *get_now(PyObject *object, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(core_ns_to_seconds(SELF(object)->now_ns));
}

static PyObject *get_rule(PyObject *object, void *Py_UNUSED(closure)) {
    int32_t rule = SELF(object)->decision.rule;
    return PyUnicode_FromString(rule == WEIR_RULE_BLOCK   ? "block"
                                : rule == WEIR_RULE_ALLOW ? "allow"
                                                          : "");
}

static PyObject *get_verdict(PyObject *object, void *Py_UNUSED(closure)) {
    struct core_decision *self = SELF(object);
    return core_verdict_new(self->state, &self->verdict[self->decision.deciding]);
}

static Py_ssize_t decision_length(PyObject *object) {
    return Py_SIZE(object);
}

static PyObject *decision_item(PyObject *object, Py_ssize_t index) {
    if (index < 0 || index >= Py_SIZE(object)) {
        PyErr_SetString(PyExc_IndexError, "decision index out of range");
        return NULL;
    }
    return core_verdict_new(SELF(object)->state, &SELF(object)->verdict[index]);
}

static PyObject *decision_slice(PyObject *object, PyObject *slice) {
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices(Py_SIZE(object), &start, &stop, step);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++) {
        PyObject *verdict = decision_item(object, start + i * step);
        if (!verdict)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, verdict);
    }
    return tuple;
}

static PyObject *decision_subscript(PyObject *object, PyObject *index) {
    if (PySlice_Check(index))
        return decision_slice(object, index);
    Py_ssize_t i = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred())
        return NULL;
    return decision_item(object, i < 0 ? i + Py_SIZE(object) : i);
}

static PyObject *decision_texts(PyObject *object, PyObject *argument) {
    struct core_decision *self = SELF(object);
    Py_ssize_t index = PyNumber_AsSsize_t(argument, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    if (index < 0 || index >= Py_SIZE(object)) {
        PyErr_SetString(PyExc_IndexError, "decision index out of range");
        return NULL;
    }
    int64_t now_ns = core_now(self->state);
    if (now_ns < 0)
        return NULL;
    const struct weir_verdict *verdict = &self->verdict[index];
    /* Rounded up to microseconds first, as everywhere. */
    int64_t reset_us = verdict->reset_at_ns / 1000 + (verdict->reset_at_ns % 1000 > 0);
    int64_t reset = reset_us / 1000000 + 1;
    PyObject *remaining = core_decimal(verdict->remaining);
    PyObject *moment = core_decimal(reset);
    PyObject *wait = core_decimal((reset * 1000000 - now_ns / 1000) / 1000000);
    PyObject *texts = remaining && moment && wait ? PyTuple_Pack(3, remaining, moment, wait) : NULL;
    Py_XDECREF(remaining);
    Py_XDECREF(moment);
    Py_XDECREF(wait);
    return texts;
}

static PyObject *decision_repr(PyObject *object) {
    struct core_decision *self = SELF(object);
    PyObject *verdict = get_verdict(object, NULL);
    if (!verdict)
        return NULL;
    PyObject *text = PyUnicode_FromFormat("<Decision %s by %d of %zd: %R>",
                                          self->decision.allowed ? "allowed" : "denied",
                                          (int)self->decision.deciding, Py_SIZE(object), verdict);
    Py_DECREF(verdict);
    return text;
}

PyDoc_STRVAR(decision_doc,
             "Decision(verdicts, deciding, now, rule='')\n--\n\n"
             "The result of one check: a sequence with the Verdict of each limit. Custom\n"
             "stores create it.\n\n"
             "deciding: index of the limit to report to the client. now: seconds since the\n"
             "epoch.");

PyDoc_STRVAR(
    texts_doc,
    "texts($self, index, /)\n--\n\n"
    "The values of one limit for headers, as text: the remaining hits, the first whole second\n"
    "after its reset, and the whole seconds from now until then. One call, for speed.");

static PyMethodDef decision_methods[] = {
    {"texts", decision_texts, METH_O, texts_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef decision_getset[] = {
    {"allowed", get_allowed, NULL, PyDoc_STR("True if no limit denied."), NULL},
    {"deciding", get_deciding, NULL, PyDoc_STR("Index of the limit to report to the client."),
     NULL},
    {"verdict", get_verdict, NULL, PyDoc_STR("The Verdict of that limit."), NULL},
    {"rule", get_rule, NULL,
     PyDoc_STR("'block' or 'allow' if a rule about the client decided, else ''."), NULL},
    {"now", get_now, NULL, PyDoc_STR("The time of the decision, seconds since the epoch."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot decision_slots[] = {
    {Py_tp_doc, (void *)decision_doc},
    {Py_tp_new, decision_new},
    {Py_tp_dealloc, decision_dealloc},
    {Py_tp_traverse, decision_traverse},
    {Py_tp_repr, decision_repr},
    {Py_tp_methods, decision_methods},
    {Py_tp_getset, decision_getset},
    {Py_tp_iter, PySeqIter_New},
    {Py_sq_length, decision_length},
    {Py_sq_item, decision_item},
    {Py_mp_length, decision_length},
    {Py_mp_subscript, decision_subscript},
    {0, NULL},
};

PyType_Spec core_decision_spec = {
    .name = "weir.Decision",
    .basicsize = offsetof(struct core_decision, verdict),
    .itemsize = sizeof(struct weir_verdict),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = decision_slots,
};

/* -------------------------------------------------------------------------------------- later() */

/* Updates a verdict to `wait_ns` later, if nothing else has changed. */
static void age(struct weir_verdict *verdict, int64_t now_ns, int64_t wait_ns) {
    if (!verdict->allowed && verdict->retry_after_ns != WEIR_NEVER)
        verdict->retry_after_ns =
            verdict->retry_after_ns > wait_ns ? verdict->retry_after_ns - wait_ns : 0;
    if (verdict->reset_at_ns < now_ns)
        verdict->reset_at_ns = now_ns;
}

PyObject *core_later(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    struct core_state *state = PyModule_GetState(module);
    int64_t wait_ns;
    if (nargs != 2 || Py_TYPE(args[0]) != state->decision_type) {
        PyErr_SetString(PyExc_TypeError, "a Decision and seconds are needed");
        return NULL;
    }
    double seconds = PyFloat_AsDouble(args[1]);
    if ((seconds == -1.0 && PyErr_Occurred()) ||
        core_seconds_to_ns(seconds, "seconds", &wait_ns) < 0)
        return NULL;
    const struct core_decision *was = (const struct core_decision *)args[0];
    Py_ssize_t count = Py_SIZE(args[0]);
    struct core_decision *decision = core_decision_new(state, count);
    if (!decision)
        return NULL;
    decision->decision = was->decision;
    decision->now_ns = was->now_ns + wait_ns;
    memcpy(decision->verdict, was->verdict, (size_t)count * sizeof was->verdict[0]);
    for (Py_ssize_t i = 0; i < count; i++)
        age(&decision->verdict[i], decision->now_ns, wait_ns);
    return (PyObject *)decision;
}

/* ----------------------------------------------------------------------------------- deciding() */

/* Writes what weir_checks_choose() reads of a limit: its period. May run Python code. */
static int read_period(struct core_state *state, PyObject *object, struct weir_limit *limit) {
    if (!core_is_limit(state, object)) {
        PyErr_Format(PyExc_TypeError, "limits must be of Limit, not %.100s",
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    limit->period_ns = ((struct core_limit *)object)->limit.period_ns;
    if (!(((struct core_limit *)object)->own & CORE_OWN_EXPIRY))
        return 0;
    PyObject *expiry = PyObject_CallMethod(object, "get_expiry", NULL);
    int rc = expiry ? read_seconds(expiry, "get_expiry()", &limit->period_ns) : -1;
    Py_XDECREF(expiry);
    return rc;
}

static PyObject *choose(struct core_state *state, PyObject *limits, PyObject *verdicts) {
    struct weir_limit limit[WEIR_CHECKS_MAX];
    struct weir_check check[WEIR_CHECKS_MAX];
    struct weir_verdict verdict[WEIR_CHECKS_MAX];
    Py_ssize_t count = PyTuple_GET_SIZE(limits);
    if (count < 1 || count > WEIR_CHECKS_MAX || PyTuple_GET_SIZE(verdicts) != count) {
        PyErr_Format(PyExc_ValueError, "1 to %d limits are needed, and a verdict for each",
                     WEIR_CHECKS_MAX);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_period(state, PyTuple_GET_ITEM(limits, i), &limit[i]) < 0 ||
            read_verdict(PyTuple_GET_ITEM(verdicts, i), &verdict[i]) < 0)
            return NULL;
        check[i].limit = &limit[i];
    }
    struct weir_decision decision;
    weir_checks_choose(check, verdict, (size_t)count, &decision);
    return PyLong_FromLong(decision.deciding);
}

PyObject *core_deciding(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "deciding() takes limits and verdicts, not %zd arguments",
                     nargs);
        return NULL;
    }
    PyObject *limits = core_tuple_of(args[0], "limits must be a sequence of Limit");
    PyObject *verdicts =
        limits ? core_tuple_of(args[1], "verdicts must be a sequence of Verdict") : NULL;
    PyObject *index = verdicts ? choose(PyModule_GetState(module), limits, verdicts) : NULL;
    Py_XDECREF(limits);
    Py_XDECREF(verdicts);
    return index;
}
