/* What all stores do with checks: validate them before a decision, and choose the deciding one after it. */
#ifndef WEIR_CHECKS_INTERNAL_H
#define WEIR_CHECKS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "weir/weir.h"

/* Whether there are 1 to WEIR_CHECKS_MAX checks, each of them valid: 0, WEIR_EINVAL or WEIR_ETOOMANY. */
int weir_checks_validate(const struct weir_check *checks, size_t n);

/* Whether verdict `a` decides rather than `b`, which comes before it: see struct weir_decision. */
static inline bool weir_outranks(const struct weir_limit *limit_a, const struct weir_verdict *a,
                                 const struct weir_limit *limit_b, const struct weir_verdict *b) {
    return a->allowed != b->allowed ? !a->allowed
           : a->allowed             ? limit_a->period_ns < limit_b->period_ns
                                    : a->retry_after_ns > b->retry_after_ns;
}

/* Sets `allowed` and `deciding` by the verdicts of n checks, at least 1. */
void weir_checks_choose(const struct weir_check *checks, const struct weir_verdict *verdicts,
                        size_t n, struct weir_decision *decision);

#endif
