/* PreparedCheck: the limits of one check with everything that does not change between requests. */
#ifndef WEIR_EXT_PREPARED_CHECK_H
#define WEIR_EXT_PREPARED_CHECK_H

#include "limit.h"
#include "table.h"

/* One limit of a prepared check. Members that are NULL do not apply. All references are owned. */
struct core_part {
    struct core_limit *limit;
    PyObject *after;       /* bytes: the key after the client; NULL: from scope_of */
    PyObject *exempt_when; /* called: whether the limit does not apply to this request */
    PyObject *scope_of;    /* called: the scope, as text */
    PyObject *cost_of;     /* called: the cost */
    PyObject *deduct_when; /* called with the response: whether the request counts */
    int64_t cost;
    int32_t role;      /* enum weir_role */
    int32_t key_index; /* of its key function */
    int32_t label;     /* in the statistics of the table, also if it is not counted there */
};

/* Part i in a mask of parts. */
#define CORE_PART_BIT(i) (UINT32_C(1) << (i))

/*
 * A base type: weir.flask adds members. In masks, bit i means part i. `main` parts are those of the
 * route; the others, after them, count how often a client is refused.
 */
struct core_prepared {
    PyObject ob_base;
    struct core_state *state;
    struct core_table *table;       /* has statistics and rules, and decides if there is no store */
    PyObject *store;                /* decides by decide_prepared(); NULL: the table */
    PyObject *prefix;               /* bytes: the start of every key, before the client */
    PyObject *on_empty;             /* called with (index, "key" or "scope") */
    unsigned renewals;              /* of the table, when the labels were found */
    struct weir_prepared *labelled; /* with the table's mark and labels */
    struct weir_prepared *plain;    /* with the keys of remote stores */
    struct core_part *part;
    Py_ssize_t count;
    PyObject **key_func;
    Py_ssize_t key_funcs;
    Py_ssize_t main;                    /* that many parts are main parts */
    uint32_t evaluated;                 /* parts that take part in evaluate() */
    uint32_t lenient;                   /* parts whose denial refuses no request */
    uint32_t unshared;                  /* parts that are reported first */
    uint32_t peeked, deferred, shadows; /* parts by their roles; the others are charged */
    uint32_t labels; /* parts that are counted in the statistics when they decide */
    /* Parts that are evaluated separately, charge nothing and refuse no request. */
    uint32_t observed;
    uint32_t responsive; /* parts with deduct_when: whose charge depends on the response */
    int32_t mode;        /* WEIR_HIT or WEIR_EACH */
    bool scopes;         /* whether any part has scope_of */
    char defaults;       /* whether the default limits are among the parts */
    /* For each main part the names of its headers, see core_evaluation_write_headers(); or NULL. */
    PyObject *headers;
};

/*
 * Appends the start of a part's key, before the client: the table's mark, the namespace, the
 * prefix.
 */
int core_prepared_before(struct core_prepared *check, struct core_key *key,
                         const struct core_part *part, bool marked);

/*
 * Prepares the parts in libweir, for the table (marked) or for any other store. 0, or -1 with an
 * exception.
 */
int core_prepared_prepare(struct core_prepared *check, bool marked,
                          struct weir_prepared **prepared);

/*
 * If the check's table has replaced a lost one: registers its limits there, and finds their labels.
 */
void core_prepared_relabel(struct core_prepared *check);

#endif
