/*
 * PreparedCheck and Evaluation: a check with its fixed data, and its evaluation for one request.
 */
#ifndef WEIR_EXT_PREPARED_CHECK_H
#define WEIR_EXT_PREPARED_CHECK_H

#include "core.h"

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

/*
 * A base type: weir.flask adds members. In masks, bit i means part i. `main` parts are those of the route; the
 * others, after them, count how often a client is refused.
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
    uint32_t
        observed; /* parts that are evaluated separately, charge nothing and refuse no request */
    uint32_t responsive; /* parts with deduct_when: whose charge depends on the response */
    int32_t mode;        /* WEIR_HIT or WEIR_EACH */
    bool scopes;         /* whether any part has scope_of */
    char defaults;       /* whether the default limits are among the parts */
    PyObject *
        headers; /* for each main part the names of its headers, see core_evaluation_write_headers(); or NULL */
};

/* The evaluation of one part for one request. */
struct core_item {
    struct weir_verdict verdict; /* if its bit is in `parts` */
    PyObject *client; /* of key function i, not of part i: str or bytes; NULL: not called */
    PyObject *scope;  /* str, of a part with scope_of */
    int64_t cost;
};

/* The evaluation of a prepared check for one request. */
struct core_evaluation {
    PyVarObject ob_base;
    struct core_prepared *check;
    uint32_t parts;   /* that take part */
    uint32_t denied;  /* of them, those that deny */
    int32_t reported; /* index of the main part to report to the client; -1: none */
    int32_t rule;     /* enum weir_rule_kind */
    int64_t now_ns;   /* of the decision; -1: not decided yet */
    struct core_item item[];
};

/* Gathers clients, the parts that apply and their costs. Decides nothing. NULL: exception. */
struct core_evaluation *core_evaluation_gather(struct core_prepared *check);

/* Appends the start of a part's key, before the client: the table's mark, the namespace, the prefix. */
int core_prepared_before(struct core_prepared *check, struct core_key *key,
                         const struct core_part *part, bool marked);

/* If the check's table has replaced a lost one: registers its limits there, and finds their labels. */
void core_prepared_relabel(struct core_prepared *check);

/* Whether an object is an Evaluation. */
bool core_is_evaluation(PyObject *object);

/* Decides it on the check's store. 0, or -1 with an exception. */
int core_evaluation_decide(struct core_evaluation *evaluation);

/* Whether the request may continue and nothing is to be reported. */
static inline bool core_evaluation_passes(const struct core_evaluation *evaluation) {
    return evaluation->denied == 0;
}

/* Parts as libweir's checks, in their order. */
struct core_expanded {
    struct core_key keys;
    size_t start[WEIR_CHECKS_MAX];
    int count;
    struct weir_check check[WEIR_CHECKS_MAX];
    uint8_t part[WEIR_CHECKS_MAX];
};

/*
 * Expands parts with the mark of the check's table, or with the keys of remote stores. Parts that charge nothing or
 * refuse no request have WEIR_CHECK_PEEK. Call core_expanded_free() in all cases. 0, or -1 with an exception.
 */
int core_evaluation_expand(const struct core_evaluation *evaluation, struct core_expanded *expanded,
                           uint32_t parts, bool marked);
void core_expanded_free(struct core_expanded *expanded);

/*
 * Charges, or gives back, those of `parts` that depend on the response. 0; -1 with an exception of a function;
 * -2 with one of the store.
 */
int core_evaluation_respond(struct core_evaluation *evaluation, PyObject *response, uint32_t parts);

/*
 * Appends the headers of the reported part to a list of (name, value): the pair names[0], and what remains,
 * when it resets and how long that takes under names[1] to names[3]. 1; 0, with nothing appended, if the list
 * has a Retry-After; -1 with an exception.
 */
int core_evaluation_write_headers(struct core_evaluation *evaluation, PyObject *pairs,
                                  PyObject *names);

#endif
