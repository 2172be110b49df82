/* Limit: an immutable Python object for struct weir_limit. */
#ifndef WEIR_EXT_LIMIT_H
#define WEIR_EXT_LIMIT_H

#include "core.h"

/* One limit. Immutable after creation. */
struct core_limit {
    PyObject ob_base;
    struct weir_limit limit; /* for weir_decide(); fixed window if no strategy was given. period_ns
                                is 0 until the __init__() of a subclass has called Limit's */
    bool has_strategy;
    bool has_max_delay;
    bool has_tz;           /* also true for an explicit UTC */
    uint8_t own;           /* of enum core_own; if not 0, item.c makes the limit to decide */
    PyObject *granularity; /* (seconds, name) of an application's unit; NULL: limit.unit */
    PyObject *namespace;   /* str */
    PyObject *prefix;      /* bytes: the namespace, escaped for keys */
    PyObject *weakrefs;
    Py_hash_t hash; /* -1: not computed yet */
};

/*
 * Whether this is an internal limit of Weir: its namespace begins with "!". It is not counted in
 * the statistics, and rules do not apply to its keys.
 */
static inline bool core_limit_is_own(const struct core_limit *limit) {
    return PyBytes_AS_STRING(limit->prefix)[0] == '!';
}

static inline bool core_is_limit(const struct core_state *state, PyObject *object) {
    return Py_TYPE(object) == state->limit_type || PyObject_TypeCheck(object, state->limit_type);
}

/* A new Limit from a parsed limit; NULL with an exception set. */
PyObject *core_limit_new(struct core_state *state, const struct weir_limit *limit);

/* A new Limit that has its strategy, in a namespace (str); NULL with an exception set. */
PyObject *core_limit_of(struct core_state *state, const struct weir_limit *limit,
                        PyObject *namespace);

/* The limit itself if it has a strategy, else a copy with this one. New reference. */
PyObject *core_limit_with_strategy(struct core_state *state, PyObject *limit, int strategy);

/*
 * Sets strategy and zone of a new limit that no other code has yet; None: none. 0, or -1 with an
 * exception.
 */
int core_limit_choose(PyObject *limit, PyObject *strategy, PyObject *tz);

/* For pickle: a Limit from the arguments of its constructor, all positional. */
PyObject *core_restore_limit(PyObject *module, PyObject *args);

/* Methods and slots of the type. */
int limit_init(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *limit_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *limit_replace(PyObject *object, PyObject *args, PyObject *kwargs);
int limit_traverse(PyObject *object, visitproc visit, void *arg);
int limit_clear_refs(PyObject *object);
void limit_dealloc(PyObject *object);

/* Sets the client of a check: the part of its key from `at` to the next slash. */
static inline void core_client(struct weir_check *check, const struct core_limit *limit,
                               size_t at) {
    if (at >= check->key_len || core_limit_is_own(limit))
        return;
    const char *client = (const char *)check->key + at;
    const char *slash = memchr(client, '/', check->key_len - at);
    check->client = client;
    check->client_len = slash ? (size_t)(slash - client) : check->key_len - at;
}

/* The same for a key whose first identifier ends at `end`. */
static inline void core_first_client(struct weir_check *check, const struct core_limit *limit,
                                     size_t at, size_t end) {
    if (at >= end || core_limit_is_own(limit))
        return;
    check->client = (const char *)check->key + at;
    check->client_len = end - at;
}

#endif
