/*
 * Limits of other classes: RateLimitItemPerSecond to RateLimitItemPerYear, and classes of applications.
 *
 * A class defines its unit by GRANULARITY, (seconds, name). A unit that Weir does not have is stored as a
 * multiple of the largest unit that divides it, so the core needs no such unit: a week is 7 days.
 *
 * If a class overrides get_expiry() or key_for(), functions of weir.limits call these methods at each
 * use, and a plain limit with that period and key is decided. For other limits, this costs only the
 * test of one byte.
 */
#include "core.h"

#include <string.h>

#include "units.h"

/* Indices in state->item_hooks. */
enum hook { PARSE_OWN, COPY_ATTRIBUTES, PLAIN, PLAIN_JOINED, HOOKS };

PyObject *core_set_items(PyObject *module, PyObject *args) {
    struct core_state *state = PyModule_GetState(module);
    PyObject *classes, *granularities, *hooks;
    if (!PyArg_ParseTuple(args, "O!O!O!:_set_items", &PyTuple_Type, &classes, &PyDict_Type,
                          &granularities, &PyTuple_Type, &hooks))
        return NULL;
    if (PyTuple_GET_SIZE(classes) != WEIR_YEAR + 1 || PyTuple_GET_SIZE(hooks) != HOOKS) {
        PyErr_SetString(PyExc_ValueError, "six classes and four functions are needed");
        return NULL;
    }
    for (Py_ssize_t i = 0; i <= WEIR_YEAR; i++) {
        PyObject *type = PyTuple_GET_ITEM(classes, i);
        if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, state->limit_type)) {
            PyErr_SetString(PyExc_TypeError, "the classes must be subclasses of Limit");
            return NULL;
        }
    }
    Py_XSETREF(state->unit_classes, Py_NewRef(classes));
    Py_XSETREF(state->granularities, Py_NewRef(granularities));
    Py_XSETREF(state->item_hooks, Py_NewRef(hooks));
    Py_RETURN_NONE;
}

static PyObject *hook(const struct core_state *state, enum hook which) {
    return PyTuple_GET_ITEM(state->item_hooks, which);
}

PyTypeObject *core_item_class(struct core_state *state, int unit) {
    return state->unit_classes ? (PyTypeObject *)PyTuple_GET_ITEM(state->unit_classes, unit)
                               : state->limit_type;
}

/* Whether a type is Limit or a class of weir.limits. */
static bool is_ours(const struct core_state *state, PyTypeObject *type) {
    if (type == state->limit_type || !state->unit_classes)
        return true;
    for (Py_ssize_t i = 0; i <= WEIR_YEAR; i++)
        if ((PyObject *)type == PyTuple_GET_ITEM(state->unit_classes, i))
            return true;
    return false;
}

/* ------------------------------------------------------------------------------------- parsing */

PyObject *core_item_parsed(struct core_state *state, const struct weir_limit *limit) {
    PyTypeObject *usual = core_item_class(state, limit->unit);
    PyObject *type = NULL;
    if (state->granularities) {
        PyObject *name = PyUnicode_FromString(weir_unit_name(limit->unit));
        type = name ? PyDict_GetItemWithError(state->granularities, name) : NULL;
        Py_XDECREF(name);
        if (!type && PyErr_Occurred())
            return NULL;
    }
    if (!type || type == (PyObject *)usual)
        return core_limit_new(state, limit);
    /* An application has registered another class for a built-in unit. */
    PyObject *item =
        PyObject_CallFunction(type, "LL", (long long)limit->amount, (long long)limit->multiples);
    if (item && limit->burst) {
        PyObject *method = PyObject_GetAttrString(item, "replace");
        PyObject *options =
            method ? Py_BuildValue("{s:L}", "burst", (long long)limit->burst) : NULL;
        PyObject *nothing = options ? PyTuple_New(0) : NULL;
        Py_SETREF(item, nothing ? PyObject_Call(method, nothing, options) : NULL);
        Py_XDECREF(method);
        Py_XDECREF(options);
        Py_XDECREF(nothing);
    }
    return item;
}

PyObject *core_item_parse_own(struct core_state *state, PyObject *text) {
    if (!state->item_hooks)
        Py_RETURN_NONE;
    return PyObject_CallOneArg(hook(state, PARSE_OWN), text);
}

/* -------------------------------------------------------------------------------------- making */

PyObject *core_item_granularity(struct core_state *state, PyTypeObject *type) {
    if (type == state->limit_type)
        return NULL;
    PyObject *found = PyObject_GetAttrString((PyObject *)type, "GRANULARITY");
    if (found && PyTuple_Check(found) && PyTuple_GET_SIZE(found) == 2)
        return found;
    Py_XDECREF(found);
    return NULL;
}

int core_item_own(struct core_state *state, PyTypeObject *type) {
    if (is_ours(state, type))
        return 0;
    static const struct {
        const char *name;
        int bit;
    } methods[] = {{"get_expiry", CORE_OWN_EXPIRY}, {"key_for", CORE_OWN_KEY}};
    int own = 0;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        PyObject *its = PyObject_GetAttrString((PyObject *)type, methods[i].name);
        PyObject *ours = PyObject_GetAttrString((PyObject *)state->limit_type, methods[i].name);
        bool found = its && ours;
        if (its != ours)
            own |= methods[i].bit;
        Py_XDECREF(its);
        Py_XDECREF(ours);
        if (!found)
            return -1;
    }
    return own;
}

/* int(value), as in limits: "10" is accepted. */
static int whole_number(PyObject *value, const char *what, int64_t *number) {
    PyObject *whole = PyNumber_Long(value);
    int rc = whole ? core_count(whole, what, number) : -1;
    Py_XDECREF(whole);
    return rc;
}

/* Sets amount and period of `count` units of (seconds, name). */
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

int core_item_fill(struct core_state *state, struct core_limit *self, PyObject *granularity,
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
    return core_limit_rename(self, namespace) < 0 ? -1 : set_period(self, hits, count, granularity);
}

int core_item_copy(struct core_state *state, PyObject *from, PyObject *to) {
    if (is_ours(state, Py_TYPE(from)))
        return 0;
    PyObject *done = PyObject_CallFunctionObjArgs(hook(state, COPY_ATTRIBUTES), from, to, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* ------------------------------------------------------------------------------------ deciding */

/* Checks the tuple returned by a hook: a Limit that overrides nothing, and a second item. */
static PyObject *pair(struct core_state *state, PyObject *answer) {
    if (!answer)
        return NULL;
    if (PyTuple_Check(answer) && PyTuple_GET_SIZE(answer) == 2) {
        PyObject *limit = PyTuple_GET_ITEM(answer, 0);
        if (core_is_limit(state, limit) && ((struct core_limit *)limit)->own == 0)
            return answer;
    }
    Py_DECREF(answer);
    PyErr_SetString(PyExc_SystemError, "weir.limits answered with something else");
    return NULL;
}

PyObject *core_item_plain(struct core_state *state, PyObject *item, PyObject *const *identifiers,
                          Py_ssize_t count) {
    PyObject *all = PyTuple_New(count);
    if (!all)
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SET_ITEM(all, i, Py_NewRef(identifiers[i]));
    PyObject *answer = PyObject_CallFunctionObjArgs(hook(state, PLAIN), item, all, NULL);
    Py_DECREF(all);
    return pair(state, answer);
}

PyObject *core_item_plain_joined(struct core_state *state, PyObject *item, PyObject *joined) {
    return pair(state, PyObject_CallFunctionObjArgs(hook(state, PLAIN_JOINED), item, joined, NULL));
}
