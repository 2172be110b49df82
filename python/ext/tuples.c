/* The named tuples Verdict, WindowStats, Granularity and others. */
#include "tuples.h"

#include "values.h"

PyObject *core_tuple_new(PyTypeObject *type, Py_ssize_t count) {
    PyObject *tuple = type->tp_alloc(type, count);
#if PY_VERSION_HEX >= 0x030E0000
    if (tuple)
        ((PyTupleObject *)tuple)->ob_hash = -1;
#endif
    return tuple;
}

static PyTypeObject *named_tuple(PyObject *module, PyObject *maker, const char *name,
                                 const char *fields, const char *doc) {
    PyObject *args = Py_BuildValue("(ss)", name, fields);
    PyObject *kwargs = Py_BuildValue("{s:s}", "module", "weir");
    PyObject *type = args && kwargs ? PyObject_Call(maker, args, kwargs) : NULL;
    PyObject *text = type ? PyUnicode_FromString(doc) : NULL;
    if (!text || PyObject_SetAttrString(type, "__doc__", text) < 0 ||
        PyModule_AddObjectRef(module, name, type) < 0)
        Py_CLEAR(type);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(text);
    return (PyTypeObject *)type;
}

int core_tuples_init(PyObject *module, struct core_state *state) {
    PyObject *collections = PyImport_ImportModule("collections");
    PyObject *maker = collections ? PyObject_GetAttrString(collections, "namedtuple") : NULL;
    if (maker) {
        state->verdict_type = named_tuple(
            module, maker, "Verdict", "allowed limit remaining reset_at retry_after delay",
            "The verdict of one limit. Times in seconds: reset_at since the epoch, retry_after\n"
            "and delay from now; retry_after is math.inf if the request can never be allowed.");
        state->stats_type = named_tuple(
            module, maker, "WindowStats", "reset_time remaining",
            "When the window is reset, in seconds since the epoch, and how many hits remain.");
        state->granularity_type =
            named_tuple(module, maker, "Granularity", "seconds name", "A unit of time.");
        state->counts_type =
            named_tuple(module, maker, "LimitCounts", "limit allowed denied near shadow",
                        "The counts of decisions of all limits with the same text.");
        state->top_client_type =
            named_tuple(module, maker, "TopClient", "client limit allowed denied error last",
                        "The counts of one client under the limits of one text.\n"
                        "`last`: seconds since the epoch.");
        state->rule_type = named_tuple(module, maker, "Rule", "client kind since until",
                                       "A client that is blocked or allowed.\n"
                                       "Times in seconds since the epoch; until None: no expiry.");
        state->registered_type = named_tuple(
            module, maker, "RegisteredLimit", "limit before after",
            "A limit in use: before + client + after is the key of a client's counter.");
    }
    Py_XDECREF(collections);
    Py_XDECREF(maker);
    return state->verdict_type && state->stats_type && state->granularity_type &&
                   state->counts_type && state->top_client_type && state->registered_type &&
                   state->rule_type
               ? 0
               : -1;
}

PyObject *core_verdict_new(struct core_state *state, const struct weir_verdict *verdict) {
    PyObject *tuple = core_tuple_new(state->verdict_type, 6);
    if (!tuple)
        return NULL;
    PyTuple_SET_ITEM(tuple, 0, PyBool_FromLong(verdict->allowed));
    PyTuple_SET_ITEM(tuple, 1, PyLong_FromLongLong(verdict->limit));
    PyTuple_SET_ITEM(tuple, 2, PyLong_FromLongLong(verdict->remaining));
    PyTuple_SET_ITEM(tuple, 3, PyFloat_FromDouble(core_ns_to_seconds(verdict->reset_at_ns)));
    PyTuple_SET_ITEM(tuple, 4, PyFloat_FromDouble(core_ns_to_seconds(verdict->retry_after_ns)));
    PyTuple_SET_ITEM(tuple, 5, PyFloat_FromDouble(core_ns_to_seconds(verdict->delay_ns)));
    for (Py_ssize_t i = 0; i < 6; i++)
        if (!PyTuple_GET_ITEM(tuple, i)) {
            Py_DECREF(tuple);
            return NULL;
        }
    return tuple;
}

PyObject *core_stats_new(struct core_state *state, double reset_time, int64_t remaining) {
    PyObject *tuple = core_tuple_new(state->stats_type, 2);
    if (!tuple)
        return NULL;
    PyTuple_SET_ITEM(tuple, 0, PyFloat_FromDouble(reset_time));
    PyTuple_SET_ITEM(tuple, 1, PyLong_FromLongLong(remaining));
    if (!PyTuple_GET_ITEM(tuple, 0) || !PyTuple_GET_ITEM(tuple, 1))
        Py_CLEAR(tuple);
    return tuple;
}
