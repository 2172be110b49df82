/*
 * The classes of limits: RateLimitItemPerSecond to RateLimitItemPerYear, and classes of
 * applications.
 *
 * A class defines its unit by GRANULARITY, (seconds, name). If a class overrides get_expiry() or
 * key_for(), functions of weir.limits call these methods at each use; see item.c.
 */
#include "item_class.h"

PyObject *core_set_items(PyObject *module, PyObject *args) {
    struct core_state *state = PyModule_GetState(module);
    PyObject *classes, *granularities, *hooks;
    if (!PyArg_ParseTuple(args, "O!O!O!:_set_items", &PyTuple_Type, &classes, &PyDict_Type,
                          &granularities, &PyTuple_Type, &hooks))
        return NULL;
    if (PyTuple_GET_SIZE(classes) != WEIR_YEAR + 1 || PyTuple_GET_SIZE(hooks) != CORE_ITEM_HOOKS) {
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

PyObject *core_item_hook(const struct core_state *state, enum core_item_hook which) {
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

int core_item_copy(struct core_state *state, PyObject *from, PyObject *to) {
    if (is_ours(state, Py_TYPE(from)))
        return 0;
    PyObject *done = PyObject_CallFunctionObjArgs(core_item_hook(state, CORE_ITEM_COPY_ATTRIBUTES),
                                                  from, to, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}
