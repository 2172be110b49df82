/* The Python type of Limit: members, keys, order and equality, and the type. */
#include "limit_type.h"

#include <math.h>
#include <stddef.h>
#include <structmember.h>

#include "clock.h"
#include "item.h"
#include "key.h"
#include "limit.h"
#include "tuples.h"
#include "units.h"
#include "values.h"

#define SELF(object) ((struct core_limit *)(object))

/* ------------------------------------------------------------------------------------ members */

static PyObject *get_amount(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(SELF(object)->limit.amount);
}

static int64_t period_seconds(const struct core_limit *limit) {
    return limit->limit.multiples * weir_unit_seconds(limit->limit.unit);
}

/* Units per period, in the unit of the limit's class. */
static int64_t multiples_of(const struct core_limit *limit) {
    if (!limit->granularity)
        return limit->limit.multiples;
    long long seconds = PyLong_AsLongLong(PyTuple_GET_ITEM(limit->granularity, 0));
    return seconds > 0 ? period_seconds(limit) / seconds : 0;
}

static PyObject *unit_name(const struct core_limit *limit) {
    return limit->granularity ? Py_NewRef(PyTuple_GET_ITEM(limit->granularity, 1))
                              : PyUnicode_FromString(weir_unit_name(limit->limit.unit));
}

static PyObject *get_multiples(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(multiples_of(SELF(object)));
}

static PyObject *get_unit(PyObject *object, void *Py_UNUSED(closure)) {
    return unit_name(SELF(object));
}

static PyObject *get_burst(PyObject *object, void *Py_UNUSED(closure)) {
    if (SELF(object)->limit.burst == 0)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(SELF(object)->limit.burst);
}

static PyObject *get_strategy(PyObject *object, void *Py_UNUSED(closure)) {
    if (!SELF(object)->has_strategy)
        Py_RETURN_NONE;
    return PyUnicode_FromString(weir_strategy_name(SELF(object)->limit.strategy));
}

static PyObject *get_max_delay(PyObject *object, void *Py_UNUSED(closure)) {
    if (!SELF(object)->has_max_delay)
        Py_RETURN_NONE;
    return PyFloat_FromDouble(core_ns_to_seconds(SELF(object)->limit.max_delay_ns));
}

static PyObject *get_tz(PyObject *object, void *Py_UNUSED(closure)) {
    const struct weir_zone *zone = SELF(object)->limit.zone;
    if (!SELF(object)->has_tz)
        Py_RETURN_NONE;
    return PyUnicode_FromString(zone ? zone->name : "UTC");
}

static PyObject *limit_window(PyObject *object, PyObject *moment) {
    int64_t now_ns = core_moment(moment, "now"), start_ns, end_ns, next_ns;
    if (now_ns < 0)
        return NULL;
    if (weir_limit_window(&SELF(object)->limit, now_ns, &start_ns, &end_ns, &next_ns) < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "only limits that take a tz have windows with calendar bounds");
        return NULL;
    }
    return Py_BuildValue("(dd)", core_ns_to_seconds(start_ns), core_ns_to_seconds(end_ns));
}

static PyObject *get_namespace(PyObject *object, void *Py_UNUSED(closure)) {
    return Py_NewRef(SELF(object)->namespace);
}

static PyObject *limit_get_expiry(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLongLong(period_seconds(SELF(object)));
}

static PyObject *get_granularity(PyObject *object, void *Py_UNUSED(closure)) {
    if (SELF(object)->granularity)
        return Py_NewRef(SELF(object)->granularity);
    struct core_state *state = core_state_of(Py_TYPE(object));
    PyObject *granularity = state ? core_tuple_new(state->granularity_type, 2) : NULL;
    if (!granularity)
        return NULL;
    int32_t unit = SELF(object)->limit.unit;
    PyTuple_SET_ITEM(granularity, 0, PyLong_FromLongLong(weir_unit_seconds(unit)));
    PyTuple_SET_ITEM(granularity, 1, PyUnicode_FromString(weir_unit_name(unit)));
    if (!PyTuple_GET_ITEM(granularity, 0) || !PyTuple_GET_ITEM(granularity, 1))
        Py_CLEAR(granularity);
    return granularity;
}

