/* Limit: an immutable Python object for struct weir_limit. */
#include "limit.h"

#include "item_class.h"
#include "key.h"
#include "strategies.h"
#include "strategy/strategy.h"
#include "units.h"
#include "values.h"
#include "zone.h"

#define SELF(object) ((struct core_limit *)(object))

/* "minute", "minutes", in any case. -1 with an exception set. */
static int unit_of(PyObject *text) {
    Py_ssize_t len;
    const char *name = PyUnicode_AsUTF8AndSize(text, &len);
    if (!name)
        return -1;
    int unit = weir_unit_find(name, (size_t)len);
    if (unit < 0)
        PyErr_Format(PyExc_ValueError,
                     "unknown unit %R: one of second, minute, hour, day, month, year", text);
    return unit;
}

/* The namespace in keys: escaped like an identifier, and also its NULs. */
static PyObject *prefix_of(PyObject *namespace) {
    struct core_key key;
    core_key_init(&key);
    PyObject *prefix = NULL;
    if (core_key_identifier(&key, namespace) == 0) {
        if (key.len > 0 && key.data[0] == '\0') {
            char *rest = key.data + 1;
            struct core_key escaped;
            core_key_init(&escaped);
            if (core_key_append(&escaped, "%00", 3) == 0 &&
                core_key_append(&escaped, rest, key.len - 1) == 0)
                prefix = PyBytes_FromStringAndSize(escaped.data, (Py_ssize_t)escaped.len);
            core_key_free(&escaped);
        } else {
            prefix = PyBytes_FromStringAndSize(key.data, (Py_ssize_t)key.len);
        }
    }
    core_key_free(&key);
    return prefix;
}

/* Gives a limit another namespace (str). 0, or -1 with an exception set. */
static int limit_rename(struct core_limit *self, PyObject *namespace) {
    PyObject *prefix = prefix_of(namespace);
    if (!prefix)
        return -1;
    Py_XSETREF(self->prefix, prefix);
    Py_XSETREF(self->namespace, Py_NewRef(namespace));
    self->hash = -1;
    return 0;
}

/* A Limit of this type and namespace. The caller sets the other members. */
static struct core_limit *allocate(struct core_state *state, PyTypeObject *type,
                                   PyObject *namespace) {
    int own = core_item_own(state, type);
    struct core_limit *self = own < 0 ? NULL : SELF(type->tp_alloc(type, 0));
    if (!self)
        return NULL;
    self->own = (uint8_t)own;
    if (limit_rename(self, namespace) < 0)
        Py_CLEAR(self);
    return self;
}

PyObject *core_limit_new(struct core_state *state, const struct weir_limit *limit) {
    struct core_limit *self =
        allocate(state, core_item_class(state, limit->unit), state->default_namespace);
    if (!self)
        return NULL;
    self->limit = *limit;
    self->has_strategy = limit->burst != 0; /* the string contained "burst": a token bucket */
    return (PyObject *)self;
}

PyObject *core_limit_of(struct core_state *state, const struct weir_limit *limit,
                        PyObject *namespace) {
    struct core_limit *self = allocate(state, core_item_class(state, limit->unit), namespace);
    if (!self)
        return NULL;
    self->limit = *limit;
    self->has_strategy = true;
    self->has_tz = limit->zone != NULL;
    self->has_max_delay = weir_strategy_takes(limit->strategy, WEIR_TAKES_MAX_DELAY) &&
                          limit->max_delay_ns != WEIR_MAX_DELAY_DEFAULT_NS;
    return (PyObject *)self;
}

/* A copy of a limit with a type and namespace, without the additional attributes of its class. */
static struct core_limit *copy_of(struct core_state *state, const struct core_limit *from,
                                  PyTypeObject *type, PyObject *namespace) {
    struct core_limit *self = allocate(state, type, namespace);
    if (!self)
        return NULL;
    self->limit = from->limit;
    self->has_strategy = from->has_strategy;
    self->has_max_delay = from->has_max_delay;
    self->has_tz = from->has_tz;
    self->granularity = Py_XNewRef(from->granularity);
    return self;
}

