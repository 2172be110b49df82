/*
 * Fixed window: counts the hits of a window that starts with a key's first hit and lasts one period.
 *
 *     hit     hit hit          | hit
 *     |-------- period --------|-------- period --------|
 *     start                    end; the next hit starts a new window
 *
 * word[0]     charged hits, 1 to amount (0: there is no window)
 * expires_ns  the end of the window
 *
 * Two windows may be adjacent, so an interval of one period may contain up to 2 x amount hits. If the clock
 * steps back to before the start of the window, the window moves with it: its end is never further away
 * than one period.
 */
#include "strategy/strategy.h"

static void settle(struct weir_state *state, const struct weir_step *step) {
    if (state->expires_ns <= step->now_ns) {
        state->expires_ns = 0;
        state->word[0] = 0;
    } else if (state->expires_ns - step->now_ns > step->limit->period_ns) {
        state->expires_ns = step->now_ns + step->limit->period_ns;
    }
    if (state->word[0] < 0 || state->word[0] > step->limit->amount) /* damaged: deny */
        state->word[0] = step->limit->amount;
}

static void report(const struct weir_state *state, const struct weir_step *step,
                   struct weir_verdict *verdict) {
    verdict->limit = step->limit->amount;
    verdict->remaining = step->limit->amount - state->word[0];
    verdict->reset_at_ns = state->word[0] ? state->expires_ns : step->now_ns;
    verdict->delay_ns = 0;
}

int weir_fixed_window_step(struct weir_state *state, const struct weir_step *step,
                           struct weir_verdict *verdict) {
    settle(state, step);
    int64_t room = step->limit->amount - state->word[0];
    verdict->allowed = step->cost <= room;
    verdict->retry_after_ns = 0;
    if (!verdict->allowed) {
        verdict->retry_after_ns =
            step->cost > step->limit->amount ? WEIR_NEVER : state->expires_ns - step->now_ns;
    } else if (step->charge && step->cost > 0) {
        if (state->word[0] == 0)
            state->expires_ns = step->now_ns + step->limit->period_ns;
        state->word[0] += step->cost;
    }
    report(state, step, verdict);
    return 0;
}

int weir_fixed_window_refund(struct weir_state *state, const struct weir_step *step,
                             struct weir_verdict *verdict) {
    settle(state, step);
    state->word[0] -= step->cost < state->word[0] ? step->cost : state->word[0];
    if (state->word[0] == 0)
        state->expires_ns = 0;
    verdict->allowed = 1;
    verdict->retry_after_ns = 0;
    report(state, step, verdict);
    return 0;
}

void weir_fixed_window_numbers(const struct weir_limit *limit, int64_t now_ns,
                               struct weir_numbers *numbers) {
    (void)limit;
    (void)now_ns;
    (void)numbers;
}