/* Appends "/10/1/minute", and "/burst/20". */
static int append_tail(struct core_key *key, const struct core_limit *limit) {
    char tail[96];
    int len = PyOS_snprintf(tail, sizeof tail, "/%lld/%lld/", (long long)limit->limit.amount,
                            (long long)multiples_of(limit));
    PyObject *name = unit_name(limit);
    int rc =
        name && core_key_append(key, tail, (size_t)len) == 0 ? core_key_identifier(key, name) : -1;
    Py_XDECREF(name);
    if (rc < 0)
        return -1;
    if (limit->limit.burst) {
        len = PyOS_snprintf(tail, sizeof tail, "/burst/%lld", (long long)limit->limit.burst);
        if (core_key_append(key, tail, (size_t)len) < 0)
            return -1;
    }
    if (!limit->limit.zone)
        return 0;
    len = PyOS_snprintf(tail, sizeof tail, "/tz/%s", limit->limit.zone->name);
    for (char *at = tail + 4; *at; at++)
        if (*at == '/')
            *at = ':'; /* one part */
    return core_key_append(key, tail, (size_t)len);
}

static PyObject *limit_key_for(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_key key;
    core_key_init(&key);
    PyObject *text = NULL;
    if (core_key_join(&key, SELF(object)->prefix, args, nargs) == 0 &&
        append_tail(&key, SELF(object)) == 0)
        text = PyUnicode_DecodeUTF8(key.data, (Py_ssize_t)key.len, "strict");
    core_key_free(&key);
    return text;
}

static PyObject *full_key_of(struct core_limit *limit, PyObject *joined) {
    struct core_key key;
    core_key_init(&key);
    PyObject *text = NULL;
    size_t start = 0;
    if (core_key_join(&key, limit->prefix, NULL, 0) == 0 && core_key_append(&key, "/", 1) == 0) {
        start = key.len;
        if (core_key_joined(&key, joined) == 0) {
            if (key.len == start)
                key.len--; /* no identifiers: remove the slash */
            if (append_tail(&key, limit) == 0)
                text = PyUnicode_DecodeUTF8(key.data, (Py_ssize_t)key.len, "backslashreplace");
        }
    }
    core_key_free(&key);
    return text;
}

static PyObject *limit_full_key(PyObject *object, PyObject *joined) {
    if (!SELF(object)->own)
        return full_key_of(SELF(object), joined);
    struct core_state *state = core_state_of(Py_TYPE(object));
    PyObject *plain = state ? core_item_plain_joined(state, object, joined) : NULL;
    PyObject *text =
        plain ? full_key_of(SELF(PyTuple_GET_ITEM(plain, 0)), PyTuple_GET_ITEM(plain, 1)) : NULL;
    Py_XDECREF(plain);
    return text;
}

static PyObject *limit_repr(PyObject *object) {
    struct core_limit *self = SELF(object);
    char text[128];
    if (!self->granularity) {
        weir_limit_print(&self->limit, text, sizeof text);
        return PyUnicode_FromString(text);
    }
    text[0] = '\0';
    if (self->limit.burst)
        PyOS_snprintf(text, sizeof text, " burst %lld", (long long)self->limit.burst);
    return PyUnicode_FromFormat("%lld per %lld %S%s", (long long)self->limit.amount,
                                (long long)multiples_of(self),
                                PyTuple_GET_ITEM(self->granularity, 1), text);
}

static PyObject *limit_itself(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    return Py_NewRef(object);
}