PyObject *core_limit_with_strategy(struct core_state *state, PyObject *limit, int strategy) {
    struct core_limit *from = SELF(limit);
    if (from->has_strategy)
        return Py_NewRef(limit);
    struct core_limit *self =
        copy_of(state, from, core_item_class(state, from->limit.unit), from->namespace);
    if (!self)
        return NULL;
    self->limit.strategy = strategy;
    self->has_strategy = true;
    return (PyObject *)self;
}

/* Arguments of both replace() and the constructor. NULL: not given; None: the default. */
struct choices {
    PyObject *burst;
    PyObject *strategy;
    PyObject *max_delay;
    PyObject *tz;
};

static int choose_burst(struct core_limit *self, PyObject *burst) {
    self->limit.burst = 0;
    if (burst == Py_None)
        return 0;
    if (core_count(burst, "burst", &self->limit.burst) < 0)
        return -1;
    if (self->limit.burst > 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "burst must be at least 1");
    return -1;
}

static int choose_max_delay(struct core_limit *self, PyObject *max_delay) {
    self->has_max_delay = max_delay != Py_None;
    self->limit.max_delay_ns = WEIR_MAX_DELAY_DEFAULT_NS;
    if (!self->has_max_delay)
        return 0;
    double seconds = core_number(max_delay, "max_delay");
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    return core_seconds_to_ns(seconds, "max_delay", &self->limit.max_delay_ns);
}

/* If no strategy was given, the other arguments may imply one. */
static void imply_strategy(struct core_limit *self) {
    if (self->has_strategy || !(self->limit.burst || self->has_max_delay || self->has_tz))
        return;
    self->has_strategy = true;
    self->limit.strategy = weir_strategy_taking(self->limit.burst     ? WEIR_TAKES_BURST
                                                : self->has_max_delay ? WEIR_TAKES_MAX_DELAY
                                                                      : WEIR_TAKES_ZONE);
}

/* Refuses options that the strategy does not take. */
static int check_options(const struct core_limit *self) {
    const struct weir_limit *limit = &self->limit;
    struct weir_error error;
    int rc = 0;
    if (self->has_tz && !weir_strategy_takes(limit->strategy, WEIR_TAKES_ZONE))
        rc = weir_strategy_refuse(limit->strategy, WEIR_TAKES_ZONE, "tz", &error);
    else if (self->has_max_delay && !weir_strategy_takes(limit->strategy, WEIR_TAKES_MAX_DELAY))
        rc = weir_strategy_refuse(limit->strategy, WEIR_TAKES_MAX_DELAY, "max_delay", &error);
    else
        rc = weir_limit_validate(limit, &error);
    if (rc < 0)
        PyErr_SetString(PyExc_ValueError, error.message);
    return rc < 0 ? -1 : 0;
}

/* Sets burst, strategy, max_delay and tz of *self. */
static int choose(struct core_limit *self, const struct choices *choices) {
    if (choices->burst && choose_burst(self, choices->burst) < 0)
        return -1;
    if (choices->max_delay && choose_max_delay(self, choices->max_delay) < 0)
        return -1;
    if (choices->tz) {
        self->has_tz = choices->tz != Py_None;
        if (core_zone_of(choices->tz, &self->limit.zone) < 0)
            return -1;
    }
    if (choices->strategy) {
        self->has_strategy = choices->strategy != Py_None;
        self->limit.strategy = WEIR_FIXED_WINDOW;
        if (self->has_strategy &&
            (self->limit.strategy = core_strategy_named(choices->strategy)) < 0)
            return -1;
    }
    imply_strategy(self);
    return check_options(self);
}

int core_limit_choose(PyObject *limit, PyObject *strategy, PyObject *tz) {
    return choose(SELF(limit), &(struct choices){.strategy = strategy, .tz = tz});
}

