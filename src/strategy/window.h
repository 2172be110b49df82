/*
 * What the fixed and the calendar window share: hits counted until a window ends. They differ only
 * in when it ends.
 *
 * word[0]     charged hits, 1 to amount (0: nothing is charged)
 * expires_ns  the end of the window
 */
#ifndef WEIR_WINDOW_H
#define WEIR_WINDOW_H

#include "strategy/strategy.h"

/*
 * Removes the hits of a window that has ended, and corrects a damaged count. Returns whether a
 * window is open.
 */
static inline bool weir_window_refresh(struct weir_state *state, const struct weir_step *step) {
    if (state->word[0] < 0 || state->word[0] > step->limit->amount) /* damaged: deny */
        state->word[0] = step->limit->amount;
    if (state->expires_ns > step->now_ns)
        return true;
    state->expires_ns = 0;
    state->word[0] = 0;
    return false;
}

static inline void weir_window_report(const struct weir_state *state, const struct weir_step *step,
                                      struct weir_verdict *verdict) {
    verdict->limit = step->limit->amount;
    verdict->remaining = step->limit->amount - state->word[0];
    verdict->reset_at_ns = state->word[0] ? state->expires_ns : step->now_ns;
    verdict->delay_ns = 0;
}

/* Decides a refreshed state. end_ns: the end of the window in which the hit would be counted. */
static inline int weir_window_step(struct weir_state *state, const struct weir_step *step,
                                   int64_t end_ns, struct weir_verdict *verdict) {
    verdict->allowed = step->cost <= step->limit->amount - state->word[0];
    verdict->retry_after_ns = 0;
    if (!verdict->allowed) {
        verdict->retry_after_ns =
            step->cost > step->limit->amount ? WEIR_NEVER : end_ns - step->now_ns;
    } else if (step->charge && step->cost > 0) {
        state->expires_ns = end_ns;
        state->word[0] += step->cost;
    }
    weir_window_report(state, step, verdict);
    return 0;
}

/* Returns hits to a refreshed state. */
static inline int weir_window_refund(struct weir_state *state, const struct weir_step *step,
                                     struct weir_verdict *verdict) {
    state->word[0] -= step->cost < state->word[0] ? step->cost : state->word[0];
    if (state->word[0] == 0)
        state->expires_ns = 0;
    verdict->allowed = 1;
    verdict->retry_after_ns = 0;
    weir_window_report(state, step, verdict);
    return 0;
}

#endif
