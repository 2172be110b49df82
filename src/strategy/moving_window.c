/*
 * Moving window: never more than `amount` hits in any half-open interval of one period. Every
 * admitted hit is kept until it is one period old.
 *
 *     hits  |  ||    |       | ||         |
 *              ^-------- period ----------now
 *              (first of them to leave: at its time + period)
 *
 * The log itself is src/strategy/log/log.c; the state's words and lines are its. expires_ns is the newest hit's
 * time + period, which is also how the newest hit's time is known.
 *
 * Clock: a call from up to WEIR_SKEW_NS before the newest hit is counted at that hit's time, since
 * times never decrease in the log. From further back, every hit that lies in the future is brought
 * to now: none is forgotten, and none stays longer than a period.
 *
 * A step that may not charge looks through the log without changing it or *state; what has expired
 * is then dropped by the next one that may. Refunds take the newest hits first.
 *
 * Cost: O(1) amortised; O(log n) to find where a denied cost above 1 would fit, or after a long
 * pause.
 */
#include "strategy/log/log.h"
#include "strategy/exact.h"
#include "strategy/numbers.h"
#include "strategy/strategy.h"

/* Reads the log and brings it to now. *at_ns: the moment that counts, now or a little later. */
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

/* From now to when enough of the oldest hits have left for `cost`. */
static int wait_ns(const struct weir_log *log, const struct weir_step *step,
                   int64_t *retry_after_ns) {
    int64_t time_ns,
        beside = step->limit->amount - step->cost; /* hits that may be there beside it */
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
