/*
 * Evaluates several limits, all or nothing, against one table. Included by decide_all.c, so that
 * the compiler sees a decision as one function.
 *
 *   1. find which items share a counter        no lock; each counter is a slot
 *   2. take the stripes they need, ascending
 *   3. step a copy of each slot's state        the strategies
 *   4. if one denies: drop the charges; only repaired and expired states are written
 *      shadows step last, each by itself
 *   5. write the copies back                   commit.c
 *   6. count the verdicts of items with a label   stats/
 *   7. release the stripes
 *
 * If the pool of lines is empty, the locks are released, lines are reclaimed, and the decision is
 * repeated.
 *
 * Most decisions have one item. For these, the same functions are compiled again with a constant
 * number of items (`one`), so that the compiler removes their loops and the search for shared
 * counters.
 */
#ifndef WEIR_BY_LIMITS_H
#define WEIR_BY_LIMITS_H

#include <string.h>

#include "checks.h"
#include "stats/stats.h"
#include "strategy/strategy.h"
#include "table/cell.h"
#include "table/hash.h"

/* One limit of a decision. All fields are valid. */
struct weir_item {
    uint64_t fingerprint[2];
    const struct weir_limit *limit;
    int64_t cost;
    struct weir_verdict *verdict;
    const void *client;
    size_t client_len;
    int32_t label;
    uint8_t role;  /* enum weir_role */
    uint8_t index; /* position of the check or part in the caller's array */
    uint8_t slot;
    bool charged; /* by its role */
};

static inline bool weir_role_charges(int32_t role) {
    return role == WEIR_ROLE_CHARGED || role == WEIR_ROLE_SHADOW;
}

#define SECOND_NS INT64_C(1000000000)
#define RETRIES 4
#define DENIAL_WEIGHT 16 /* added by a denial; an eviction nearby subtracts 1 */
#define INLINE static inline __attribute__((always_inline))

/* One counter of the decision. */
struct slot {
    const uint64_t *fingerprint;
    uint32_t stripe;
    uint32_t cell;                /* WEIR_CELL_NONE: a new key */
    bool charges;                 /* at least one of its items may charge */
    const struct weir_state *was; /* the state in the table, or all zero */
    struct weir_state state;      /* the new state */
};

struct decision {
    struct weir_table *table;
    int64_t now_ns;
    enum weir_mode mode;
    uint32_t n;
    uint32_t enforced; /* items that enforce come before shadows */
    uint32_t slots;
    bool refused; /* before the limits were evaluated: shadows are not charged in WEIR_HIT */
    bool denied;  /* by an enforced item */
    bool kept;    /* the charges of enforced items are kept */
    struct weir_item item[WEIR_CHECKS_MAX];
    struct slot slot[WEIR_CHECKS_MAX];
    struct weir_transaction txn;
};

/* `one` is a constant: there is one item. */
INLINE uint32_t items(const struct decision *d, bool one) {
    return one ? 1 : d->n;
}

INLINE uint32_t slots(const struct decision *d, bool one) {
    return one ? 1 : d->slots;
}

INLINE struct slot *slot_of(struct decision *d, const struct weir_item *item, bool one) {
    return &d->slot[one ? 0 : item->slot];
}

INLINE void find_slots(struct decision *d, bool one) {
    d->slots = 0;
    for (uint32_t i = 0; i < items(d, one); i++) {
        struct weir_item *item = &d->item[i];
        uint32_t same = 0;
        while (!one && same < d->slots &&
               ((d->slot[same].fingerprint[0] ^ item->fingerprint[0]) |
                (d->slot[same].fingerprint[1] ^ item->fingerprint[1])) != 0)
            same++;
        item->slot = (uint8_t)same;
        struct slot *slot = &d->slot[same];
        if (one || same == d->slots) {
            d->slots++;
            slot->fingerprint = item->fingerprint;
            slot->stripe = weir_cell_stripe(d->table, item->fingerprint);
            slot->charges = item->charged;
        } else {
            slot->charges |= item->charged;
        }
    }
}