static PyObject *limit_reduce(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_state *state = core_state_of(Py_TYPE(object));
    if (!state)
        return NULL;
    PyObject *module = PyType_GetModule(state->limit_type);
    PyObject *restore = module ? PyObject_GetAttrString(module, "_restore_limit") : NULL;
    if (!restore)
        return NULL;
    const struct weir_limit *limit = &SELF(object)->limit;
    return Py_BuildValue(
        "N(LLsNNNON)", restore, (long long)limit->amount, (long long)limit->multiples,
        weir_unit_name(limit->unit), get_burst(object, NULL), get_strategy(object, NULL),
        get_max_delay(object, NULL), SELF(object)->namespace, get_tz(object, NULL));
}

/* ------------------------------------------------------------------------- order and equality */

static int order(int64_t a, int64_t b) {
    return (a > b) - (a < b);
}

static int64_t seconds_of_unit(const struct core_limit *limit) {
    return limit->granularity ? PyLong_AsLongLong(PyTuple_GET_ITEM(limit->granularity, 0))
                              : weir_unit_seconds(limit->limit.unit);
}

/* Compares units, as limits does, then all other members except the namespace. */
static int compare(const struct core_limit *a, const struct core_limit *b) {
    int rc = order(seconds_of_unit(a), seconds_of_unit(b));
    rc = rc ? rc : order(multiples_of(a), multiples_of(b));
    rc = rc ? rc : order(a->limit.amount, b->limit.amount);
    rc = rc ? rc : order(a->limit.burst, b->limit.burst);
    rc = rc ? rc : order(a->has_strategy, b->has_strategy);
    rc = rc ? rc : order(a->limit.strategy, b->limit.strategy);
    rc = rc ? rc : order(a->has_max_delay, b->has_max_delay);
    rc = rc ? rc : order(a->limit.max_delay_ns, b->limit.max_delay_ns);
    rc = rc ? rc : order(a->has_tz, b->has_tz);
    return rc ? rc
              : strcmp(a->limit.zone ? a->limit.zone->name : "",
                       b->limit.zone ? b->limit.zone->name : "");
}

static PyObject *limit_compare(PyObject *object, PyObject *other, int op) {
    struct core_state *state = core_state_of(Py_TYPE(object));
    if (!state)
        return NULL;
    if (!core_is_limit(state, other))
        Py_RETURN_NOTIMPLEMENTED;
    int rc = compare(SELF(object), SELF(other));
    if (rc == 0)
        rc = PyUnicode_Compare(SELF(object)->namespace, SELF(other)->namespace);
    if (rc == -1 && PyErr_Occurred())
        return NULL;
    Py_RETURN_RICHCOMPARE(rc, 0, op);
}

static Py_hash_t limit_hash(PyObject *object) {
    struct core_limit *self = SELF(object);
    if (self->hash != -1)
        return self->hash;
    Py_hash_t hash = PyObject_Hash(self->namespace);
    if (hash == -1)
        return -1;
    const int64_t parts[] = {self->limit.amount,
                             self->limit.multiples,
                             self->limit.unit,
                             self->limit.burst,
                             self->has_strategy ? self->limit.strategy + 1 : 0,
                             self->has_max_delay ? self->limit.max_delay_ns + 1 : 0,
                             self->has_tz ? (int64_t)((uintptr_t)self->limit.zone | 1) : 0};
    uint64_t sum = (uint64_t)hash;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        sum = (sum ^ (uint64_t)parts[i]) * UINT64_C(0x9E3779B97F4A7C15);
        sum ^= sum >> 32;
    }
    hash = (Py_hash_t)sum;
    self->hash = hash == -1 ? -2 : hash;
    return self->hash;
}

/* -------------------------------------------------------------------------------------- type */

