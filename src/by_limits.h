/*
 * The one evaluator: a decision about items. weir_decide() makes items of checks, weir_decide_prepared() of a
 * prepared check (decide_all.c); rules take out those that they decide; by_limits.c decides the rest.
 */
#ifndef WEIR_BY_LIMITS_H
#define WEIR_BY_LIMITS_H

#include "table/layout.h"

/* One limit of a decision. All is valid. */
struct weir_item {
    uint64_t fingerprint[2];
    const struct weir_limit *limit;
    int64_t cost;
    struct weir_verdict *verdict;
    const void *client;
    size_t client_len;
    int32_t label;
    uint8_t role;  /* enum weir_role */
    uint8_t index; /* of the check or part */
    uint8_t slot;  /* by_limits.c's */
};

/*
 * Decides `n` items as if there were no rules, and writes their verdicts. Those that enforce, `enforced` of
 * them, come before those in the shadow; one of the two may be missing. `refused`: the request is denied
 * already, so items in the shadow are charged nothing in WEIR_HIT.
 * Errors: as weir_decide().
 */
int weir_decide_by_limits(struct weir_table *table, struct weir_item *items, uint32_t n,
                          uint32_t enforced, bool refused, int64_t now_ns, enum weir_mode mode);

#endif
