/* sliding-window-counter: still the fixed window's counting; the real one replaces this file. */
#include "strategy/strategy.h"

static int step_stub(struct weir_state *state, const struct weir_step *step,
                     struct weir_verdict *verdict) {
    return weir_fixed_window.step(state, step, verdict);
}

static int refund_stub(struct weir_state *state, const struct weir_step *step,
                       struct weir_verdict *verdict) {
    return weir_fixed_window.refund(state, step, verdict);
}

const struct weir_strategy_ops weir_sliding_window_counter = {
    .name = "sliding-window-counter",
    .tag = "sw",
    .step = step_stub,
    .refund = refund_stub,
};
