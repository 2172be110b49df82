/*
 * Token bucket: a bucket of `burst` tokens (default `amount`) that refills evenly at `amount` per
 * period; a hit takes `cost` tokens. The state stores the level of the used tokens
 * (strategy/level.h):
 *
 *     burst x period  ---------------------------   no token left
 *                        |\  level
 *                        | \       |\
 *     0               ___|  \______| \__________   full
 *                       hit       hit
 *
 * A hit is allowed if level + cost x period <= burst x period. In any time t, at most burst +
 * amount x t / period tokens are granted: GCRA (ITU-T I.371), without its rounding.
 *
 * If the clock steps back, the level may be above burst x period. It is lowered so that one token
 * is available after one period at the latest: TAT <= now + full drain + (period - time of one
 * token). This bound leaves calls that arrive out of order exact.
 */
#include "strategy/level.h"
#include "strategy/strategy.h"

struct bucket {
    struct weir_level now;
    weir_u128 size;
    int64_t tokens; /* size in tokens */
};

/* The size in tokens; 0 if the amount is 0, since such a bucket never refills. */
static int64_t tokens_of(const struct weir_limit *limit) {
    return limit->amount == 0 ? 0 : limit->burst ? limit->burst : limit->amount;
}

static struct bucket current_bucket(const struct weir_state *state, const struct weir_step *step) {
    const struct weir_limit *limit = step->limit;
    struct bucket bucket = {.tokens = tokens_of(limit)};
    if (limit->amount == 0)
        return bucket;
    bucket.size = weir_mul(bucket.tokens, limit->period_ns);
    weir_u128 slack = weir_mul(limit->amount - 1, limit->period_ns);
    bucket.now = weir_level_at(state, step, bucket.size + slack);
    return bucket;
}

static void finish(struct weir_state *state, const struct weir_step *step,
                   const struct bucket *bucket, struct weir_verdict *verdict) {
    const struct weir_limit *limit = step->limit;
    verdict->limit = limit->burst ? limit->burst : limit->amount;
    verdict->remaining = bucket->now.level < bucket->size
                             ? bucket->tokens - weir_div_up(bucket->now.level, limit->period_ns)
                             : 0;
    verdict->delay_ns = 0;
    weir_level_finish(state, step, &bucket->now, verdict);
}

int weir_token_bucket_step(struct weir_state *state, const struct weir_step *step,
                           struct weir_verdict *verdict) {
    struct bucket bucket = current_bucket(state, step);
    weir_u128 after = bucket.now.level + weir_mul(step->cost, step->limit->period_ns);
    verdict->allowed = step->cost == 0 || (step->cost <= bucket.tokens && after <= bucket.size);
    verdict->retry_after_ns = 0;
    if (!verdict->allowed)
        verdict->retry_after_ns = step->cost > bucket.tokens
                                      ? WEIR_NEVER
                                      : weir_div_up(after - bucket.size, step->limit->amount);
    else if (step->charge && step->cost > 0)
        bucket.now = (struct weir_level){after, true};
    finish(state, step, &bucket, verdict);
    return 0;
}

int weir_token_bucket_refund(struct weir_state *state, const struct weir_step *step,
                             struct weir_verdict *verdict) {
    struct bucket bucket = current_bucket(state, step);
    weir_level_give_back(&bucket.now, step);
    verdict->allowed = 1;
    verdict->retry_after_ns = 0;
    finish(state, step, &bucket, verdict);
    return 0;
}

void weir_token_bucket_numbers(const struct weir_limit *limit, int64_t now_ns,
                               struct weir_numbers *numbers) {
    int64_t amount = limit->amount, tokens = tokens_of(limit);
    (void)now_ns;
    numbers->wide |= tokens > WEIR_DOUBLE_COUNT_MAX;
    weir_level_numbers(limit, tokens,
                       (weir_u128)(uint64_t)amount + 2 * (weir_u128)(uint64_t)tokens + 2, numbers);
    if (limit->burst && amount)
        weir_numbers_most(numbers, (weir_u128)(uint64_t)tokens + 1);
}
