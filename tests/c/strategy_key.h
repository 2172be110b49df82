/*
 * Common parts of the tests of strategies: one key with its state and log, requests for it, and
 * random numbers from a printed seed.
 */
#ifndef WEIR_TESTS_STRATEGY_KEY_H
#define WEIR_TESTS_STRATEGY_KEY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "pool.h"
#include "strategy/log/log.h"
#include "strategy/strategy.h"

#define SECOND INT64_C(1000000000)

static uint64_t seed;
static uint64_t random_state;

/* Prints the seed: WEIR_SEED, or the time. */
static inline void seed_runs(void) {
    const char *text = getenv("WEIR_SEED");
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    random_state = seed;
    print_message("WEIR_SEED=%llu\n", (unsigned long long)seed);
}

static inline uint64_t random_bits(void) { /* splitmix64 */
    uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static inline int64_t below(int64_t bound) {
    return bound <= 0 ? 0 : (int64_t)(random_bits() % (uint64_t)bound);
}

static inline bool one_in(int64_t n) {
    return below(n) == 0;
}

/* ---------------------------------------------------------------------------------------- a key */

enum op { HIT, TEST, REFUND, ABORTED };

static const char *const op_names[] = {"hit", "test", "refund", "aborted hit"};

struct key {
    struct weir_limit limit;
    struct weir_state state;
    struct pool pool;
};

/* One request, as a table handles it: it changes a copy, which is kept or discarded. */
static inline int apply(struct key *key, enum op op, int64_t now, int64_t cost,
                        struct weir_verdict *verdict) {
    const struct weir_strategy_ops *strategy = weir_strategies[key->limit.strategy];
    struct weir_state copy = key->state;
    struct weir_step step = {.limit = &key->limit,
                             .now_ns = now,
                             .cost = cost,
                             .charge = op != TEST,
                             .lines = &key->pool.lines};
    memset(verdict, 0, sizeof *verdict);
    pool_begin(&key->pool);
    int rc = op == REFUND ? strategy->refund(&copy, &step, verdict)
                          : strategy->step(&copy, &step, verdict);
    if (rc < 0 || op == TEST || op == ABORTED)
        return rc;
    key->state = copy;
    pool_commit(&key->pool);
    return 0;
}

static inline void print_verdict(const char *who, const struct weir_verdict *v) {
    print_message(
        "  %-8s allowed %d limit %lld remaining %lld reset_at %lld retry_after %lld delay %lld\n",
        who, v->allowed, (long long)v->limit, (long long)v->remaining, (long long)v->reset_at_ns,
        (long long)v->retry_after_ns, (long long)v->delay_ns);
}

static inline void print_request(const struct key *key, enum op op, int64_t now, int64_t cost) {
    const struct weir_limit *l = &key->limit;
    print_message("%s: %lld per %lld ns, burst %lld, max_delay %lld: %s of %lld at %lld\n",
                  weir_strategies[l->strategy]->name, (long long)l->amount, (long long)l->period_ns,
                  (long long)l->burst, (long long)l->max_delay_ns, op_names[op], (long long)cost,
                  (long long)now);
}

/* Each line is exactly once in the log or in the free list, and the log is valid. */
static inline bool pool_is_whole(struct key *key) {
    static uint8_t seen[1 << 20];
    pool_begin(&key->pool); /* discard the changes of an aborted request */
    memset(seen, 0, key->pool.total / 8 + 1);
    if (key->limit.strategy == WEIR_MOVING_WINDOW && key->state.word[0] &&
        weir_log_verify(&key->state, &key->pool.lines, seen) < 0)
        return false;
    if (!pool_mark_free(&key->pool, seen))
        return false;
    for (uint32_t line = 1; line < key->pool.total; line++)
        if (!(seen[line / 8] >> line % 8 & 1))
            return false;
    return true;
}

#endif
