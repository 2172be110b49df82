/* The rows of weir/strategies.h for Python: the table STRATEGIES, and lookup by name. */
#include "core.h"
#include "strategy/strategy.h"

static const char *const shapes[] = {
    [WEIR_SHAPE_OPENED] = "opened",   [WEIR_SHAPE_MOVING] = "moving",
    [WEIR_SHAPE_WEIGHED] = "weighed", [WEIR_SHAPE_BUCKET] = "bucket",
    [WEIR_SHAPE_QUEUE] = "queue",     [WEIR_SHAPE_ALIGNED] = "aligned",
};

int core_strategy_of(const char *name, size_t len) {
#define NAME(constant, symbol, name_, tag, packing, shape, words) ", " name_
    static const char names[] = WEIR_STRATEGY_ROWS(NAME);
#undef NAME
    int strategy = weir_strategy_parse(name, len);
    if (strategy < 0)
        PyErr_Format(PyExc_ValueError, "unknown strategy '%.100s': one of %s", name, names + 2);
    return strategy;
}

/* STRATEGIES: {name: (tag, shape, words)}, in the order of the rows. */
int core_add_strategies(PyObject *module) {
    PyObject *table = PyDict_New();
    for (int i = 0; table && i < WEIR_STRATEGIES; i++) {
        const struct weir_strategy_ops *row = weir_strategies[i];
        PyObject *value = Py_BuildValue("(sss)", row->tag, shapes[row->shape], row->words);
        if (!value || PyDict_SetItemString(table, row->name, value) < 0)
            Py_CLEAR(table);
        Py_XDECREF(value);
    }
    int rc = table ? PyModule_AddObjectRef(module, "STRATEGIES", table) : -1;
    Py_XDECREF(table);
    return rc;
}
