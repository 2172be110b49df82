/*
 * weir._core: Python objects for the structs of libweir.
 *
 *     module.c           the module, its state and types; functions.c, errors.c
 *     clock.c            time.time()
 *     convert.c          sequences of limits, keys and costs -> struct weir_check
 *     key.c              identifiers -> the bytes of a key
 *     limit.c            Limit; limit_type.c has its members and type
 *     item.c             its subclasses: RateLimitItemPerHour and classes of applications
 *     decision.c         Decision, and the named tuples
 *     table.c            Table; lost.c reopens one whose file was removed
 *     stats.c, meter.c   its statistics
 *     rules.c, client.c  its rules about clients
 *     prepared_check.c   PreparedCheck
 *     evaluation.c       Evaluation; evaluation_store.c, evaluation_type.c
 *     flask_*.c          for Flask and Werkzeug: request hooks, request state, address
 *     limiter.c          RateLimiter
 *     redis*.c, memcached.c, state.c   codecs of the remote stores
 *
 * All data is in the module's state, so each interpreter has its own. Objects whose methods need
 * the state have a pointer to it; their type keeps the module alive.
 *
 * In Python, times are floats in seconds; inside, they are whole microseconds. The result of
 * time.time() is rounded to the nearest microsecond, and every returned time or duration is rounded
 * up to the next one. Until 2106, a float made from a microsecond converts back to the same
 * microsecond, so a request at the returned reset_at is allowed.
 */
#ifndef WEIR_CORE_H
#define WEIR_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <string.h>

#include "weir/lost.h"
#include "weir/weir.h"

/* Type slots of Python store functions as void *, which POSIX allows and ISO C does not. */
#pragma GCC diagnostic ignored "-Wpedantic"

/* The clock of clock.c. */
struct core_clock {
    PyObject *names;      /* the dict of module time */
    PyObject *name;       /* "time" */
    PyObject *builtin;    /* the interpreter's time.time; NULL: it was replaced before the import */
    PyCFunction function; /* the C function of `builtin`, unless replaced */
    int64_t latest;       /* the last result of core_now() */
    uint64_t version;     /* of `names` when `builtin` was last found there */
};

struct core_state {
    struct core_clock clock;
    PyTypeObject *limit_type;
    PyTypeObject *decision_type;
    PyTypeObject *table_type;
    PyTypeObject *limiter_type;
    PyTypeObject *prepared_type;
    PyTypeObject *evaluation_type;
    PyTypeObject *request_type;
    PyTypeObject *plan_type;
    PyTypeObject *hooks_type;
    PyTypeObject *address_type;
    PyTypeObject *peek_type;
    PyTypeObject *verdict_type; /* named tuples, made by collections.namedtuple */
    PyTypeObject *stats_type;
    PyTypeObject *granularity_type;
    PyTypeObject *counts_type;
    PyTypeObject *top_client_type;
    PyTypeObject *registered_type;
    PyTypeObject *rule_type;
    PyObject *unit_classes;  /* tuple of RateLimitItemPerSecond to ...PerYear; NULL: not set yet */
    PyObject *granularities; /* dict: name of a unit -> the class of its limits in parse() */
    PyObject *item_hooks;    /* tuple of the functions of weir.limits that item.c calls */
    PyObject *error;         /* WeirError and its subclasses */
    PyObject *parse_error;
    PyObject *storage_error;
    PyObject *table_error;
    PyObject *str_cost, *str_mode, *str_decide, *str_decide_prepared, *str_clear, *str_allowed,
        *str_remaining, *str_reset_at;
    PyObject *default_namespace; /* "LIMITER" */
};

/* The methods that a subclass of Limit overrides. */
enum core_own {
    CORE_OWN_EXPIRY = 1, /* get_expiry() */
    CORE_OWN_KEY = 2,    /* key_for() */
};

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
 * Whether this is an internal limit of Weir: its namespace begins with "!". It is not counted in the statistics,
 * and rules do not apply to its keys.
 */
static inline bool core_limit_is_own(const struct core_limit *limit) {
    return PyBytes_AS_STRING(limit->prefix)[0] == '!';
}

/* The result of weir_decide(), followed by the verdicts. */
struct core_decision {
    PyVarObject ob_base;
    struct core_state *state;
    struct weir_decision decision;
    int64_t now_ns;
    struct weir_verdict verdict[];
};

/* The label of a limit in a table; all zero: none. */
struct core_known_label {
    struct weir_limit limit;
    int32_t number;
};

#define CORE_KNOWN_LABELS 32u

