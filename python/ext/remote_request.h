/* What the codecs of remote stores share, and their entry in the module. */
#ifndef WEIR_REMOTE_EXT_H
#define WEIR_REMOTE_EXT_H

#include "core.h"

/* The checks of one call, their keys one after the other in one buffer. */
struct remote_request {
    Py_ssize_t count;
    PyObject *limits; /* owned: tuples or lists */
    PyObject *keys;   /* owned, or NULL: `key` is for every limit */
    PyObject *key;    /* borrowed */
    PyObject *costs;  /* owned, or NULL: 1 each */
    struct core_key bytes;
    size_t start[WEIR_CHECKS_MAX]; /* of each key in `bytes`; they may move until all are there */
    struct weir_check check[WEIR_CHECKS_MAX];
};

/* Reads the arguments of decide() into checks. 0, or -1 with an exception set; remote_request_free() is due
 * in any case. */
int remote_request_read(struct remote_request *request, struct core_state *state, PyObject *limits,
                        PyObject *keys, PyObject *costs);

void remote_request_free(struct remote_request *request);

/* Add RedisCodec, MemcachedCheck, and what belongs to them to the module. 0, or -1 with an exception set. */
int remote_init(PyObject *module);
int memcached_init(PyObject *module);

#endif