PyDoc_STRVAR(
    limit_doc,
    "Limit(amount, multiples=1, unit='minute', *, burst=None, strategy=None, max_delay=None,\n"
    "      tz=None, namespace='LIMITER')\n--\n\n"
    "One limit: `amount` hits per `multiples` units. Immutable, hashable, ordered by unit.\n\n"
    ">>> Limit(10, 1, 'minute')\n"
    "10 per 1 minute\n\n"
    "amount: 0 to 2**63-1; 0 denies every hit. unit: second, minute, hour, day, month\n"
    "(30 days), year (360 days). burst: a token bucket's size. max_delay: seconds\n"
    "that a leaky bucket may make a request wait. tz: where a calendar window's\n"
    "midnight is, 'Europe/Berlin' or '+05:30'; UTC unless given.\n"
    "strategy: None: the limiter's; burst, max_delay and tz imply a strategy.\n"
    "Raises TypeError or ValueError if an argument is invalid.");

PyDoc_STRVAR(
    replace_doc,
    "replace($self, /, *, burst=..., strategy=..., max_delay=..., tz=..., namespace=...)\n--\n\n"
    "A copy with these members changed.");

static PyGetSetDef limit_getset[] = {
    {"amount", get_amount, NULL, PyDoc_STR("Hits per period."), NULL},
    {"multiples", get_multiples, NULL, PyDoc_STR("Units per period."), NULL},
    {"unit", get_unit, NULL, PyDoc_STR("'second' to 'year'."), NULL},
    {"burst", get_burst, NULL, PyDoc_STR("A token bucket's size, or None: the amount."), NULL},
    {"strategy", get_strategy, NULL, PyDoc_STR("Its name, or None: the limiter's."), NULL},
    {"max_delay", get_max_delay, NULL, PyDoc_STR("Seconds, or None: 0.5."), NULL},
    {"tz", get_tz, NULL, PyDoc_STR("A calendar window's zone, or None: UTC."), NULL},
    {"namespace", get_namespace, NULL, PyDoc_STR("First part of every key."), NULL},
    {"GRANULARITY", get_granularity, NULL, PyDoc_STR("(seconds, name) of the unit."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef limit_methods[] = {
    {"get_expiry", limit_get_expiry, METH_NOARGS,
     PyDoc_STR("get_expiry($self, /)\n--\n\n"
               "The period in seconds.")},
    {"window_at", limit_window, METH_O,
     PyDoc_STR(
         "window_at($self, now, /)\n--\n\n"
         "Start and end of the calendar window that contains `now`, in seconds since the epoch.")},
    {"key_for", (PyCFunction)(void (*)(void))limit_key_for, METH_FASTCALL,
     PyDoc_STR("key_for($self, /, *identifiers)\n--\n\n"
               "'LIMITER/alice/10/1/minute': namespace, identifiers and the limit, joined by '/'.\n"
               "'/' and '%' within an identifier are written %2F and %25.")},
    {"full_key", limit_full_key, METH_O,
     PyDoc_STR("full_key($self, key, /)\n--\n\n"
               "key_for() of identifiers that are already joined, as stores get them.")},
    {"replace", (PyCFunction)(void (*)(void))limit_replace, METH_VARARGS | METH_KEYWORDS,
     replace_doc},
    {"__copy__", limit_itself, METH_NOARGS, NULL},
    {"__deepcopy__", limit_itself, METH_O, NULL},
    {"__reduce__", limit_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef limit_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct core_limit, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot limit_slots[] = {
    {Py_tp_doc, (void *)limit_doc},
    {Py_tp_new, limit_new},
    {Py_tp_dealloc, limit_dealloc},
    {Py_tp_init, limit_init},
    {Py_tp_traverse, limit_traverse},
    {Py_tp_clear, limit_clear_refs},
    {Py_tp_repr, limit_repr},
    {Py_tp_richcompare, limit_compare},
    {Py_tp_hash, limit_hash},
    {Py_tp_methods, limit_methods},
    {Py_tp_getset, limit_getset},
    {Py_tp_members, limit_members},
    {0, NULL},
};

PyType_Spec core_limit_spec = {
    .name = "weir.Limit",
    .basicsize = sizeof(struct core_limit),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = limit_slots,
};
