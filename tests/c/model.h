/*
 * Simple implementations of the strategies, to compare the library with. Windows keep a list of all
 * admitted hits; buckets keep the TAT of GCRA as a fraction over `amount` in 128 bits. The result
 * at a later time is found by a decision at that time, not by a formula.
 *
 * model_step() decides and, if `charge` is set, charges; model_refund() refunds. Both fill in the
 * verdict.
 */
#ifndef WEIR_TESTS_MODEL_H
#define WEIR_TESTS_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "weir/weir.h"

__extension__ typedef __int128 wide;

#define MODEL_HITS (1 << 21)
#define MODEL_SKEW INT64_C(100000000)

struct model_hit {
    int64_t time_ns; /* sliding window counter: the index of its window */
    int64_t hits;
};

struct model {
    const struct weir_limit *limit;
    struct model_hit *hit; /* oldest first */
    int first, count;      /* hit[first..count) */
    int64_t live;          /* moving window: their sum */
    wide tat;              /* buckets: time x amount; below now: empty */
    int64_t end_ns, used;  /* fixed window */
    int64_t counter_index; /* sliding window counter: the current window */
};

static inline int64_t model_least(wide a) {
    return a > INT64_MAX ? INT64_MAX : (int64_t)a;
}

static inline wide model_ceil(wide n, wide d) {
    return n <= 0 ? 0 : (n - 1) / d + 1;
}

/* --------------------------------------------------------------------------------- fixed window */

static inline void model_fixed(struct model *m, int64_t now, int64_t cost, bool charge,
                               struct weir_verdict *v) {
    if (m->used == 0 || now >= m->end_ns)
        m->used = 0;
    else if (m->end_ns > now + m->limit->period_ns)
        m->end_ns = now + m->limit->period_ns;
    v->allowed = cost == 0 || (wide)m->used + cost <= m->limit->amount;
    v->retry_after_ns = v->allowed ? 0 : cost > m->limit->amount ? WEIR_NEVER : m->end_ns - now;
    if (v->allowed && charge && cost) {
        if (m->used == 0)
            m->end_ns = now + m->limit->period_ns;
        m->used += cost;
    }
    v->limit = m->limit->amount;
    v->remaining = m->limit->amount - m->used;
    v->reset_at_ns = m->used ? m->end_ns : now;
}

/* -------------------------------------------------------------------------------- moving window */

/*
 * Removes expired hits from the list, and moves hits in the future to now. Returns the time to
 * decide at.
 */
static inline int64_t model_moving_settle(struct model *m, int64_t now) {
    int64_t at = now;
    if (m->first < m->count && m->hit[m->count - 1].time_ns + m->limit->period_ns <= now)
        m->first = m->count, m->live = 0;
    if (m->first < m->count && m->hit[m->count - 1].time_ns > now) {
        if (m->hit[m->count - 1].time_ns - now <= MODEL_SKEW)
            at = m->hit[m->count - 1].time_ns;
        else
            for (int i = m->count - 1; i >= m->first && m->hit[i].time_ns > now; i--)
                m->hit[i].time_ns = now;
    }
    while (m->first < m->count && m->hit[m->first].time_ns + m->limit->period_ns <= at)
        m->live -= m->hit[m->first++].hits;
    return at;
}

static inline void model_push(struct model *m, int64_t time_ns, int64_t hits) {
    if (m->count == MODEL_HITS) {
        memmove(m->hit, m->hit + m->first, (size_t)(m->count - m->first) * sizeof *m->hit);
        m->count -= m->first;
        m->first = 0;
    }
    m->hit[m->count++] = (struct model_hit){time_ns, hits};
}

static inline void model_moving(struct model *m, int64_t now, int64_t cost, bool charge,
                                struct weir_verdict *v) {
    int64_t amount = m->limit->amount, period = m->limit->period_ns;
    int64_t at = model_moving_settle(m, now);
    wide live = m->live;
    v->allowed = cost == 0 || live + cost <= amount;
    v->retry_after_ns = 0;
    if (!v->allowed) {
        wide left = live;
        int i = m->first;
        v->retry_after_ns = WEIR_NEVER;
        if (cost <= amount) {
            while (left + cost > amount)
                left -= m->hit[i++].hits;
            v->retry_after_ns = m->hit[i - 1].time_ns + period - now;
        }
    } else if (charge && cost) {
        model_push(m, at, cost);
        m->live += cost;
    }
    v->limit = amount;
    v->remaining = amount - m->live;
    v->reset_at_ns = m->live ? m->hit[m->first].time_ns + period : now;
}

static inline int64_t model_take_newest(struct model *m, int64_t cost) {
    int64_t taken = 0;
    while (cost > 0 && m->first < m->count) {
        struct model_hit *last = &m->hit[m->count - 1];
        int64_t part = last->hits < cost ? last->hits : cost;
        last->hits -= part;
        taken += part;
        cost -= part;
        if (last->hits == 0)
            m->count--;
    }
    return taken;
}

/* ----------------------------------------------------------------------- sliding window counter */

