/* Converts the arguments of decide() and clear() to checks. */
#include "convert.h"

#include "item.h"
#include "key.h"
#include "label.h"
#include "limit.h"
#include "table.h"
#include "values.h"

void core_request_free(struct core_request *request) {
    Py_XDECREF(request->limits);
    Py_XDECREF(request->keys);
    Py_XDECREF(request->costs);
    core_key_free(&request->bytes);
}

/* Reads the arguments as sequences of the same length. */
static int request_sequences(struct core_request *request, PyObject *limits, PyObject *keys,
                             PyObject *costs) {
    request->limits = core_tuple_of(limits, "limits must be a sequence of Limit");
    if (!request->limits)
        return -1;
    request->count = PySequence_Fast_GET_SIZE(request->limits);
    if (request->count < 1 || request->count > WEIR_CHECKS_MAX) {
        PyErr_Format(PyExc_ValueError, "1 to %d limits can be decided at once, not %zd",
                     WEIR_CHECKS_MAX, request->count);
        return -1;
    }
    if (PyUnicode_Check(keys) || PyBytes_Check(keys))
        request->key = keys;
    else if (!(request->keys =
                   core_tuple_of(keys, "keys must be str, bytes or a sequence of them")))
        return -1;
    if (costs && costs != Py_None &&
        !(request->costs = core_tuple_of(costs, "costs must be a sequence of int or None")))
        return -1;
    /* Reading one sequence may have run Python code that changed another. */
    if (PySequence_Fast_GET_SIZE(request->limits) != request->count ||
        (request->keys && PySequence_Fast_GET_SIZE(request->keys) != request->count) ||
        (request->costs && PySequence_Fast_GET_SIZE(request->costs) != request->count)) {
        PyErr_SetString(PyExc_ValueError, "limits, keys and costs differ in length");
        return -1;
    }
    return 0;
}

/* Appends the table's mark, namespace and key of check `i`. */
static int request_key(struct core_request *request, const struct core_table *table,
                       const struct core_limit *limit, Py_ssize_t i) {
    struct core_key *bytes = &request->bytes;
    request->start[i] = bytes->len;
    if ((table && core_key_table(bytes, table) < 0) ||
        core_key_join(bytes, limit->prefix, NULL, 0) < 0 || core_key_append(bytes, "/", 1) < 0)
        return -1;
    size_t bare = bytes->len;
    request->client[i] = bare - request->start[i];
    if (core_key_joined(bytes, request->key ? request->key
                                            : PySequence_Fast_GET_ITEM(request->keys, i)) < 0)
        return -1;
    if (bytes->len == bare)
        bytes->len--; /* no identifiers: remove the slash */
    request->check[i].key_len = bytes->len - request->start[i];
    return core_key_within_bounds(request->check[i].key_len);
}

/*
 * Replaces items of an application's classes by the limits and keys that they decide with: limits
 * and keys become new lists.
 */
static int ask_items(struct core_request *request, struct core_state *state) {
    bool own = false;
    for (Py_ssize_t i = 0; i < request->count; i++) {
        PyObject *limit = PySequence_Fast_GET_ITEM(request->limits, i);
        own |= core_is_limit(state, limit) && ((struct core_limit *)limit)->own != 0;
    }
    if (!own)
        return 0;
    PyObject *limits = PyList_New(0), *keys = PyList_New(0);
    int rc = limits && keys ? 0 : -1;
    for (Py_ssize_t i = 0; rc == 0 && i < request->count; i++) {
        PyObject *limit = PySequence_Fast_GET_ITEM(request->limits, i);
        PyObject *key = request->key ? request->key : PySequence_Fast_GET_ITEM(request->keys, i);
        PyObject *plain = core_is_limit(state, limit) && ((struct core_limit *)limit)->own != 0
                              ? core_item_plain_joined(state, limit, key)
                              : PyTuple_Pack(2, limit, key);
        if (!plain || PyList_Append(limits, PyTuple_GET_ITEM(plain, 0)) < 0 ||
            PyList_Append(keys, PyTuple_GET_ITEM(plain, 1)) < 0)
            rc = -1;
        Py_XDECREF(plain);
        /* A method of such a class may have changed a list of the caller. */
        if (rc == 0 &&
            (PySequence_Fast_GET_SIZE(request->limits) != request->count ||
             (request->keys && PySequence_Fast_GET_SIZE(request->keys) != request->count))) {
            PyErr_SetString(PyExc_ValueError, "limits and keys were changed meanwhile");
            rc = -1;
        }
    }
    if (rc < 0) {
        Py_XDECREF(limits);
        Py_XDECREF(keys);
        return -1;
    }
    Py_SETREF(request->limits, limits);
    Py_XSETREF(request->keys, keys);
    request->key = NULL;
    return 0;
}

static int request_check(struct core_request *request, struct core_state *state,
                         struct core_table *table, Py_ssize_t i) {
    PyObject *limit = PySequence_Fast_GET_ITEM(request->limits, i);
    if (!core_is_limit(state, limit)) {
        PyErr_Format(PyExc_TypeError, "limits must be of Limit, not %.100s",
                     Py_TYPE(limit)->tp_name);
        return -1;
    }
    struct weir_check *check = &request->check[i];
    *check = (struct weir_check){.limit = &((struct core_limit *)limit)->limit, .cost = 1};
    if (table)
        check->label = core_label(table, (struct core_limit *)limit);
    if (request->costs) {
        PyObject *cost = PySequence_Fast_GET_ITEM(request->costs, i);
        if (core_count(cost, "cost", &check->cost) < 0)
            return -1;
        if (Py_TYPE(cost) == state->peek_type)
            check->flags = WEIR_CHECK_PEEK;
    }
    return request_key(request, table, (struct core_limit *)limit, i);
}

int core_request_read(struct core_request *request, struct core_state *state,
                      struct core_table *table, PyObject *limits, PyObject *keys, PyObject *costs) {
    request->limits = request->keys = request->key = request->costs = NULL;
    core_key_init(&request->bytes);
    if (request_sequences(request, limits, keys, costs) < 0 || ask_items(request, state) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < request->count; i++)
        if (request_check(request, state, table, i) < 0)
            return -1;
    for (Py_ssize_t i = 0; i < request->count; i++) {
        request->check[i].key = request->bytes.data + request->start[i];
        if (table)
            core_client(&request->check[i],
                        (struct core_limit *)PySequence_Fast_GET_ITEM(request->limits, i),
                        request->client[i]);
    }
    return 0;
}