/* Fills a limit from the arguments of Limit(). 0, or -1 with an exception set. */
static int fill(struct core_limit *self, PyObject *amount, PyObject *multiples, PyObject *unit,
                const struct choices *choices) {
    int64_t hits, units_per_period = 1;
    if (core_count(amount, "amount", &hits) < 0 ||
        (multiples && core_count(multiples, "multiples", &units_per_period) < 0))
        return -1;
    int unit_number = unit ? unit_of(unit) : WEIR_MINUTE;
    if (unit_number < 0)
        return -1;
    struct weir_error error;
    if (weir_limit_init(&self->limit, hits, units_per_period, unit_number, &error) < 0) {
        PyErr_SetString(PyExc_ValueError, error.message);
        return -1;
    }
    return choose(self, choices);
}

/* Limit(...) of a type that takes the arguments of Limit. */
static int fill_limit(struct core_state *state, struct core_limit *self, PyObject *args,
                      PyObject *kwargs) {
    static const char *const names[] = {"amount",    "multiples", "unit",      "burst", "strategy",
                                        "max_delay", "tz",        "namespace", NULL};
    PyObject *amount, *multiples = NULL, *unit = NULL, *namespace = state->default_namespace;
    struct choices choices = {Py_None, Py_None, Py_None, Py_None};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OU$OOOOU:Limit", (char **)names, &amount,
                                     &multiples, &unit, &choices.burst, &choices.strategy,
                                     &choices.max_delay, &choices.tz, &namespace) ||
        limit_rename(self, namespace) < 0)
        return -1;
    return fill(self, amount, multiples, unit, &choices);
}

/* int(value), as in limits: "10" is accepted. */
static int whole_number(PyObject *value, const char *what, int64_t *number) {
    PyObject *whole = PyNumber_Long(value);
    int rc = whole ? core_count(whole, what, number) : -1;
    Py_XDECREF(whole);
    return rc;
}

/*
 * Sets amount and period of `count` units of (seconds, name). A unit that Weir does not have is
 * stored as a multiple of the largest unit that divides it, so the core needs no such unit: a week
 * is 7 days.
 */
static int set_period(struct core_limit *self, int64_t amount, int64_t count,
                      PyObject *granularity) {
    int64_t seconds, period;
    if (core_count(PyTuple_GET_ITEM(granularity, 0), "GRANULARITY's seconds", &seconds) < 0)
        return -1;
    if (__builtin_mul_overflow(seconds, count, &period) || period < 1)
        period = INT64_MAX; /* refused below, with the bound in the message */
    PyObject *name = PyTuple_GET_ITEM(granularity, 1);
    int unit = WEIR_YEAR;
    while (unit > WEIR_SECOND && PyUnicode_CompareWithASCIIString(name, weir_unit_name(unit)) != 0)
        unit--;
    bool usual = weir_unit_seconds(unit) == seconds &&
                 PyUnicode_CompareWithASCIIString(name, weir_unit_name(unit)) == 0;
    if (!usual)
        for (unit = WEIR_YEAR; unit > WEIR_SECOND && period % weir_unit_seconds(unit) != 0;)
            unit--;
    struct weir_error error;
    if (weir_limit_init(&self->limit, amount, period / weir_unit_seconds(unit), unit, &error) < 0) {
        PyErr_SetString(PyExc_ValueError, error.message);
        return -1;
    }
    Py_XSETREF(self->granularity, usual ? NULL : Py_NewRef(granularity));
    return 0;
}

/* (amount, multiples=1, namespace='LIMITER'), for a class that has GRANULARITY. */
static int fill_item(struct core_state *state, struct core_limit *self, PyObject *granularity,
                     PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"amount", "multiples", "namespace", NULL};
    PyObject *amount, *multiples = NULL, *namespace = state->default_namespace;
    int64_t hits, count = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OU:RateLimitItem", (char **)names, &amount,
                                     &multiples, &namespace) ||
        whole_number(amount, "amount", &hits) < 0)
        return -1;
    int given = multiples ? PyObject_IsTrue(multiples) : 0;
    if (given < 0 || (given && whole_number(multiples, "multiples", &count) < 0))
        return -1;
    return limit_rename(self, namespace) < 0 ? -1 : set_period(self, hits, count, granularity);
}