/* A table's handle. */
struct core_table {
    PyObject ob_base;
    struct core_state *state;
    struct weir_table *table;  /* the open table; NULL: closed */
    struct weir_table *mapped; /* to be closed; it remains after `table` while it has users */
    PyObject *uri;
    PyObject *weakrefs;
    unsigned long long namespace;
    struct core_known_label label[CORE_KNOWN_LABELS]; /* recent lookups, by core_label_slot() */
    bool reveal;
    bool watched;            /* it has a file, which is checked once a second */
    int64_t lost_checked_ns; /* time of the last check of the file */
    int lost; /* WEIR_ENOENT: its file was removed; WEIR_EFORMAT: truncated, and `table` is NULL */
    bool observes;  /* opened only to observe: never creates the table again */
    bool reported;  /* the failure to create it again was logged */
    unsigned users; /* calls that run without the GIL; the last one closes a closed table */
    struct weir_table *retired; /* a lost table; the last call that uses it closes it */
    unsigned renewals; /* how often it was opened again: PreparedChecks register their labels */
    int noted_prefix;  /* the last ipv6_prefix that was set here, plus one; 0: none */
    long renewing;     /* the process in which a thread opens the lost table again */
};

/* --------------------------------------------------------------------------------------- module.c */

extern struct PyModuleDef core_module;

/* The module state of a type of this module or of its subclass; NULL with an exception set. */
struct core_state *core_state_of(PyTypeObject *type);

/* In functions.c: the functions of the module. */
extern PyMethodDef core_functions[];

/* In errors.c. Raises the exception for a result of libweir; `error` may be NULL. Returns NULL. */
PyObject *core_raise(struct core_state *state, int result, const struct weir_error *error);

/* Raises TableError: the table is closed. */
void core_raise_closed(struct core_state *state);

/* A float, or an int that is not a bool. -1.0 with an exception naming `what`. */
double core_number(PyObject *object, const char *what);

/* Seconds to nanoseconds, rounded to the microsecond. 0, or -1 with an exception naming `what`. */
int core_seconds_to_ns(double seconds, const char *what, int64_t *ns);

/* Nanoseconds to seconds, rounded up to the microsecond; WEIR_NEVER becomes infinity. */
double core_ns_to_seconds(int64_t ns);

/* An int that is not a bool, 0 to 2^63-1. 0, or -1 with an exception naming `what`. */
int core_count(PyObject *object, const char *what, int64_t *count);

/* The UTF-8 of a str without NUL, valid while the str exists; NULL with an exception naming `what`. */
const char *core_c_string(PyObject *text, const char *what);

/* A new str of the number's decimal digits; "0" for a negative number. NULL with an exception set. */
PyObject *core_decimal(int64_t number);

/* ---------------------------------------------------------------------------------------- clock.c */

int core_clock_init(struct core_clock *clock);
int core_clock_traverse(struct core_clock *clock, visitproc visit, void *arg);
void core_clock_clear(struct core_clock *clock);

/* time.time(), in nanoseconds; negative with an exception set. May run Python code. */
int64_t core_now(struct core_state *state);
/* Seconds since the epoch as ns; -1 with an exception naming `what`. */
int64_t core_moment(PyObject *object, const char *what);

/* ------------------------------------------------------------------------------------------ key.c */

/*
 * A key under construction, in `small` while it fits. core_key_init() first, core_key_free() last.
 * Functions return 0, or -1 with an exception set.
 */
struct core_key {
    char *data;
    size_t len;
    size_t room;
    size_t first; /* end of the first identifier, once appended */
    char small[480];
};

static inline void core_key_init(struct core_key *key) {
    key->data = key->small;
    key->len = 0;
    key->room = sizeof key->small;
}

static inline void core_key_free(struct core_key *key) {
    if (key->data != key->small)
        PyMem_RawFree(key->data);
}

/* Makes room for `more` bytes. */
int core_key_grow(struct core_key *key, size_t more);

static inline int core_key_reserve(struct core_key *key, size_t more) {
    return key->room - key->len >= more ? 0 : core_key_grow(key, more);
}

/* Appends bytes unchanged. */
static inline int core_key_append(struct core_key *key, const void *bytes, size_t len) {
    if (core_key_reserve(key, len) < 0)
        return -1;
    memcpy(key->data + key->len, bytes, len);
    key->len += len;
    return 0;
}

/*
 * The text of an identifier: str and bytes unchanged, the str() of other objects. New reference; NULL with an
 * exception set, which may come from the object's __str__(). Runs Python code.
 */
PyObject *core_identifier(PyObject *object);

/* Appends the text of an identifier with its "/" escaped. Runs Python code. */
int core_key_identifier(struct core_key *key, PyObject *identifier);

/* Appends the limit's namespace, then "/" and the identifier for each identifier. */
int core_key_join(struct core_key *key, const struct core_limit *limit,
                  PyObject *const *identifiers, Py_ssize_t count);

