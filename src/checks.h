/*
 * What all stores do with checks: validate them before a decision, and choose the deciding one
 * after it.
 */
#ifndef WEIR_CHECKS_INTERNAL_H
#define WEIR_CHECKS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "weir/stats.h"
#include "weir/weir.h"

/*
 * Whether there are 1 to WEIR_CHECKS_MAX checks, each of them valid: 0, WEIR_EINVAL or
 * WEIR_ETOOMANY.
 */
int weir_checks_validate(const struct weir_check *checks, size_t n);

/* Whether a label is 0 or one of weir_stats_label(). */
static inline bool weir_is_label(int32_t label) {
    return (uint32_t)label <= WEIR_STATS_LABELS;
}

/* A limit and its verdict. */
struct weir_outcome {
    const struct weir_limit *limit;
    const struct weir_verdict *verdict;
};

/* Whether outcome `a` decides rather than `b`, which comes before it: see struct weir_decision. */
static inline bool weir_outranks(struct weir_outcome a, struct weir_outcome b) {
    if (a.verdict->allowed != b.verdict->allowed)
        return !a.verdict->allowed;
    return a.verdict->allowed ? a.limit->period_ns < b.limit->period_ns
                              : a.verdict->retry_after_ns > b.verdict->retry_after_ns;
}

/*
 * The index of the outcome that decides, of n, at least 1. outcome(all, i) returns outcome i; pass
 * a function of the same file, so that the compiler inlines it.
 */
static inline uint32_t weir_deciding(const void *all, uint32_t n,
                                     struct weir_outcome (*outcome)(const void *all, uint32_t i)) {
    uint32_t deciding = 0;
    for (uint32_t i = 1; i < n; i++)
        if (weir_outranks(outcome(all, i), outcome(all, deciding)))
            deciding = i;
    return deciding;
}

/* Sets `allowed` and `deciding` by the verdicts of n checks, at least 1. */
void weir_checks_choose(const struct weir_check *checks, const struct weir_verdict *verdicts,
                        size_t n, struct weir_decision *decision);

#endif
