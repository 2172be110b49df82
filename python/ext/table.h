/* The handle of a local store: what calls on an open table share. */
#ifndef WEIR_EXT_TABLE_H
#define WEIR_EXT_TABLE_H

#include "key.h"

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
    bool has_file;           /* it has a file, which is checked once a second */
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

/* Called once, when the module is created. */
void core_table_init(void);

/*
 * Whether a storage is a Table whose decide() and clear() no subclass replaces: 1 or 0; -1 with an
 * exception set.
 */
int core_table_decides(struct core_state *state, PyObject *storage);

/* Ends a call without the GIL that core_table_enter() began. */
void core_table_leave(struct core_table *table);

/* Closes a closed or retired table that no call uses any more. */
void core_table_close_unused(struct core_table *table);

/*
 * A call of libweir that locks may have to wait for a stopped process. Only a thread that has
 * released the GIL, between these two macros, may sleep in it. Others get WEIR_EBUSY after some
 * spinning.
 */
extern _Thread_local bool core_may_sleep;
#define CORE_BEGIN_SLEEP                                                                           \
    Py_BEGIN_ALLOW_THREADS                                                                         \
    core_may_sleep = true;
#define CORE_END_SLEEP                                                                             \
    core_may_sleep = false;                                                                        \
    Py_END_ALLOW_THREADS

/*
 * rc = expression, a call on `table` that is faster than releasing the GIL. If it returns
 * WEIR_EBUSY, it is evaluated again without the GIL. So it must have no effect if it returns
 * WEIR_EBUSY, and must not read data that other threads may change.
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

/* Appends the mark of the table's namespace, if it has one. */
static inline int core_key_table(struct core_key *key, const struct core_table *table) {
    return table->namespace == 0 ? 0 : core_key_mark(key, table->namespace);
}

#endif