/* Appends "/" and the identifiers joined by "/", without a namespace. */
int core_key_identifiers(struct core_key *key, PyObject *const *identifiers, Py_ssize_t count);

/* Appends a key that is already joined: str or bytes, unchanged. */
int core_key_joined(struct core_key *key, PyObject *joined);

/* Appends the mark of Table(namespace=…), which separates the keys of namespaces; nothing for 0. */
int core_key_mark(struct core_key *key, const struct core_table *table);

static inline int core_key_table(struct core_key *key, const struct core_table *table) {
    return table->namespace == 0 ? 0 : core_key_mark(key, table);
}

/* 0 if a key may have this length, or -1 with an exception set. */
int core_key_within_bounds(size_t len);

/* ---------------------------------------------------------------------------------------- limit.c */

extern PyType_Spec core_limit_spec;

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

/* The strategy of a name; -1 with an exception set. */
int core_limit_strategy_of(PyObject *name);

/* Sets strategy and zone of a new limit that no other code has yet; None: none. 0, or -1 with an exception. */
int core_limit_choose(PyObject *limit, PyObject *strategy, PyObject *tz);

/* For pickle: a Limit from the arguments of its constructor, all positional. */
PyObject *core_restore_limit(PyObject *module, PyObject *args);

/* -------------------------------------------------------------------------------- strategies.c, zone.c */

/* The strategy of that name; -1 with an exception that lists them all. */
int core_strategy_of(const char *name, size_t len);

/* Adds STRATEGIES to the module. */
int core_add_strategies(PyObject *module);

PyObject *core_make_zone(PyObject *module, PyObject *args);
/* The zone of tz=…, a str, a tzinfo or None; NULL is UTC. It is never freed. 0, or -1 with an exception. */
int core_zone_of(PyObject *tz, const struct weir_zone **zone);
/* Adds UNITS to the module. */
int core_add_units(PyObject *module);

/* Gives a limit another namespace (str). 0, or -1 with an exception set. */
int core_limit_rename(struct core_limit *self, PyObject *namespace);

/* ----------------------------------------------------------------------------------------- item.c */

/* Weir's class of limits of this unit; Limit until weir.limits is imported. Borrowed. */
PyTypeObject *core_item_class(struct core_state *state, int unit);

/* A parsed limit, as an instance of the class that is registered for its unit. */
PyObject *core_item_parsed(struct core_state *state, const struct weir_limit *limit);

/* The limits in a text with units of an application, which the C parser refuses: a list; None if it is
 * not such a text; NULL with an exception set. */
PyObject *core_item_parse_own(struct core_state *state, PyObject *text);

/* The methods that a type overrides: bits of enum core_own, or -1 with an exception set. */
int core_item_own(struct core_state *state, PyTypeObject *type);

/* Whether `type` takes (amount, multiples, namespace): its (seconds, name) as a new reference. NULL
 * without an exception: it takes the arguments of Limit. */
PyObject *core_item_granularity(struct core_state *state, PyTypeObject *type);

/* Fills a limit from (amount, multiples=1, namespace='LIMITER'). 0, or -1 with an exception set. */
int core_item_fill(struct core_state *state, struct core_limit *self, PyObject *granularity,
                   PyObject *args, PyObject *kwargs);

/* Copies the additional attributes of an item's class. 0, or -1 with an exception set. */
int core_item_copy(struct core_state *state, PyObject *from, PyObject *to);

/* For an item whose `own` is not 0: a tuple of the limit to decide and its identifiers; NULL with an
 * exception set. Calls methods of the item's class. */
PyObject *core_item_plain(struct core_state *state, PyObject *item, PyObject *const *identifiers,
                          Py_ssize_t count);

/* The same for a key that is joined already: (limit, key). */
PyObject *core_item_plain_joined(struct core_state *state, PyObject *item, PyObject *joined);

/* _core._set_items(unit_classes, granularities, hooks): called by weir.limits when it is imported. */
PyObject *core_set_items(PyObject *module, PyObject *args);

/* ------------------------------------------------------------------------------------- decision.c */

extern PyType_Spec core_decision_spec;

/* An instance of a named tuple whose `count` items are still to be set; NULL with an exception. */
PyObject *core_tuple_new(PyTypeObject *type, Py_ssize_t count);

/* A sequence as a tuple; NULL with an exception: TypeError with `why` if it is not a sequence. */
PyObject *core_tuple_of(PyObject *sequence, const char *why);

/* Makes the named tuples. 0, or -1 with an exception set. */
int core_tuples_init(PyObject *module, struct core_state *state);

/* A Decision with room for `count` verdicts; NULL with an exception set. */
struct core_decision *core_decision_new(struct core_state *state, Py_ssize_t count);

