/*
 * Exact arithmetic for the strategies: 128-bit products, quotients that use the 64-bit division if
 * the number fits (nearly always: a full bucket of a million per hour is 2^62), and sums and
 * quotients that are limited to INT64_MAX instead of wrapping.
 */
#ifndef WEIR_EXACT_H
#define WEIR_EXACT_H

#include <stdbool.h>
#include <stdint.h>

__extension__ typedef unsigned __int128 weir_u128;

/*
 * Calls that processes make at nearly the same time may arrive in a different order than their
 * times.
 * A `now` up to this long before the state's time is treated as such a call; if it is earlier, the
 * clock stepped back.
 */
#define WEIR_SKEW_NS INT64_C(100000000)

static inline weir_u128 weir_mul(int64_t a, int64_t b) {
    return (weir_u128)(uint64_t)a * (uint64_t)b;
}

static inline int64_t weir_saturate(weir_u128 value) {
    return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

/* ceil(n / d) and floor(n / d), at most INT64_MAX; d at least 1. */
static inline int64_t weir_div_up(weir_u128 n, int64_t d) {
    if (n >> 64 == 0) {
        uint64_t low = (uint64_t)n, by = (uint64_t)d;
        return weir_saturate(low / by + (low % by != 0));
    }
    return weir_saturate((n - 1) / (uint64_t)d + 1);
}

static inline int64_t weir_div_down(weir_u128 n, int64_t d) {
    return weir_saturate(n >> 64 == 0 ? (uint64_t)n / (uint64_t)d : n / (uint64_t)d);
}

/* a + b, at most INT64_MAX. Neither may be negative. */
static inline int64_t weir_add(int64_t a, int64_t b) {
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

static inline int64_t weir_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

#endif
