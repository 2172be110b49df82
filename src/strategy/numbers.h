/*
 * Whether a limit's numbers fit the doubles of the script for Redis. This depends only on the
 * limit, not on the cost or the time, because the counters of wide checks have a different format.
 */
#ifndef WEIR_NUMBERS_H
#define WEIR_NUMBERS_H

#include "strategy/exact.h"
#include "strategy/strategy.h"

#define WEIR_NS_PER_US 1000
#define WEIR_DOUBLE_COUNT_MAX (INT64_C(1) << 47) /* of a narrow check: its sums are exact */
#define WEIR_DOUBLE_LEVEL_MAX ((weir_u128)1 << 51)

/* The number of bytes for values from 0 to `most`; at least 1. */
static inline int weir_bytes_for(int64_t most) {
    int bits = 64 - __builtin_clzll((uint64_t)most | 1);
    return (bits + 7) / 8;
}

static inline void weir_numbers_most(struct weir_numbers *numbers, weir_u128 most) {
    numbers->most[0] = (uint64_t)most;
    numbers->most[1] = (uint64_t)(most >> 64);
}

/* The period in microseconds, as the script counts it. */
static inline int64_t weir_period_us(const struct weir_limit *limit) {
    return (limit->period_ns + WEIR_NS_PER_US - 1) / WEIR_NS_PER_US;
}

#endif