/* Adds a stripe to the ascending list of those needed, unless it is there. */
INLINE uint32_t want(uint16_t wanted[WEIR_CHECKS_MAX], uint32_t count, uint16_t stripe) {
    uint32_t at = 0;
    while (at < count && wanted[at] < stripe)
        at++;
    if (at < count && wanted[at] == stripe)
        return count;
    for (; at < count; at++) {
        uint16_t later = wanted[at];
        wanted[at] = stripe;
        stripe = later;
    }
    wanted[at] = stripe;
    return count + 1;
}

/* Takes the stripes of all slots in ascending order, each once. */
INLINE int take_locks(struct decision *d, bool one) {
    struct weir_transaction *txn = &d->txn;
    if (one) {
        txn->lock[0] = (uint16_t)d->slot[0].stripe;
        txn->locks = 1;
        int rc = weir_stripe_take(d->table, d->slot[0].stripe);
        if (rc < 0)
            txn->locks = 0;
        return rc;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < d->slots; i++)
        count = want(txn->lock, count, (uint16_t)d->slot[i].stripe);
    for (txn->locks = 0; txn->locks < count; txn->locks++) {
        int rc = weir_stripe_take(d->table, txn->lock[txn->locks]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static const struct weir_state never_seen;

INLINE void read_states(struct decision *d, bool one) {
    bool moved = false;
    for (uint32_t i = 0; i < slots(d, one); i++) {
        struct slot *slot = &d->slot[i];
        slot->cell = weir_cell_find(d->table, slot->fingerprint);
        if (__builtin_expect(slot->cell == WEIR_CELL_NONE, 0) && d->mode != WEIR_TEST &&
            slot->charges)
            moved |= weir_cell_make_room(&d->txn, slot->fingerprint, d->now_ns);
    }
    for (uint32_t i = 0; i < slots(d, one); i++) {
        struct slot *slot = &d->slot[i];
        if (!one && moved)
            slot->cell = weir_cell_find(d->table, slot->fingerprint);
        slot->was = slot->cell == WEIR_CELL_NONE ? &never_seen : &d->table->cell[slot->cell].state;
        slot->state = *slot->was;
    }
}

/* A test charges nothing, so the second item of a counter adds the cost of the first. */
static int64_t summed_cost(const struct decision *d, uint32_t i) {
    int64_t cost = d->item[i].cost;
    for (uint32_t j = 0; j < i; j++) {
        const struct weir_item *before = &d->item[j];
        if (before->slot == d->item[i].slot && before->verdict->allowed && before->charged &&
            __builtin_add_overflow(cost, before->cost, &cost))
            return INT64_MAX;
    }
    return cost;
}

/* Steps an item. Items that are not charged update the time of their counter, too. */
INLINE int step(struct decision *d, const struct weir_item *item, struct weir_state *state,
                int64_t cost, bool charge, struct weir_verdict *verdict) {
    struct weir_step step = {.limit = item->limit,
                             .now_ns = d->now_ns,
                             .cost = cost,
                             .charge = charge,
                             .lines = &d->txn.lines};
    verdict->reserved = 0;
    if (d->mode == WEIR_REFUND) {
        if (!charge)
            step.cost = 0;
        return weir_strategy_refund(state, &step, verdict);
    }
    int rc = weir_strategy_step(state, &step, verdict);
    if (rc < 0 || charge || d->mode == WEIR_TEST)
        return rc;
    struct weir_verdict ignored;
    step.charge = true;
    step.cost = 0;
    return weir_strategy_step(state, &step, &ignored);
}

/*
 * A denial takes back the charges of the other items: their verdicts then describe uncharged
 * counters. A hit of cost 0 charges nothing, but updates the time of a counter, as a denied hit
 * does.
 */
static int uncharge(struct decision *d) {
    weir_transaction_rewind(&d->txn);
    for (uint32_t i = 0; i < d->slots; i++)
        d->slot[i].state = *d->slot[i].was;
    for (uint32_t i = 0; i < d->enforced; i++) {
        struct weir_verdict uncharged, *verdict = d->item[i].verdict;
        int rc = step(d, &d->item[i], &d->slot[d->item[i].slot].state, 0, true, &uncharged);
        if (rc < 0)
            return rc;
        verdict->remaining = uncharged.remaining;
        verdict->reset_at_ns = uncharged.reset_at_ns;
    }
    return 0;
}

INLINE int evaluate(struct decision *d, bool one) {
    bool changes = d->mode != WEIR_TEST, vetoed = false;
    uint32_t n = items(d, one), enforced = one ? d->enforced & 1 : d->enforced;
    d->denied = d->refused;
    for (uint32_t i = 0; i < enforced; i++) {
        const struct weir_item *item = &d->item[i];
        int64_t cost = !one && !changes ? summed_cost(d, i) : item->cost;
        struct weir_state *state = &slot_of(d, item, one)->state;
        int rc = step(d, item, state, cost, changes && item->charged, item->verdict);
        if (rc < 0)
            return rc;
        d->denied |= !item->verdict->allowed;
        vetoed |= !item->verdict->allowed && item->role == WEIR_ROLE_PEEKED;
    }
    d->kept = !d->denied || d->mode == WEIR_REFUND || (d->mode == WEIR_EACH && !vetoed);
    int rc = !one && !d->kept && changes && enforced > 1 ? uncharge(d) : 0;
    bool shadows_charge = changes && !(d->denied && d->mode == WEIR_HIT);
    for (uint32_t i = enforced; i < n && rc == 0; i++) {
        const struct weir_item *item = &d->item[i];
        int64_t cost = !one && !changes ? summed_cost(d, i) : item->cost;
        rc = step(d, item, &slot_of(d, item, one)->state, cost, shadows_charge, item->verdict);
    }
    return rc;
}

/* About 8 * log2(number); 0 for 0. */
static inline uint32_t eighths(uint64_t number) {
    uint32_t top = 63 ^ (uint32_t)__builtin_clzll(number | 1);
    return number ? (top << 3) + 8 + (uint32_t)(number << (63 - top) >> 60 & 7) : 0;
}

/* How much of the limit is used: 255 all of it, 8 less for each halving. No division. */
static uint8_t usage(const struct weir_verdict *verdict) {
    uint64_t limit = (uint64_t)verdict->limit, used = limit - (uint64_t)verdict->remaining;
    uint32_t less = used > limit ? 255 : eighths(limit) - eighths(used);
    return less < 255 ? (uint8_t)(255 - less) : 0;
}

static bool same_state(const struct weir_state *a, const struct weir_state *b) {
    return a->expires_ns == b->expires_ns && a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
           a->word[2] == b->word[2] && a->line[0] == b->line[0] && a->line[1] == b->line[1] &&
           a->line[2] == b->line[2];
}

/* Writes the slots whose keys are in the table, or places those that are not. */
INLINE int write_slots(struct decision *d, bool fresh, bool one) {
    struct weir_transaction *txn = &d->txn;
    for (uint32_t i = 0; i < slots(d, one); i++) {
        struct slot *slot = &d->slot[i];
        bool empty = slot->state.expires_ns == 0;
        if ((slot->cell == WEIR_CELL_NONE) != fresh || (fresh && empty) ||
            same_state(&slot->state, slot->was))
            continue;
        uint32_t cell = slot->cell;
        if (fresh) {
            int rc = weir_cell_place(txn, slot->fingerprint, d->now_ns, &cell);
            if (rc < 0)
                return rc;
            slot->cell = cell;
        }
        txn->change[txn->changes++] = (struct weir_change){
            .cell = cell,
            .same_key = !fresh,
            .fingerprint = slot->fingerprint,
            .state = empty ? NULL : &slot->state,
        };
    }
    return 0;
}

/*
 * Commits the changes. Keys that are in the table come first, so that no new key is placed into a
 * cell that this decision writes. A change of one cell needs no list.
 */
INLINE int write_back(struct decision *d, bool one) {
    const struct slot *slot = &d->slot[0];
    if (one && slot->cell != WEIR_CELL_NONE && slot->state.expires_ns != 0 &&
        !d->txn.lines.changed) {
        weir_commit_one(d->table, slot->stripe, slot->cell, &slot->state);
        return 0;
    }
    int rc = write_slots(d, false, one);
    if (rc == 0)
        rc = write_slots(d, true, one);
    if (rc == 0)
        weir_transaction_commit(&d->txn);
    return rc;
}

/* Sets the hints for eviction: how much of the limit is used, and recent denials. */
INLINE void mark(struct decision *d, bool one) {
    for (uint32_t i = 0; i < items(d, one); i++) {
        const struct weir_item *item = &d->item[i];
        struct slot *slot = slot_of(d, item, one);
        struct weir_state *state = &slot->state;
        state->strategy = (uint8_t)item->limit->strategy;
        state->usage = usage(item->verdict);
        if (item->verdict->allowed)
            continue;
        state->denials = state->denials < UINT8_MAX - DENIAL_WEIGHT
                             ? (uint8_t)(state->denials + DENIAL_WEIGHT)
                             : UINT8_MAX;
        if (slot->cell != WEIR_CELL_NONE)
            d->table->cell[slot->cell].state.denials = state->denials;
    }
}

/*
 * Counts the verdicts. If one item denied, only items that denied are counted, unless each is
 * decided by itself. An item that was not charged and allowed the request is not counted. Of
 * shadows, only denials are counted.
 */
INLINE void count(struct decision *d, bool one) {
    struct weir_table *table = d->table;
    bool shadows = d->mode == WEIR_EACH || !d->denied;
    for (uint32_t i = 0; i < items(d, one); i++) {
        const struct weir_item *item = &d->item[i];
        if (item->label == 0)
            continue;
        const struct slot *slot = slot_of(d, item, one);
        bool allowed = item->verdict->allowed;
        uint32_t stripe = slot->stripe;
        if (item->role == WEIR_ROLE_SHADOW) {
            if (!allowed && shadows)
                table->stats->stripe[stripe].count[item->label - 1][WEIR_COUNT_SHADOW]++;
        } else if (!allowed || (d->kept && item->role == WEIR_ROLE_CHARGED)) {
            const struct weir_stats_hit hit = {.client = item->client,
                                               .client_len = item->client_len,
                                               .label = (uint32_t)item->label,
                                               .fingerprint = slot->fingerprint,
                                               .stripe = stripe,
                                               .cell = slot->cell,
                                               .allowed = allowed,
                                               .now_ns = d->now_ns};
            weir_stats_count(table, &hit, item->verdict, slot->state.hitter);
        }
    }
}

INLINE int attempt(struct decision *d, bool one) {
    weir_transaction_begin(&d->txn, d->table);
    int rc = take_locks(d, one);
    if (rc == 0) {
        read_states(d, one);
        rc = evaluate(d, one);
    }
    if (rc == 0 && d->mode != WEIR_TEST) {
        mark(d, one);
        rc = write_back(d, one);
        if (rc == 0 && d->mode != WEIR_REFUND)
            count(d, one);
    }
    if (one && !d->txn.lines.locked && d->txn.locks == 1)
        weir_lock_release_at(d->table, &d->table->stripe[d->slot[0].stripe].lock);
    else
        weir_transaction_end(&d->txn);
    return rc;
}

static __attribute__((noinline)) int attempt_many(struct decision *d) {
    find_slots(d, false);
    return attempt(d, false);
}

/*
 * The pool is empty, and lines that a decision returns are free only after its commit. So expired
 * hits of the decision's logs are dropped first, by hits of cost 0.
 */
static void shed(const struct decision *d) {
    for (uint32_t i = 0; i < d->n; i++) {
        struct decision alone;
        struct weir_verdict verdict;
        alone.table = d->table;
        alone.now_ns = d->now_ns;
        alone.mode = WEIR_HIT;
        alone.n = alone.enforced = 1;
        alone.refused = false;
        alone.item[0] = d->item[i];
        alone.item[0].cost = 0;
        alone.item[0].label = 0;
        alone.item[0].role = WEIR_ROLE_CHARGED;
        alone.item[0].charged = true;
        alone.item[0].verdict = &verdict;
        (void)attempt_many(&alone);
    }
}

/*
 * A shadow that cannot be decided does not affect the others: its verdict is that nothing is used.
 */
static int without_shadows(struct decision *d) {
    for (uint32_t i = d->enforced; i < d->n; i++) {
        const struct weir_limit *limit = d->item[i].limit;
        int64_t size = weir_limit_size(limit);
        *d->item[i].verdict = (struct weir_verdict){
            .allowed = 1, .limit = size, .remaining = size, .reset_at_ns = d->now_ns};
    }
    d->n = d->enforced;
    return attempt_many(d);
}

/* Evaluates the limits without a charge, which needs no line. */
static int peek_all(struct decision *d) {
    enum weir_mode mode = d->mode;
    d->mode = WEIR_TEST;
    int rc = attempt_many(d);
    d->mode = mode;
    return rc;
}

/*
 * No line is available. This affects only this key: its moving windows deny until their oldest hit
 * leaves, and nothing is charged.
 */
static int deny_for_want_of_lines(struct decision *d) {
    int rc = peek_all(d);
    for (uint32_t i = 0; rc == 0 && i < d->n; i++) {
        struct weir_verdict *verdict = d->item[i].verdict;
        bool logs = weir_strategies[d->item[i].limit->strategy]->packing == WEIR_PACK_LOG;
        if (!logs || !verdict->allowed)
            continue;
        int64_t wait_ns = verdict->reset_at_ns - d->now_ns;
        if (wait_ns <= 0)
            wait_ns =
                d->item[i].limit->period_ns < SECOND_NS ? d->item[i].limit->period_ns : SECOND_NS;
        d->denied |= i < d->enforced;
        verdict->allowed = 0;
        verdict->remaining = 0;
        verdict->retry_after_ns = wait_ns;
        if (verdict->reset_at_ns < d->now_ns + wait_ns)
            verdict->reset_at_ns = d->now_ns + wait_ns;
    }
    return rc;
}

static __attribute__((noinline)) int try_again(struct decision *d, int rc) {
    const uint64_t *keep[WEIR_CHECKS_MAX];
    bool evicts = true;
    for (int i = 0; i <= RETRIES && rc == WEIR_EFULL && evicts; i++) {
        if (i == 0)
            shed(d);
        for (uint32_t j = 0; j < d->slots; j++)
            keep[j] = d->slot[j].fingerprint;
        rc = i == 0 ? 0 : weir_table_reclaim(d->table, d->now_ns, keep, d->slots, &evicts);
        if (rc == 0)
            rc = attempt_many(d);
    }
    if ((rc == WEIR_EFULL || rc == WEIR_ETOOMANY) && d->enforced && d->enforced < d->n)
        rc = without_shadows(d);
    return rc == WEIR_EFULL && d->mode != WEIR_REFUND ? deny_for_want_of_lines(d) : rc;
}

/*
 * Decides the items as if there were no rules, and writes their verdicts.
 * Errors: as weir_decide().
 */
INLINE int by_limits(struct decision *d) {
    if (d->n == 1)
        find_slots(d, true);
    int rc = d->n == 1 ? attempt(d, true) : attempt_many(d);
    return __builtin_expect(rc < 0, 0) ? try_again(d, rc) : rc;
}

#endif