/*
 * The list holds (window, hits). Returns the window to use at `now`. Times are wide: now + two
 * periods can exceed INT64_MAX.
 */
static inline int64_t model_window(const struct model *m, wide now, wide *at) {
    int64_t index = (int64_t)(now / m->limit->period_ns);
    int64_t newest = m->first < m->count ? m->counter_index : index;
    wide start = (wide)newest * m->limit->period_ns;
    *at = now;
    if (newest == index + 1 && start - now <= MODEL_SKEW) {
        *at = start;
        return newest;
    }
    return index;
}

static inline int64_t model_sum(const struct model *m, int64_t index) {
    wide sum = 0;
    for (int i = m->first; i < m->count; i++)
        sum += m->hit[i].time_ns == index ? m->hit[i].hits : 0;
    return model_least(sum);
}

/*
 * Whether `cost` would pass at `now`: an exact comparison of fractions. The clock does not step
 * back.
 */
static inline bool model_sliding_fits(const struct model *m, wide now, int64_t cost) {
    int64_t period = m->limit->period_ns;
    wide at;
    int64_t index = model_window(m, now, &at);
    wide room = (wide)m->limit->amount - cost - model_sum(m, index);
    return room * period >= (wide)model_sum(m, index - 1) * (period - (at - (wide)index * period));
}

static inline void model_sliding_settle(struct model *m, int64_t now) {
    wide at;
    int64_t index = model_window(m, now, &at);
    if (m->first < m->count && m->counter_index > index) {
        wide all = (wide)model_sum(m, m->counter_index) + model_sum(m, m->counter_index - 1);
        m->first = m->count = 0;
        model_push(m, index, all > m->limit->amount ? m->limit->amount : (int64_t)all);
    }
    while (m->first < m->count && m->hit[m->first].time_ns < index - 1)
        m->first++;
    m->counter_index = index;
    if (m->first == m->count)
        m->first = m->count = 0;
}

