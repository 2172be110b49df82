/* The rows of weir/strategies.h for Python: the table STRATEGIES, and lookup by name. */
#include "strategies.h"

#include "strategy/strategy.h"

static const char *const shapes[] = {
    [WEIR_SHAPE_OPENED] = "opened",   [WEIR_SHAPE_MOVING] = "moving",
    [WEIR_SHAPE_WEIGHED] = "weighed", [WEIR_SHAPE_BUCKET] = "bucket",
    [WEIR_SHAPE_QUEUE] = "queue",     [WEIR_SHAPE_ALIGNED] = "aligned",
};

int core_strategy_of(const char *name, size_t len) {
#define NAME(constant, symbol, name_, tag, packing, shape, takes, words) ", " name_
    static const char names[] = WEIR_STRATEGY_ROWS(NAME);
#undef NAME
    int strategy = weir_strategy_parse(name, len);
    if (strategy < 0)
        PyErr_Format(PyExc_ValueError, "unknown strategy '%.100s': one of %s", name, names + 2);
    return strategy;
}

/* The options that a strategy takes, by their names in Limit(). */
static PyObject *options_of(unsigned takes) {
    static const char *const names[] = {"burst", "max_delay", "tz"};
    PyObject *list = PyList_New(0), *options = NULL;
    for (int i = 0; list && i < 3; i++) {
        PyObject *name = takes >> i & 1 ? PyUnicode_FromString(names[i]) : Py_NewRef(Py_None);
        if (!name || (name != Py_None && PyList_Append(list, name) < 0))
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    if (list)
        options = PyList_AsTuple(list);
    Py_XDECREF(list);
    return options;
}

/* STRATEGIES: {name: (tag, shape, words, options, packing)}, in the order of the rows. */
int core_add_strategies(PyObject *module) {
    PyObject *table = PyDict_New();
    for (int i = 0; table && i < WEIR_STRATEGIES; i++) {
        const struct weir_strategy_ops *row = weir_strategies[i];
        const char *packing = row->packing == WEIR_PACK_LOG ? "log" : "words";
        PyObject *value = Py_BuildValue("(sssNs)", row->tag, shapes[row->shape], row->words,
                                        options_of(row->takes), packing);
        if (!value || PyDict_SetItemString(table, row->name, value) < 0)
            Py_CLEAR(table);
        Py_XDECREF(value);
    }
    int rc = table ? PyModule_AddObjectRef(module, "STRATEGIES", table) : -1;
    Py_XDECREF(table);
    return rc;
}

int core_strategy_named(PyObject *text) {
    Py_ssize_t len;
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "strategy must be str or None, not %.100s",
                     Py_TYPE(text)->tp_name);
        return -1;
    }
    const char *name = PyUnicode_AsUTF8AndSize(text, &len);
    if (!name)
        return -1;
    return core_strategy_of(name, (size_t)len);
}
