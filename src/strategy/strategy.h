/*
 * The interface of a strategy: pure functions over the state of one key, and one row in
 * include/weir/strategies.h. A strategy uses no table, lock or clock.
 *
 * A store passes a *copy* of the state, decides with several limits, and then writes the copies
 * back or discards them.
 */
#ifndef WEIR_STRATEGY_H
#define WEIR_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

#include "weir/weir.h"

struct weir_lines;

/*
 * The state of one key under one limit: 48 bytes, the second part of a table's cell. All zero is
 * the state of a new key. Each strategy defines the meaning of `word` and `line`; the other members
 * are the same for all strategies.
 */
struct weir_state {
    int64_t expires_ns; /* from this moment on, the state means the same as all zero */
    int64_t word[3];
    uint32_t line[3]; /* moving window: places in the pool of lines */
    uint8_t usage;    /* used part of the limit, 0 to 255; set by the store, for eviction */
    uint8_t strategy; /* enum weir_strategy; set by the store, for the integrity check */
    uint8_t denials;  /* recent denials; set by the store, for eviction */
    uint8_t hitter;   /* index + 1 among the heavy hitters, if still there; set by the store */
};

_Static_assert(sizeof(struct weir_state) == 48, "a state fills a cell beside its fingerprint");

/* The arguments of one step. */
struct weir_step {
    const struct weir_limit *limit; /* accepted by weir_limit_validate() */
    int64_t now_ns;                 /* 0 to WEIR_NOW_MAX */
    int64_t cost;                   /* 0 to 2^63-1 */
    bool charge; /* charge the cost if it is allowed; else leave the counter unchanged */
    struct weir_lines *lines; /* the pool as this decision sees it (src/strategy/log/lines.h) */
};

/* How a state is stored as bytes, by remote stores and by stores that use weir/state.h. */
enum weir_packing {
    WEIR_PACK_WORDS, /* expires_ns and word[] */
    WEIR_PACK_LOG,   /* the log as src/strategy/log/flat.c writes it */
};

/*
 * A limit as numbers for the script for Redis, src/remote/decide.lua. Times are whole microseconds.
 */
struct weir_numbers {
    bool wide;         /* the numbers are too large for doubles */
    int64_t number[4]; /* the variables amount, x, y and z; by default amount and period */
    uint64_t most[2]; /* larger costs are replaced by it; lower part first; by default amount + 1 */
};

/*
 * A row of include/weir/strategies.h, filled with the functions of src/strategy/<symbol>.c:
 *
 * step     Updates *state to now_ns (drops expired hits, corrects it if the clock stepped back),
 *          then decides `cost`. If it is allowed and `charge` is set, charges it. Fills every
 *          member of *verdict except `reserved`; `remaining` and `reset_at_ns` describe the
 *          resulting *state.
 *          Returns 0, or WEIR_EFULL if the pool has no line (then *state must not be used).
 * refund   Updates *state to now_ns and returns up to `cost` charged hits. Verdict: allowed.
 * numbers  Changes the default numbers for the script of the strategy, src/strategy/<symbol>.lua.
 */
struct weir_strategy_ops {
    const char *name; /* "fixed-window" */
    const char *tag;  /* "fw": in the key names of remote stores */
    enum weir_packing packing;
    enum weir_shape shape;
    unsigned takes;    /* enum weir_takes */
    const char *words; /* what it does */
    int (*step)(struct weir_state *state, const struct weir_step *step,
                struct weir_verdict *verdict);
    int (*refund)(struct weir_state *state, const struct weir_step *step,
                  struct weir_verdict *verdict);
    void (*numbers)(const struct weir_limit *limit, int64_t now_ns, struct weir_numbers *numbers);
};

#define WEIR_STRATEGY_FUNCTIONS(constant, symbol, name, tag, packing, shape, takes, words)         \
    int weir_##symbol##_step(struct weir_state *state, const struct weir_step *step,               \
                             struct weir_verdict *verdict);                                        \
    int weir_##symbol##_refund(struct weir_state *state, const struct weir_step *step,             \
                               struct weir_verdict *verdict);                                      \
    void weir_##symbol##_numbers(const struct weir_limit *limit, int64_t now_ns,                   \
                                 struct weir_numbers *numbers);
WEIR_STRATEGY_ROWS(WEIR_STRATEGY_FUNCTIONS)
#undef WEIR_STRATEGY_FUNCTIONS

enum {
#define WEIR_STRATEGY_ONE(constant, symbol, name, tag, packing, shape, takes, words) +1
    WEIR_STRATEGIES = 0 WEIR_STRATEGY_ROWS(WEIR_STRATEGY_ONE)
#undef WEIR_STRATEGY_ONE
};

/* Whether a strategy takes an option. With a constant option, one test of bits. */
static inline bool weir_takes(uint32_t strategy, unsigned option) {
    unsigned taking = 0;
#define WEIR_STRATEGY_TAKES(constant, symbol, name, tag, packing, shape, takes, words)             \
    taking |= (takes) & option ? 1U << WEIR_##constant : 0;
    WEIR_STRATEGY_ROWS(WEIR_STRATEGY_TAKES)
#undef WEIR_STRATEGY_TAKES
    return strategy < WEIR_STRATEGIES && (taking >> strategy & 1);
}

/* Writes that an option, as `name`, is for the strategies that take it. Returns WEIR_EINVAL. */
int weir_strategy_refuse(int strategy, unsigned option, const char *name, struct weir_error *error);

/* The most requests at once. */
static inline int64_t weir_limit_size(const struct weir_limit *limit) {
    return limit->burst && weir_takes((uint32_t)limit->strategy, WEIR_TAKES_BURST) ? limit->burst
                                                                                   : limit->amount;
}

/*
 * Calls the function of the limit's strategy directly, without a function pointer. WEIR_EINVAL: no
 * such strategy.
 */
static inline int weir_strategy_step(struct weir_state *state, const struct weir_step *step,
                                     struct weir_verdict *verdict) {
    switch (step->limit->strategy) {
#define WEIR_STRATEGY_CASE(constant, symbol, name, tag, packing, shape, takes, words)              \
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
#define WEIR_STRATEGY_CASE(constant, symbol, name, tag, packing, shape, takes, words)              \
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
