/*
 * Common parts of the tests of the Redis codec.
 */
#ifndef WEIR_TESTS_REDIS_SUPPORT_H
#define WEIR_TESTS_REDIS_SUPPORT_H

#include "support.h"
#include "weir/redis.h"

#define US INT64_C(1000)
#define LATEST_US INT64_C(9007199254740991)

static inline struct weir_limit units(int64_t amount, int64_t multiples, int unit, int strategy) {
    struct weir_limit limit;
    assert_int_equal(weir_limit_init(&limit, amount, multiples, unit, NULL), 0);
    limit.strategy = strategy;
    return limit;
}

/* The text of one command. */
static char buffer[1 << 17];

#endif