static inline int64_t model_sliding_remaining(const struct model *m, int64_t now) {
    if (!model_sliding_fits(m, now, 1))
        return 0;
    int64_t low = 1, high = m->limit->amount; /* the largest cost that fits */
    while (low < high) {
        int64_t middle = low + (high - low) / 2 + (high - low) % 2;
        if (model_sliding_fits(m, now, middle))
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* The first moment at which `cost` fits, found by a search. */
static inline wide model_sliding_when(const struct model *m, int64_t now, int64_t cost) {
    wide low = now, high = (wide)now + MODEL_SKEW + 2 * (wide)m->limit->period_ns;
    while (low < high) {
        wide middle = low + (high - low) / 2;
        if (model_sliding_fits(m, middle, cost))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static inline void model_sliding(struct model *m, int64_t now, int64_t cost, bool charge,
                                 struct weir_verdict *v) {
    model_sliding_settle(m, now);
    v->allowed = cost == 0 || (cost <= m->limit->amount && model_sliding_fits(m, now, cost));
    v->retry_after_ns = v->allowed ? 0
                        : cost > m->limit->amount
                            ? WEIR_NEVER
                            : (int64_t)(model_sliding_when(m, now, cost) - now);
    if (v->allowed && charge && cost) {
        wide at;
        int64_t index = model_window(m, now, &at);
        if (m->first < m->count && m->hit[m->count - 1].time_ns == index)
            m->hit[m->count - 1].hits += cost; /* only their sum counts */
        else
            model_push(m, index, cost);
    }
    v->limit = m->limit->amount;
    v->remaining = m->limit->amount ? model_sliding_remaining(m, now) : 0;
    v->reset_at_ns =
        m->first < m->count ? model_least(model_sliding_when(m, now, v->remaining + 1)) : now;
}

/* -------------------------------------------------------------------------------------- buckets */

/* The time until the theoretical arrival time, multiplied by amount; 0 if it is past. */
static inline wide model_ahead(struct model *m, int64_t now, wide farthest) {
    wide here = (wide)now * m->limit->amount;
    if (m->tat > here + farthest)
        m->tat = here + farthest;
    if (m->tat <= here)
        m->tat = 0;
    return m->tat ? m->tat - here : 0;
}

static inline void model_ahead_by(struct model *m, int64_t now, wide ahead) {
    m->tat = ahead > 0 ? (wide)now * m->limit->amount + ahead : 0;
}

static inline void model_ahead_back(struct model *m, int64_t now, int64_t cost) {
    wide ahead = m->tat - (wide)now * m->limit->amount, back = (wide)cost * m->limit->period_ns;
    model_ahead_by(m, now, back < ahead ? ahead - back : 0);
}

static inline void model_token(struct model *m, int64_t now, int64_t cost, bool charge,
                               struct weir_verdict *v) {
    wide amount = m->limit->amount, period = m->limit->period_ns;
    int64_t burst = m->limit->burst ? m->limit->burst : m->limit->amount;
    v->limit = burst;
    v->retry_after_ns = 0;
    v->reset_at_ns = now;
    v->remaining = 0;
    if (amount == 0) {
        v->allowed = cost == 0;
        v->retry_after_ns = v->allowed ? 0 : WEIR_NEVER;
        return;
    }
    wide ahead = model_ahead(m, now, (wide)burst * period + (amount - 1) * period);
    v->allowed = cost == 0 || ahead + (wide)cost * period <= (wide)burst * period;
    if (v->allowed && charge)
        ahead += (wide)cost * period;
    if (!v->allowed)
        v->retry_after_ns = cost > burst
                                ? WEIR_NEVER
                                : model_least(model_ceil(
                                      ahead + (wide)cost * period - (wide)burst * period, amount));
    model_ahead_by(m, now, ahead);
    v->remaining =
        ahead > (wide)burst * period ? 0 : (int64_t)(((wide)burst * period - ahead) / period);
    v->reset_at_ns = model_least(now + model_ceil(ahead, amount));
}

static inline void model_leaky(struct model *m, int64_t now, int64_t cost, bool charge,
                               struct weir_verdict *v) {
    wide amount = m->limit->amount, period = m->limit->period_ns, wait = m->limit->max_delay_ns;
    v->limit = m->limit->amount;
    v->retry_after_ns = 0;
    v->reset_at_ns = now;
    v->remaining = 0;
    if (amount == 0) {
        v->allowed = cost == 0;
        v->retry_after_ns = v->allowed ? 0 : WEIR_NEVER;
        return;
    }
    wide ahead = model_ahead(m, now, (wait + period) * amount);
    if (cost == 0) {
        v->allowed = 1;
    } else {
        v->allowed = cost <= amount && ahead <= wait * amount;
        if (v->allowed)
            v->delay_ns = model_least(model_ceil(ahead, amount));
        else
            v->retry_after_ns =
                cost > amount ? WEIR_NEVER : model_least(model_ceil(ahead - wait * amount, amount));
        if (v->allowed && charge)
            ahead += (wide)cost * period;
    }
    model_ahead_by(m, now, ahead);
    if (ahead <= wait * amount) {
        wide turns = (wait * amount - ahead) / period + 1;
        v->remaining = (int64_t)(turns < amount ? turns : amount);
    }
    v->reset_at_ns = model_least(now + model_ceil(ahead, amount));
}

/* Windows that begin with multiples of the period, in UTC. */
static inline void model_calendar(struct model *m, int64_t now, int64_t cost, bool charge,
                                  struct weir_verdict *v) {
    wide period = m->limit->period_ns, end = ((wide)now / period + 1) * period;
    if (m->end_ns <= now)
        m->used = 0;
    else if (m->used > 0 && m->end_ns == end + period && end - now <= MODEL_SKEW)
        end = m->end_ns;
    m->end_ns = (int64_t)end;
    v->allowed = cost <= m->limit->amount - m->used;
    if (!v->allowed)
        v->retry_after_ns = cost > m->limit->amount ? WEIR_NEVER : (int64_t)end - now;
    else if (charge)
        m->used += cost;
    v->limit = m->limit->amount;
    v->remaining = m->limit->amount - m->used;
    v->reset_at_ns = m->used ? m->end_ns : now;
}

/* ------------------------------------------------------------------------------- all strategies */

static inline void model_step(struct model *m, int64_t now, int64_t cost, bool charge,
                              struct weir_verdict *v) {
    *v = (struct weir_verdict){.reserved = 0};
    switch (m->limit->strategy) {
    case WEIR_FIXED_WINDOW:
        model_fixed(m, now, cost, charge, v);
        break;
    case WEIR_MOVING_WINDOW:
        model_moving(m, now, cost, charge, v);
        break;
    case WEIR_SLIDING_WINDOW_COUNTER:
        model_sliding(m, now, cost, charge, v);
        break;
    case WEIR_TOKEN_BUCKET:
        model_token(m, now, cost, charge, v);
        break;
    case WEIR_LEAKY_BUCKET:
        model_leaky(m, now, cost, charge, v);
        break;
    case WEIR_CALENDAR_WINDOW:
        model_calendar(m, now, cost, charge, v);
        break;
    }
}

static inline void model_refund(struct model *m, int64_t now, int64_t cost,
                                struct weir_verdict *v) {
    model_step(m, now, 0, false, v); /* updates it to now */
    switch (m->limit->strategy) {
    case WEIR_FIXED_WINDOW:
    case WEIR_CALENDAR_WINDOW:
        m->used -= cost < m->used ? cost : m->used;
        break;
    case WEIR_MOVING_WINDOW:
        m->live -= model_take_newest(m, cost);
        break;
    case WEIR_SLIDING_WINDOW_COUNTER:
        model_take_newest(m, cost); /* the current window, then the previous */
        break;
    case WEIR_TOKEN_BUCKET:
    case WEIR_LEAKY_BUCKET:
        model_ahead_back(m, now, cost);
        break;
    }
    model_step(m, now, 0, false, v);
    v->allowed = 1;
}

#endif
