/*
 * Limits of other classes: how they are parsed, and how they are decided.
 *
 * If a class overrides get_expiry() or key_for(), functions of weir.limits call these methods at
 * each use, and a plain limit with that period and key is decided. For other limits, this costs
 * only the test of one byte.
 */
#include "item.h"

#include "item_class.h"
#include "limit.h"
#include "units.h"

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
    return PyObject_CallOneArg(core_item_hook(state, CORE_ITEM_PARSE_OWN), text);
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
    PyObject *answer =
        PyObject_CallFunctionObjArgs(core_item_hook(state, CORE_ITEM_PLAIN), item, all, NULL);
    Py_DECREF(all);
    return pair(state, answer);
}

PyObject *core_item_plain_joined(struct core_state *state, PyObject *item, PyObject *joined) {
    return pair(state, PyObject_CallFunctionObjArgs(core_item_hook(state, CORE_ITEM_PLAIN_JOINED),
                                                    item, joined, NULL));
}
