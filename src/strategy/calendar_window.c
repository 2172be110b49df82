/*
 * Calendar window: a fixed window whose bounds are midnights in a time zone (src/calendar.c),
 * independent of hits.
 *
 *     hit     hit hit |          hit | hit
 *     ---- a day -----|---- a day ---|---- a day ----
 *                  midnight       midnight
 *
 * The state is that of strategy/window.h.
 *
 * Clock: a call up to WEIR_SKEW_NS before the state's window is counted in that window, which an
 * earlier call started. If a call is earlier, the clock stepped back: all counts move to the window
 * of that call. No hit is granted twice, and no wait is longer than to the end of that window.
 */
#include "calendar.h"
#include "strategy/numbers.h"
#include "strategy/strategy.h"
#include "strategy/window.h"

/* Updates the state to now. Returns the end of the effective window. */
static int64_t settle(struct weir_state *state, const struct weir_step *step) {
    struct weir_window window = weir_calendar_window(step->limit, step->now_ns);
    int64_t end_ns = window.end_ns;
    if (weir_window_refresh(state, step)) {
        if (state->expires_ns == window.next_ns && end_ns - step->now_ns <= WEIR_SKEW_NS)
            end_ns = window.next_ns;
        state->expires_ns = end_ns;
    }
    return end_ns;
}

int weir_calendar_window_step(struct weir_state *state, const struct weir_step *step,
                              struct weir_verdict *verdict) {
    return weir_window_step(state, step, settle(state, step), verdict);
}

int weir_calendar_window_refund(struct weir_state *state, const struct weir_step *step,
                                struct weir_verdict *verdict) {
    settle(state, step);
    return weir_window_refund(state, step, verdict);
}

/*
 * The bounds of the window at the caller's time and of the next one. The script chooses by the
 * server's time.
 */
void weir_calendar_window_numbers(const struct weir_limit *limit, int64_t now_ns,
                                  struct weir_numbers *numbers) {
    struct weir_window window = weir_calendar_window(limit, now_ns);
    numbers->number[1] = window.start_ns / WEIR_NS_PER_US;
    numbers->number[2] = window.end_ns / WEIR_NS_PER_US;
    numbers->number[3] = window.next_ns / WEIR_NS_PER_US;
}
