/*
 * Sliding window counter: windows have fixed bounds, aligned to the epoch. The count of the
 * previous window is weighted by the part of it that overlaps the period that ends now.
 *
 *        previous            current
 *     |------------------|------------------|
 *              [============ period ======now]        use = cur + prev x (period - e) / period
 *              ^ this share of prev |-- e --|
 *
 * word[0]     index of the current window: time / period
 * word[1]     hits charged in it
 * word[2]     hits charged in the previous window
 * expires_ns  the end of the last window in which one of them has weight, at most INT64_MAX
 *
 * The use is an exact rational number that is rounded up, never down, so the limit holds at the
 * start of a window, too. cur and prev are each at most amount. Refunds are taken from cur first,
 * then from prev.
 *
 * Clock: a call up to WEIR_SKEW_NS before the state's window is counted at the first moment of that
 * window. If a call is earlier, the clock stepped back: all counts move to the window of that call.
 * No hit is granted twice, and no wait is longer than from a full window. Cost: a product and a
 * quotient, of 64 bits if prev x period fits.
 */
#include "strategy/exact.h"
#include "strategy/numbers.h"
#include "strategy/strategy.h"

struct window {
    int64_t index, cur, prev;
    uint64_t start_ns;
    uint64_t at_ns; /* now, or the start of the window if now is a little before it */
};

static struct window current_window(const struct weir_state *state, const struct weir_step *step) {
    int64_t amount = step->limit->amount, period_ns = step->limit->period_ns;
    int64_t index = step->now_ns / period_ns, was = state->word[0];
    int64_t cur = state->word[1] < 0 ? 0 : weir_min(state->word[1], amount);
    int64_t prev = state->word[2] < 0 ? 0 : weir_min(state->word[2], amount);
    struct window window = {.index = index, .at_ns = (uint64_t)step->now_ns};
    bool early = was == index + 1 && was * period_ns - step->now_ns <= WEIR_SKEW_NS;
    if (early) {
        window.index = was;
        window.at_ns = (uint64_t)(was * period_ns);
    }
    if (was == window.index) {
        window.cur = cur;
        window.prev = prev;
    } else if (was > index) {
        window.cur = cur > amount - prev ? amount : cur + prev;
    } else if (was == index - 1) {
        window.prev = cur;
    }
    window.start_ns = (uint64_t)(window.index * period_ns);
    return window;
}

/* Hits in use at at_ns, rounded up. May exceed INT64_MAX, and amount if at_ns was moved forward. */
static uint64_t used(const struct window *window, int64_t period_ns) {
    int64_t left = period_ns - (int64_t)(window->at_ns - window->start_ns);
    int64_t share = window->prev ? weir_div_up(weir_mul(window->prev, left), period_ns) : 0;
    return (uint64_t)window->cur + (uint64_t)share;
}

/*
 * The first moment at which `hits`, of a window that ends at end_ns, weigh at most `room`.
 * UINT64_MAX: not before their weight is zero.
 */
static uint64_t lighter_at(int64_t hits, int64_t room, uint64_t end_ns, int64_t period_ns) {
    if (hits <= room)
        return 0;
    int64_t left = weir_div_down(weir_mul(room, period_ns), hits);
    return left ? end_ns - (uint64_t)left : UINT64_MAX;
}

/* The first moment, at_ns or later, with room for `cost`, which is at most amount. */
static uint64_t room_at(const struct window *window, const struct weir_limit *limit, int64_t cost) {
    uint64_t period_ns = (uint64_t)limit->period_ns, end_ns = window->start_ns + period_ns;
    int64_t room = limit->amount - cost;
    if (window->cur <= room) {
        uint64_t at = lighter_at(window->prev, room - window->cur, end_ns, limit->period_ns);
        if (at != UINT64_MAX)
            return at > window->at_ns ? at : window->at_ns;
    }
    uint64_t at = lighter_at(window->cur, room, end_ns + period_ns, limit->period_ns);
    if (at == UINT64_MAX)
        return end_ns + period_ns;
    return at > end_ns ? at : end_ns;
}

static void finish(struct weir_state *state, const struct weir_step *step,
                   const struct window *window, struct weir_verdict *verdict) {
    const struct weir_limit *limit = step->limit;
    uint64_t period_ns = (uint64_t)limit->period_ns, use = used(window, limit->period_ns);
    bool any = window->cur || window->prev;
    verdict->limit = limit->amount;
    verdict->remaining = use < (uint64_t)limit->amount ? limit->amount - (int64_t)use : 0;
    verdict->reset_at_ns =
        any ? weir_saturate(room_at(window, limit, verdict->remaining + 1)) : step->now_ns;
    verdict->delay_ns = 0;
    state->word[0] = any ? window->index : 0;
    state->word[1] = window->cur;
    state->word[2] = window->prev;
    state->expires_ns =
        any ? weir_saturate(window->start_ns + period_ns + (window->cur ? period_ns : 0)) : 0;
}

int weir_sliding_window_counter_step(struct weir_state *state, const struct weir_step *step,
                                     struct weir_verdict *verdict) {
    const struct weir_limit *limit = step->limit;
    struct window window = current_window(state, step);
    uint64_t use = used(&window, limit->period_ns);
    verdict->allowed = step->cost == 0 || (step->cost <= limit->amount &&
                                           use <= (uint64_t)(limit->amount - step->cost));
    verdict->retry_after_ns = 0;
    if (!verdict->allowed)
        verdict->retry_after_ns =
            step->cost > limit->amount
                ? WEIR_NEVER
                : (int64_t)(room_at(&window, limit, step->cost) - (uint64_t)step->now_ns);
    else if (step->charge)
        window.cur += step->cost;
    finish(state, step, &window, verdict);
    return 0;
}

int weir_sliding_window_counter_refund(struct weir_state *state, const struct weir_step *step,
                                       struct weir_verdict *verdict) {
    struct window window = current_window(state, step);
    int64_t from_cur = weir_min(step->cost, window.cur);
    window.cur -= from_cur;
    window.prev -= weir_min(step->cost - from_cur, window.prev);
    verdict->allowed = 1;
    verdict->retry_after_ns = 0;
    finish(state, step, &window, verdict);
    return 0;
}

#define SCALE_COUNT_MAX (INT64_C(1) << 40) /* the most that the script's make_scale() can scale */
#define SCALE_PERIOD_MAX_US (INT64_C(1) << 42)

void weir_sliding_window_counter_numbers(const struct weir_limit *limit, int64_t now_ns,
                                         struct weir_numbers *numbers) {
    int64_t period_us = weir_period_us(limit);
    (void)now_ns;
    numbers->wide |= weir_mul(limit->amount, period_us) > 2 * WEIR_DOUBLE_LEVEL_MAX &&
                     (limit->amount >= SCALE_COUNT_MAX || period_us >= SCALE_PERIOD_MAX_US);
}
