/*
 * Fixed window: counts the hits of a window that starts with a key's first hit and lasts one
 * period.
 *
 *     hit     hit hit          | hit
 *     |-------- period --------|-------- period --------|
 *     start                    end; the next hit starts a new window
 *
 * The state is that of strategy/window.h.
 *
 * Two windows may be adjacent, so an interval of one period may contain up to 2 x amount hits. If
 * the clock steps back to before the start of the window, the window moves with it: its end is
 * never further away than one period.
 */
#include "strategy/strategy.h"
#include "strategy/window.h"

/* Updates the state to now. Returns the end of the window in which a hit would be counted. */
static int64_t settle(struct weir_state *state, const struct weir_step *step) {
    int64_t end_ns = step->now_ns + step->limit->period_ns;
    if (weir_window_refresh(state, step) && state->expires_ns > end_ns)
        state->expires_ns = end_ns;
    return state->word[0] ? state->expires_ns : end_ns;
}

int weir_fixed_window_step(struct weir_state *state, const struct weir_step *step,
                           struct weir_verdict *verdict) {
    return weir_window_step(state, step, settle(state, step), verdict);
}

int weir_fixed_window_refund(struct weir_state *state, const struct weir_step *step,
                             struct weir_verdict *verdict) {
    settle(state, step);
    return weir_window_refund(state, step, verdict);
}

void weir_fixed_window_numbers(const struct weir_limit *limit, int64_t now_ns,
                               struct weir_numbers *numbers) {
    (void)limit;
    (void)now_ns;
    (void)numbers;
}
