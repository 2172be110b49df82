/*
 * The level that both buckets share: how much of a bucket is in use, as an exact number.
 *
 *     level  = hits x period          one hit of cost 1 adds period_ns units
 *     drains = amount units per ns    `amount` hits drain in a period
 *
 *     level
 *       |\
 *       | \      |\         TAT = last + level / amount
 *       |  \     | \
 *       |   \    |  \
 *       |    \___|   \
 *       +-------------\---- time
 *                     TAT
 *
 * GCRA (ITU-T I.371, virtual scheduling) stores the *time* at which the level reaches zero, its
 * TAT. TAT is a rational number: with 7 hits per second, a token takes 142857142 and 6/7 ns.
 * Rounded to whole ns, it would gain or lose quota with every hit. Level and time of the last
 * request contain the same information in integers, without rounding, and the verdict needs only
 * products, no quotient.
 *
 * word[0]     level at last_ns, lower 63 bits
 * word[1]     the upper bits of the level: burst x period has up to 125 bits
 * word[2]     last_ns
 * expires_ns  TAT, rounded up, at most INT64_MAX
 *
 * Invariants: the level is at most the caller's `most`; a level of 0 is stored as all zero; a
 * request that charges nothing leaves the words unchanged, unless they were wrong or all has
 * drained. Cost: a hit takes three or four products and two quotients, of 64 bits unless the level
 * is longer.
 */
#ifndef WEIR_LEVEL_H
#define WEIR_LEVEL_H

#include "strategy/exact.h"
#include "strategy/numbers.h"
#include "strategy/strategy.h"

/* The level at the time of a request. */
struct weir_level {
    weir_u128 level; /* at now */
    bool changed; /* is to be stored: charged, given back, clock stepped back, or all has drained */
};

/*
 * The level of *state at step->now_ns, from 0 to `most` (below 2^126). At a time before last_ns,
 * the level is higher by what drains until last_ns, so the TAT is the same. `most` limits the
 * effect of a clock that stepped back, and of a damaged state.
 */
static inline struct weir_level weir_level_at(const struct weir_state *state,
                                              const struct weir_step *step, weir_u128 most) {
    weir_u128 level = ((weir_u128)(uint64_t)state->word[1] << 63) + (uint64_t)state->word[0];
    int64_t last_ns = state->word[2];
    bool some = level > 0, stale = level > most || last_ns < 0;
    if (level > most)
        level = most;
    if (last_ns <= step->now_ns) {
        weir_u128 drained =
            weir_mul(step->limit->amount, step->now_ns - (last_ns < 0 ? 0 : last_ns));
        level = level > drained ? level - drained : 0;
    } else if (some) {
        level += weir_mul(step->limit->amount, last_ns - step->now_ns);
    }
    if (level > most)
        return (struct weir_level){most, true};
    return (struct weir_level){level, stale || (some && level == 0)};
}

/* The time at which the level reaches zero, rounded up; now_ns if it is zero. */
static inline int64_t weir_level_empty_ns(weir_u128 level, const struct weir_step *step) {
    return level ? weir_add(step->now_ns, weir_div_up(level, step->limit->amount)) : step->now_ns;
}

/* Stores `level` as the level at step->now_ns. */
static inline void weir_level_keep(struct weir_state *state, const struct weir_step *step,
                                   weir_u128 level, int64_t empty_ns) {
    state->word[0] = (int64_t)((uint64_t)level & INT64_MAX);
    state->word[1] = (int64_t)(level >> 63);
    state->word[2] = level ? step->now_ns : 0;
    state->expires_ns = level ? empty_ns : 0;
}

/* Returns the hits of step->cost. */
static inline void weir_level_give_back(struct weir_level *level, const struct weir_step *step) {
    weir_u128 back = weir_mul(step->cost, step->limit->period_ns);
    level->level -= level->level < back ? level->level : back;
    level->changed = true;
}

/* Completes the verdict, and stores the level if it has changed. */
static inline void weir_level_finish(struct weir_state *state, const struct weir_step *step,
                                     const struct weir_level *level, struct weir_verdict *verdict) {
    verdict->reset_at_ns = weir_level_empty_ns(level->level, step);
    if (level->changed)
        weir_level_keep(state, step, level->level, verdict->reset_at_ns);
}

/*
 * Numbers for the script, which counts a level in units of gcd(amount, period), so that a million
 * per day is not wide. second: tokens, or the longest wait. most_hits: the largest level plus the
 * largest charge, in hits.
 */
static inline void weir_level_numbers(const struct weir_limit *limit, int64_t second,
                                      weir_u128 most_hits, struct weir_numbers *numbers) {
    int64_t period_us = weir_period_us(limit), unit = period_us, rest = limit->amount;
    while (rest > 0) {
        int64_t next = unit % rest;
        unit = rest;
        rest = next;
    }
    numbers->wide |= most_hits > WEIR_DOUBLE_LEVEL_MAX / (weir_u128)(period_us / unit);
    numbers->number[1] = second;
    numbers->number[2] = limit->amount / unit;
    numbers->number[3] = period_us / unit;
}

#endif
