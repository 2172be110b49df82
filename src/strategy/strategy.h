/*
 * What a strategy is to the rest of libweir: pure functions over the state of one key, and one row in
 * weir_strategies[]. A strategy knows no table, no lock, no clock.
 *
 * A store gives it a *copy* of the state, decides over several limits, and writes the copies back, or
 * throws them away.
 */
#ifndef WEIR_STRATEGY_H
#define WEIR_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

#include "weir/weir.h"

struct weir_lines;

/*
 * The state of one key under one limit: 48 bytes, the second part of a table's cell. All zero is the
 * state of a key never seen. `word` and `line` mean what the strategy says they mean; the rest belongs
 * to every strategy alike.
 */
struct weir_state {
    int64_t expires_ns; /* from this moment on the state says the same as all zero */
    int64_t word[3];
    uint32_t line[3]; /* moving window: places in the pool of lines */
    uint8_t share;    /* used part of the limit, 0 to 255: the store's, for eviction */
    uint8_t strategy; /* enum weir_strategy: the store's, for the integrity check */
    uint8_t heat;     /* recent denials: the store's, for eviction */
    uint8_t heavy;    /* its place + 1 among the heaviest, or any other number: the store's */
};

_Static_assert(sizeof(struct weir_state) == 48, "a state fills a cell beside its fingerprint");

/* What is asked of a strategy. */
struct weir_step {
    const struct weir_limit *limit; /* valid as by weir_limit_validate() */
    int64_t now_ns;                 /* 0 to WEIR_NOW_MAX */
    int64_t cost;                   /* 0 to 2^63-1 */
    bool charge;                    /* charge an allowed cost; else leave the counter as it is */
    struct weir_lines *lines;       /* the pool as this decision sees it (src/strategy/log/lines.h) */
};

struct weir_strategy_ops {
    const char *name; /* "fixed-window" */
    const char *tag;  /* "fw": in the key names of remote stores */

    /*
     * Brings *state to now_ns (drops what has expired, heals a clock that stepped back), then decides
     * `cost`. When it is allowed and `charge` is set, charges it. Fills every member of *verdict but
     * `reserved`; `remaining` and `reset_at_ns` describe *state as it is left.
     * Returns 0, or WEIR_EFULL when the pool has no line (then *state is of no further use).
     */
    int (*step)(struct weir_state *state, const struct weir_step *step,
                struct weir_verdict *verdict);

    /* Brings *state to now_ns and takes `cost` off again, never above full. Verdict: allowed. */
    int (*refund)(struct weir_state *state, const struct weir_step *step,
                  struct weir_verdict *verdict);
};

/* Indexed by enum weir_strategy. */
extern const struct weir_strategy_ops *const weir_strategies[];
#define WEIR_STRATEGIES 5

extern const struct weir_strategy_ops weir_fixed_window;
extern const struct weir_strategy_ops weir_moving_window;
extern const struct weir_strategy_ops weir_sliding_window_counter;
extern const struct weir_strategy_ops weir_token_bucket;
extern const struct weir_strategy_ops weir_leaky_bucket;

#endif
