/*
 * Whether a limit's numbers fit the doubles of the script for Redis. Only the limit decides, never the cost or
 * the time, since the counters of wide checks are kept in another form.
 */
#ifndef WEIR_NUMBERS_H
#define WEIR_NUMBERS_H

#include "strategy/exact.h"
#include "strategy/strategy.h"

#define WEIR_NS_PER_US 1000
#define WEIR_DOUBLE_COUNT_MAX (INT64_C(1) << 47) /* of a narrow check: sums stay exact */
#define WEIR_DOUBLE_LEVEL_MAX ((weir_u128)1 << 51)

/* Bytes that tell `most` + 1 values apart; at least 1. */
static inline int weir_bytes_for(int64_t most) {
    int bits = 64 - __builtin_clzll((uint64_t)most | 1);
    return (bits + 7) / 8;
}

static inline void weir_numbers_most(struct weir_numbers *numbers, weir_u128 most) {
    numbers->most[0] = (uint64_t)most;
    numbers->most[1] = (uint64_t)(most >> 64);
}

/* A period in the script's time. */
static inline int64_t weir_period_us(const struct weir_limit *limit) {
    return (limit->period_ns + WEIR_NS_PER_US - 1) / WEIR_NS_PER_US;
}

#endif
