/*
 * Moving window: at most `amount` hits in any half-open interval of one period. Every admitted hit
 * is kept until it is one period old.
 *
 *     hits  |  ||    |       | ||         |
 *              ^-------- period ----------now
 *              (the next hit to expire: at its time + period)
 *
 * src/strategy/log/log.c implements the log and defines the state's words and lines. expires_ns is
 * the time of the newest hit + period; the time of the newest hit is computed from it.
 *
 * Clock: a call up to WEIR_SKEW_NS before the newest hit is counted at the time of that hit,
 * because times never decrease in the log. If a call is earlier, the clock stepped back: hits in
 * the future are moved to now. No hit is lost, and none is kept longer than a period.
 *
 * A step that does not charge reads the log without changing it or *state; the next step that
 * charges removes the expired hits. Refunds take the newest hits first.
 *
 * Cost: O(1) amortised; O(log n) to find the time at which a denied cost above 1 fits, or after a
 * long pause.
 */
#include "strategy/log/log.h"
#include "strategy/exact.h"
#include "strategy/numbers.h"
#include "strategy/strategy.h"

/* Reads the log and updates it to now. *at_ns: the effective time, now or a little later. */
static int settle(struct weir_log *log, const struct weir_state *state,
                  const struct weir_step *step, bool dry, int64_t *at_ns) {
    int64_t period_ns = step->limit->period_ns;
    int64_t newest_ns = state->expires_ns < 0 ? -1 : state->expires_ns - period_ns;
    int rc = weir_log_read(log, state, step->lines, newest_ns, dry);
    *at_ns = step->now_ns;
    if (rc < 0 || log->total == 0)
        return rc;
    if (log->newest_ns > step->now_ns + WEIR_SKEW_NS)
        rc = weir_log_bring_back(log, step->now_ns);
    else if (log->newest_ns > step->now_ns)
        *at_ns = log->newest_ns;
    return rc < 0 ? rc : weir_log_expire(log, *at_ns - period_ns);
}

static void report(const struct weir_log *log, const struct weir_step *step,
                   struct weir_verdict *verdict) {
    const struct weir_limit *limit = step->limit;
    verdict->limit = limit->amount;
    verdict->remaining = log->total < limit->amount ? limit->amount - log->total : 0;
    verdict->reset_at_ns = log->total ? log->oldest_ns + limit->period_ns : step->now_ns;
    verdict->delay_ns = 0;
}

/* The time from now until enough of the oldest hits have expired for `cost`. */
static int wait_ns(const struct weir_log *log, const struct weir_step *step,
                   int64_t *retry_after_ns) {
    int64_t time_ns,
        beside = step->limit->amount - step->cost; /* hits that fit in addition to it */
    *retry_after_ns = WEIR_NEVER;
    if (beside < 0)
        return 0;
    int rc = weir_log_time_of(log, log->total - beside, &time_ns);
    *retry_after_ns = time_ns + step->limit->period_ns - step->now_ns;
    return rc;
}

int weir_moving_window_step(struct weir_state *state, const struct weir_step *step,
                            struct weir_verdict *verdict) {
    struct weir_log log;
    int64_t at_ns, amount = step->limit->amount;
    int rc = settle(&log, state, step, !step->charge, &at_ns);
    if (rc < 0)
        return rc;
    verdict->allowed =
        step->cost == 0 || (step->cost <= amount && log.total <= amount - step->cost);
    verdict->retry_after_ns = 0;
    if (!verdict->allowed)
        rc = wait_ns(&log, step, &verdict->retry_after_ns);
    else if (step->charge && step->cost > 0)
        rc = weir_log_add(&log, at_ns, step->cost);
    report(&log, step, verdict);
    if (rc == 0 && step->charge)
        weir_log_save(&log, state, step->limit->period_ns);
    return rc;
}

int weir_moving_window_refund(struct weir_state *state, const struct weir_step *step,
                              struct weir_verdict *verdict) {
    struct weir_log log;
    int64_t at_ns;
    int rc = settle(&log, state, step, false, &at_ns);
    if (rc == 0)
        rc = weir_log_take_back(&log, step->cost);
    if (rc < 0)
        return rc;
    verdict->allowed = 1;
    verdict->retry_after_ns = 0;
    report(&log, step, verdict);
    weir_log_save(&log, state, step->limit->period_ns);
    return 0;
}

void weir_moving_window_numbers(const struct weir_limit *limit, int64_t now_ns,
                                struct weir_numbers *numbers) {
    (void)now_ns;
    numbers->number[2] = weir_bytes_for(weir_period_us(limit));
    numbers->number[3] = weir_bytes_for(limit->amount);
}
