/*
 * Leaky bucket: requests leave at even intervals, `amount` per period. A request that can leave
 * within `max_delay` is admitted, with `delay` set; others are denied. The level (strategy/level.h)
 * is the amount that has to drain before the next request may leave:
 *
 *     arrivals   |||     |          |
 *     departures |  |  |  |         |      next free departure = now + level / amount
 *                0  d  2d            0     delay
 *
 * A request is allowed if level <= max_delay x amount, and adds cost x period: the request after
 * one of cost 3 waits for three intervals. max_delay 0 means strict spacing. A request of cost 0
 * uses no interval and waits for none.
 *
 * If the clock steps back, the next free departure is never further away than max_delay + period,
 * which is the most that the largest admitted cost can cause.
 */
#include "strategy/level.h"
#include "strategy/strategy.h"

struct queue {
    struct weir_level now;
    weir_u128 longest; /* the level at which the wait is max_delay */
};

static struct queue current_queue(const struct weir_state *state, const struct weir_step *step) {
    const struct weir_limit *limit = step->limit;
    struct queue queue = {.longest = weir_mul(limit->max_delay_ns, limit->amount)};
    if (limit->amount > 0)
        queue.now =
            weir_level_at(state, step, queue.longest + weir_mul(limit->amount, limit->period_ns));
    return queue;
}

/*
 * The number of hits of cost 1 that would be admitted now: one at the present level and one for
 * each interval up to the longest wait, but at most `amount`.
 */
static int64_t room(const struct queue *queue, const struct weir_limit *limit) {
    if (queue->now.level > queue->longest || limit->amount == 0)
        return 0;
    int64_t turns = weir_div_down(queue->longest - queue->now.level, limit->period_ns);
    return turns < limit->amount ? turns + 1 : limit->amount;
}

static void finish(struct weir_state *state, const struct weir_step *step,
                   const struct queue *queue, struct weir_verdict *verdict) {
    verdict->limit = step->limit->amount;
    verdict->remaining = room(queue, step->limit);
    weir_level_finish(state, step, &queue->now, verdict);
}

int weir_leaky_bucket_step(struct weir_state *state, const struct weir_step *step,
                           struct weir_verdict *verdict) {
    const struct weir_limit *limit = step->limit;
    struct queue queue = current_queue(state, step);
    verdict->allowed =
        step->cost == 0 || (step->cost <= limit->amount && queue.now.level <= queue.longest);
    verdict->retry_after_ns = 0;
    verdict->delay_ns = 0;
    if (!verdict->allowed) {
        verdict->retry_after_ns = step->cost > limit->amount
                                      ? WEIR_NEVER
                                      : weir_div_up(queue.now.level - queue.longest, limit->amount);
    } else if (step->cost > 0) {
        verdict->delay_ns = weir_div_up(queue.now.level, limit->amount);
        if (step->charge) {
            queue.now.level += weir_mul(step->cost, limit->period_ns);
            queue.now.changed = true;
        }
    }
    finish(state, step, &queue, verdict);
    return 0;
}

int weir_leaky_bucket_refund(struct weir_state *state, const struct weir_step *step,
                             struct weir_verdict *verdict) {
    struct queue queue = current_queue(state, step);
    weir_level_give_back(&queue.now, step);
    verdict->allowed = 1;
    verdict->retry_after_ns = 0;
    verdict->delay_ns = 0;
    finish(state, step, &queue, verdict);
    return 0;
}

void weir_leaky_bucket_numbers(const struct weir_limit *limit, int64_t now_ns,
                               struct weir_numbers *numbers) {
    (void)now_ns;
    weir_level_numbers(limit, limit->max_delay_ns / WEIR_NS_PER_US,
                       3 * (weir_u128)(uint64_t)limit->amount + 2, numbers);
}
