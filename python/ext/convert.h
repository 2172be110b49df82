/* The arguments of decide() and clear(), for tables and for remote stores. */
#ifndef WEIR_REQUEST_EXT_H
#define WEIR_REQUEST_EXT_H

#include "limit.h"
#include "table.h"

/* The checks of one call, with all their keys in one buffer. */
struct core_request {
    Py_ssize_t count;
    PyObject *limits; /* owned: tuples or lists */
    PyObject *keys;   /* owned, or NULL: `key` is for every limit */
    PyObject *key;    /* borrowed */
    PyObject *costs;  /* owned, or NULL: 1 each */
    struct core_key bytes;
    /* The offset of each key in `bytes`, which may move until all keys are appended. */
    size_t start[WEIR_CHECKS_MAX];
    size_t client[WEIR_CHECKS_MAX]; /* offset of the identifiers in each key */
    struct weir_check check[WEIR_CHECKS_MAX];
};

/*
 * Reads the arguments into checks. For a table, keys include its mark, and checks include client
 * and label; table NULL: for a remote store. 0, or -1 with an exception set. Call
 * core_request_free() in both cases. May run Python code, which may close the table.
 */
int core_request_read(struct core_request *request, struct core_state *state,
                      struct core_table *table, PyObject *limits, PyObject *keys, PyObject *costs);

void core_request_free(struct core_request *request);

#endif
