/*
 * What a strategy is to the rest of libweir: pure functions over the state of one key, and one row in
 * include/weir/strategies.h. A strategy knows no table, no lock, no clock.
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
    uint8_t usage;    /* used part of the limit, 0 to 255: the store's, for eviction */
    uint8_t strategy; /* enum weir_strategy: the store's, for the integrity check */
    uint8_t denials;  /* recent denials: the store's, for eviction */
    uint8_t hitter;   /* its place + 1 among the heavy hitters, or any other number: the store's */
};

_Static_assert(sizeof(struct weir_state) == 48, "a state fills a cell beside its fingerprint");

/* What is asked of a strategy. */
struct weir_step {
    const struct weir_limit *limit; /* valid as by weir_limit_validate() */
    int64_t now_ns;                 /* 0 to WEIR_NOW_MAX */
    int64_t cost;                   /* 0 to 2^63-1 */
    bool charge;                    /* charge an allowed cost; else leave the counter as it is */
    struct weir_lines *lines; /* the pool as this decision sees it (src/strategy/log/lines.h) */
};

/* How a state is packed where it is kept as bytes: by remote stores, or by a store of one's own. */
enum weir_packing {
    WEIR_PACK_WORDS, /* expires_ns and word[] */
    WEIR_PACK_LOG,   /* what src/strategy/log/flat.c makes of lines of hits */
};

/* A limit as the script for Redis wants it: src/remote/decide.lua. Times are whole microseconds. */
struct weir_numbers {
    bool wide;         /* too large for doubles */
    int64_t number[4]; /* the variables amount, x, y and z; amount and the period unless changed */
    uint64_t
        most[2]; /* costs above it are taken for it; least part first: amount + 1 unless changed */
};

/*
 * A row of include/weir/strategies.h, filled with the functions of src/strategy/<symbol>.c:
 *
 * step     Brings *state to now_ns (drops what has expired, heals a clock that stepped back), then decides
 *          `cost`. When it is allowed and `charge` is set, charges it. Fills every member of *verdict but
 *          `reserved`; `remaining` and `reset_at_ns` describe *state as it is left.
 *          Returns 0, or WEIR_EFULL when the pool has no line (then *state is of no further use).
 * refund   Brings *state to now_ns and takes `cost` off again, never above full. Verdict: allowed.
 * numbers  Changes what the script's piece, src/strategy/<symbol>.lua, wants otherwise.
 */
struct weir_strategy_ops {
    const char *name; /* "fixed-window" */
    const char *tag;  /* "fw": in the key names of remote stores */
    enum weir_packing packing;
    enum weir_shape shape;
    const char *words; /* what it does */
    int (*step)(struct weir_state *state, const struct weir_step *step,
                struct weir_verdict *verdict);
    int (*refund)(struct weir_state *state, const struct weir_step *step,
                  struct weir_verdict *verdict);
    void (*numbers)(const struct weir_limit *limit, int64_t now_ns, struct weir_numbers *numbers);
};

#define WEIR_STRATEGY_FUNCTIONS(constant, symbol, name, tag, packing, shape, words)                \
    int weir_##symbol##_step(struct weir_state *state, const struct weir_step *step,               \
                             struct weir_verdict *verdict);                                        \
    int weir_##symbol##_refund(struct weir_state *state, const struct weir_step *step,             \
                               struct weir_verdict *verdict);                                      \
    void weir_##symbol##_numbers(const struct weir_limit *limit, int64_t now_ns,                   \
                                 struct weir_numbers *numbers);
WEIR_STRATEGY_ROWS(WEIR_STRATEGY_FUNCTIONS)
#undef WEIR_STRATEGY_FUNCTIONS

enum {
#define WEIR_STRATEGY_ONE(constant, symbol, name, tag, packing, shape, words) +1
    WEIR_STRATEGIES = 0 WEIR_STRATEGY_ROWS(WEIR_STRATEGY_ONE)
#undef WEIR_STRATEGY_ONE
};

/* A call of the limit's strategy, by name, so that it needs no pointer. WEIR_EINVAL: there is none such. */
static inline int weir_strategy_step(struct weir_state *state, const struct weir_step *step,
                                     struct weir_verdict *verdict) {
    switch (step->limit->strategy) {
#define WEIR_STRATEGY_CASE(constant, symbol, name, tag, packing, shape, words)                     \
    case WEIR_##constant:                                                                          \
        return weir_##symbol##_step(state, step, verdict);
        WEIR_STRATEGY_ROWS(WEIR_STRATEGY_CASE)
#undef WEIR_STRATEGY_CASE
    default:
        return WEIR_EINVAL;
    }
}

static inline int weir_strategy_refund(struct weir_state *state, const struct weir_step *step,
                                       struct weir_verdict *verdict) {
    switch (step->limit->strategy) {
#define WEIR_STRATEGY_CASE(constant, symbol, name, tag, packing, shape, words)                     \
    case WEIR_##constant:                                                                          \
        return weir_##symbol##_refund(state, step, verdict);
        WEIR_STRATEGY_ROWS(WEIR_STRATEGY_CASE)
#undef WEIR_STRATEGY_CASE
    default:
        return WEIR_EINVAL;
    }
}

/* Indexed by enum weir_strategy. */
extern const struct weir_strategy_ops *const weir_strategies[WEIR_STRATEGIES];

#endif