static int fill_any(struct core_state *state, struct core_limit *self, PyObject *args,
                    PyObject *kwargs) {
    PyObject *granularity = core_item_granularity(state, Py_TYPE(self));
    if (!granularity)
        return PyErr_Occurred() ? -1 : fill_limit(state, self, args, kwargs);
    int rc = fill_item(state, self, granularity, args, kwargs);
    Py_DECREF(granularity);
    return rc;
}

/* Limit() returns an instance of the class of its unit. */
static PyObject *of_unit(struct core_state *state, struct core_limit *limit) {
    struct core_limit *self =
        limit ? copy_of(state, limit, core_item_class(state, limit->limit.unit), limit->namespace)
              : NULL;
    Py_XDECREF(limit);
    return (PyObject *)self;
}

int limit_init(PyObject *object, PyObject *args, PyObject *kwargs) {
    if (SELF(object)->limit.period_ns != 0)
        return 0; /* limit_new() has initialized it */
    struct core_state *state = core_state_of(Py_TYPE(object));
    return state ? fill_any(state, SELF(object), args, kwargs) : -1;
}

PyObject *limit_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    struct core_state *state = core_state_of(type);
    struct core_limit *self = state ? allocate(state, type, state->default_namespace) : NULL;
    /* An overriding __init__() may take other arguments. It calls limit_init(). */
    if (!self || type->tp_init != limit_init)
        return (PyObject *)self;
    if (fill_any(state, self, args, kwargs) < 0)
        Py_CLEAR(self);
    return type == state->limit_type ? of_unit(state, self) : (PyObject *)self;
}

PyObject *core_restore_limit(PyObject *module, PyObject *args) {
    struct core_state *state = PyModule_GetState(module);
    PyObject *amount, *multiples, *unit, *namespace;
    struct choices choices = {0};
    if (!PyArg_ParseTuple(args, "OOUOOOU|O:_restore_limit", &amount, &multiples, &unit,
                          &choices.burst, &choices.strategy, &choices.max_delay, &namespace,
                          &choices.tz))
        return NULL;
    struct core_limit *self = allocate(state, state->limit_type, namespace);
    if (self && fill(self, amount, multiples, unit, &choices) < 0)
        Py_CLEAR(self);
    return of_unit(state, self);
}

PyObject *limit_replace(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"burst", "strategy", "max_delay", "tz", "namespace", NULL};
    struct choices choices = {0};
    PyObject *namespace = NULL;
    struct core_state *state = core_state_of(Py_TYPE(object));
    if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOU:replace", (char **)names,
                                               &choices.burst, &choices.strategy,
                                               &choices.max_delay, &choices.tz, &namespace))
        return NULL;
    struct core_limit *self = copy_of(state, SELF(object), Py_TYPE(object),
                                      namespace ? namespace : SELF(object)->namespace);
    if (self && (core_item_copy(state, object, (PyObject *)self) < 0 || choose(self, &choices) < 0))
        Py_CLEAR(self);
    return (PyObject *)self;
}

int limit_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->namespace);
    Py_VISIT(SELF(object)->granularity);
    return 0;
}

int limit_clear_refs(PyObject *object) {
    Py_CLEAR(SELF(object)->namespace);
    return 0;
}

void limit_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (SELF(object)->weakrefs)
        PyObject_ClearWeakRefs(object);
    Py_CLEAR(SELF(object)->namespace);
    Py_CLEAR(SELF(object)->granularity);
    Py_CLEAR(SELF(object)->prefix);
    type->tp_free(object);
    Py_DECREF(type);
}
