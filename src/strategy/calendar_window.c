/*
 * Calendar window: a fixed window whose bounds are midnights in a time zone (src/calendar.c), independent of hits.
 *
 *     hit     hit hit |          hit | hit
 *     ---- a day -----|---- a day ---|---- a day ----
 *                  midnight       midnight
 *
 * word[0]     charged hits, 1 to amount (0: nothing is charged)
 * expires_ns  the end of the window
 *
 * Clock: a call up to WEIR_SKEW_NS before the state's window is counted in that window, which an earlier call
 * started. If a call is earlier, the clock stepped back: all counts move to the window of that call. No hit is
 * granted twice, and no wait is longer than to the end of that window.
 */
#include "calendar.h"
#include "strategy/numbers.h"
#include "strategy/strategy.h"

/* Updates the state to now. Returns the end of the effective window. */
static int64_t settle(struct weir_state *state, const struct weir_step *step) {
    struct weir_window window = weir_calendar_window(step->limit, step->now_ns);
    int64_t end_ns = window.end_ns;
    if (state->expires_ns <= step->now_ns) {
        state->expires_ns = 0;
        state->word[0] = 0;
    } else {
        if (state->expires_ns == window.next_ns && end_ns - step->now_ns <= WEIR_SKEW_NS)
            end_ns = window.next_ns;
        state->expires_ns = end_ns;
    }
    if (state->word[0] < 0 || state->word[0] > step->limit->amount) /* damaged: deny */
        state->word[0] = step->limit->amount;
    return end_ns;
}

static void report(const struct weir_state *state, const struct weir_step *step,
                   struct weir_verdict *verdict) {
    verdict->limit = step->limit->amount;
    verdict->remaining = step->limit->amount - state->word[0];
    verdict->reset_at_ns = state->word[0] ? state->expires_ns : step->now_ns;
    verdict->delay_ns = 0;
}

int weir_calendar_window_step(struct weir_state *state, const struct weir_step *step,
                              struct weir_verdict *verdict) {
    int64_t end_ns = settle(state, step);
    verdict->allowed = step->cost <= step->limit->amount - state->word[0];
    verdict->retry_after_ns = 0;
    if (!verdict->allowed) {
        verdict->retry_after_ns =
            step->cost > step->limit->amount ? WEIR_NEVER : end_ns - step->now_ns;
    } else if (step->charge && step->cost > 0) {
        state->expires_ns = end_ns;
        state->word[0] += step->cost;
    }
    report(state, step, verdict);
    return 0;
}

int weir_calendar_window_refund(struct weir_state *state, const struct weir_step *step,
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

/* The bounds of the window at the caller's time and of the next one. The script chooses by the server's time. */
void weir_calendar_window_numbers(const struct weir_limit *limit, int64_t now_ns,
                                  struct weir_numbers *numbers) {
    struct weir_window window = weir_calendar_window(limit, now_ns);
    numbers->number[1] = window.start_ns / WEIR_NS_PER_US;
    numbers->number[2] = window.end_ns / WEIR_NS_PER_US;
    numbers->number[3] = window.next_ns / WEIR_NS_PER_US;
}