/* later(decision, seconds) and deciding(limits, verdicts). */
PyObject *core_later(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_deciding(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

PyObject *core_verdict_new(struct core_state *state, const struct weir_verdict *verdict);
PyObject *core_stats_new(struct core_state *state, double reset_time, int64_t remaining);

/* ---------------------------------------------------------------------------------------- table.c */

extern PyType_Spec core_table_spec;

#define CORE_CHECK_LOST_NS UINT64_C(1000000000)

/*
 * Checks, once a second or now, that the table's file exists and is not truncated. Returns the open table, or NULL
 * with an exception set.
 */
struct weir_table *core_table_check_lost(struct core_table *table, bool now);

/*
 * The open table, or NULL with an exception set. Borrowed while the GIL is held. Once a second by the clock, its file
 * is checked. Other threads run while a lost table is opened again, so the caller needs a reference to `table`.
 */
static inline struct weir_table *core_table_borrow(struct core_table *table) {
    if (!table->table ||
        (table->watched &&
         (uint64_t)(table->state->clock.latest - table->lost_checked_ns) >= CORE_CHECK_LOST_NS))
        return core_table_check_lost(table, false);
    return table->table;
}

/* Whether a storage is a Table whose decide() and clear() no subclass replaces: 1 or 0; -1 with an exception set. */
int core_table_decides(struct core_state *state, PyObject *storage);

void core_table_init(void); /* called once, when the module is created */

/* Begins and ends a call without the GIL; NULL with an exception set. */
struct weir_table *core_table_enter(struct core_table *table);
void core_table_leave(struct core_table *table);
void core_table_close_unused(struct core_table *table);

/*
 * A call of libweir that locks may have to wait for a stopped process. Only a thread that has released the GIL,
 * between these two macros, may sleep in it. Others get WEIR_EBUSY after some spinning.
 */
extern _Thread_local bool core_may_sleep;
#define CORE_BEGIN_SLEEP                                                                           \
    Py_BEGIN_ALLOW_THREADS                                                                         \
    core_may_sleep = true;
#define CORE_END_SLEEP                                                                             \
    core_may_sleep = false;                                                                        \
    Py_END_ALLOW_THREADS

/*
 * rc = expression, a call on `table` that is faster than releasing the GIL. If it returns WEIR_EBUSY, it is evaluated
 * again without the GIL. So it must have no effect if it returns WEIR_EBUSY, and must not read data that other
 * threads may change.
 */
#define CORE_PATIENTLY(table, rc, expression)                                                      \
    do {                                                                                           \
        (rc) = (expression);                                                                       \
        if (__builtin_expect((rc) == WEIR_EBUSY, 0)) {                                             \
            (table)->users++;                                                                      \
            CORE_BEGIN_SLEEP;                                                                      \
            (rc) = (expression);                                                                   \
            CORE_END_SLEEP;                                                                        \
            core_table_leave(table);                                                               \
        }                                                                                          \
    } while (0)

/* In client.c: how many bits of an IPv6 address identify a client, from a meter; -1: not set. */
int core_ipv6_prefix(struct weir_table *table);
int core_set_ipv6_prefix(struct weir_table *table, int prefix, int64_t now_ns);

/* ------------------------------------------------------------------------------------- stats.c */
int32_t core_label_find(struct core_table *table, const struct core_limit *limit);

/* The slot in which a table caches the label of a limit. */
static inline struct core_known_label *core_label_slot(struct core_table *table,
                                                       const struct weir_limit *limit) {
    uint64_t mixed = (uint64_t)limit->amount * UINT64_C(0x9E3779B97F4A7C15) ^
                     (uint64_t)limit->period_ns * UINT64_C(0xC2B2AE3D27D4EB4F);
    return &table->label[mixed >> 59];
}
_Static_assert(CORE_KNOWN_LABELS == 32, "five bits choose a slot");

/* The label under which an open table counts checks of this limit. 0: not counted. */
static inline int32_t core_label(struct core_table *table, const struct core_limit *limit) {
    const struct weir_limit *a = &limit->limit;
    const struct core_known_label *known = core_label_slot(table, a);
    const struct weir_limit *b = &known->limit;
    return known->number > 0 && a->amount == b->amount && a->multiples == b->multiples &&
                   a->unit == b->unit && a->burst == b->burst && a->strategy == b->strategy &&
                   a->period_ns == b->period_ns && a->max_delay_ns == b->max_delay_ns &&
                   a->zone == b->zone && !core_limit_is_own(limit)
               ? known->number
               : core_label_find(table, limit);
}

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

/* ------------------------------------------- prepared_check.c, evaluation.c, flask_*.c, limiter.c */

extern PyType_Spec core_prepared_spec, core_evaluation_spec, core_limiter_spec;
extern PyType_Spec core_request_spec, core_plan_spec, core_hooks_spec, core_address_spec;

#endif
