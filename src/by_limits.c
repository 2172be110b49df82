/*
 * Several limits, all or nothing, against one table.
 *
 *   1. fingerprint every check                 no lock
 *   2. take the stripes they need, ascending
 *   3. step a copy of each key's state         the strategies
 *   4. all allowed: write the copies back      commit.c
 *      one denied:  forget them, charge none; what merely healed or expired is written
 *   5. count what was said, if anybody wants to know (board.h)
 *   6. let go, choose the deciding check
 *
 * When the pool of lines is empty, everything is let go, lines are reclaimed, and the decision starts over.
 *
 * Cost, hot key: one memo look-up (else SipHash), one lock, one cache line.
 */
#include <string.h>

#include "stats/stats_layout.h"
#include "decide.h"
#include "table/layout.h"
#include "rules/rules.h"

#define RETRIES 4
#define HEAT 16 /* what a denial adds; each eviction nearby takes 1 off */

/* One key of the decision. Two checks of the same key and limit share one. */
struct slot {
    uint64_t fingerprint[2];
    uint32_t cell;                /* WEIR_CELL_NONE: a new key */
    const struct weir_state *was; /* in the table, or all zero */
    struct weir_state state;      /* as it shall be */
    bool look;                    /* no check of it may charge */
};

struct decision {
    struct weir_table *table;
    const struct weir_check *checks;
    uint32_t n;
    int64_t now_ns;
    enum weir_mode mode;
    struct weir_verdict *verdicts;
    uint32_t slots;
    bool denied;
    bool vetoed; /* a check with WEIR_CHECK_VETO denied */
    uint8_t slot_of[WEIR_CHECKS_MAX];
    struct slot slot[WEIR_CHECKS_MAX];
    struct weir_transaction txn;
};

/* Whether the check is told what it would be, and no more. */
static inline bool looks(const struct weir_check *check) {
    return check->flags & WEIR_CHECK_LOOK;
}

static inline bool valid(const struct weir_check *check) {
    const struct weir_limit *limit = check->limit;
    if (!limit || check->key_len > WEIR_KEY_MAX || (!check->key && check->key_len) ||
        check->client_len > WEIR_KEY_MAX || (!check->client && check->client_len))
        return false;
    if (((uint32_t)check->label > WEIR_BOARD_LABELS) | ((check->flags & ~WEIR_CHECK_LOOK) != 0))
        return false;
    return (limit->amount | limit->burst | limit->max_delay_ns | check->cost) >= 0 &&
           limit->period_ns > 0 && limit->period_ns <= WEIR_PERIOD_MAX_NS &&
           limit->max_delay_ns <= limit->period_ns && (uint32_t)limit->strategy < WEIR_STRATEGIES;
}

int weir_checks_validate(const struct weir_table *table, const struct weir_check *checks,
                         size_t n) {
    if (!table || !checks || n == 0)
        return WEIR_EINVAL;
    if (n > WEIR_CHECKS_MAX)
        return WEIR_ETOOMANY;
    for (size_t i = 0; i < n; i++)
        if (!valid(&checks[i]))
            return WEIR_EINVAL;
    return 0;
}

static void name_slots(struct decision *d) {
    d->slots = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        struct slot *slot = &d->slot[d->slots];
        const struct weir_check *check = &d->checks[i];
        weir_fingerprint(d->table, check->key, check->key_len, check->limit, slot->fingerprint);
        uint32_t same = 0;
        while (same < d->slots && (d->slot[same].fingerprint[0] != slot->fingerprint[0] ||
                                   d->slot[same].fingerprint[1] != slot->fingerprint[1]))
            same++;
        d->slot_of[i] = (uint8_t)same;
        if (same == d->slots)
            d->slot[d->slots++].look = true;
        d->slot[same].look &= looks(check);
    }
}

/* Takes the stripes of all slots in ascending order, each once. */
static int take_locks(struct decision *d) {
    struct weir_transaction *txn = &d->txn;
    uint16_t wanted[WEIR_CHECKS_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < d->slots; i++) {
        uint16_t stripe = (uint16_t)weir_cell_stripe(d->table, d->slot[i].fingerprint);
        uint32_t at = count;
        while (at > 0 && wanted[at - 1] >= stripe)
            at--;
        if (at < count && wanted[at] == stripe)
            continue;
        memmove(&wanted[at + 1], &wanted[at], (count - at) * sizeof wanted[0]);
        wanted[at] = stripe;
        count++;
    }
    for (uint32_t i = 0; i < count; i++) {
        int rc = weir_lock_take(d->table, wanted[i]);
        if (rc < 0)
            return rc;
        txn->lock[txn->locks++] = wanted[i];
    }
    return 0;
}

static const struct weir_state never_seen;

static void read_states(struct decision *d) {
    bool moved = false;
    for (uint32_t i = 0; i < d->slots; i++) {
        d->slot[i].cell = weir_cell_find(d->table, d->slot[i].fingerprint);
        if (d->slot[i].cell == WEIR_CELL_NONE && d->mode != WEIR_TEST && !d->slot[i].look)
            moved |= weir_cell_make_room(&d->txn, d->slot[i].fingerprint, d->now_ns);
    }
    for (uint32_t i = 0; i < d->slots; i++) {
        struct slot *slot = &d->slot[i];
        if (moved)
            slot->cell = weir_cell_find(d->table, slot->fingerprint);
        slot->was = slot->cell == WEIR_CELL_NONE ? &never_seen : &d->table->cell[slot->cell].state;
        slot->state = *slot->was;
    }
}

/* A test charges nothing, so the second check of a key asks for what the first would have taken, too. */
static int64_t summed_cost(const struct decision *d, uint32_t i) {
    int64_t cost = d->checks[i].cost;
    for (uint32_t j = 0; j < i; j++)
        if (d->slot_of[j] == d->slot_of[i] && d->verdicts[j].allowed && !looks(&d->checks[j]) &&
            __builtin_add_overflow(cost, d->checks[j].cost, &cost))
            return INT64_MAX;
    return cost;
}

static int step(const struct weir_check *check, int64_t cost, int64_t now_ns, enum weir_mode mode,
                struct weir_lines *lines, struct weir_state *state, struct weir_verdict *verdict) {
    const struct weir_strategy_ops *strategy = weir_strategies[check->limit->strategy];
    struct weir_step step = {.limit = check->limit,
                             .now_ns = now_ns,
                             .cost = cost,
                             .charge = mode != WEIR_TEST,
                             .lines = lines};
    verdict->reserved = 0;
    if (looks(check) && mode == WEIR_REFUND) {
        step.cost = 0;
    } else if (looks(check) && step.charge) {
        struct weir_verdict ignored;
        step.charge = false;
        int rc = strategy->step(state, &step, verdict);
        step.charge = true;
        step.cost = 0; /* brings the counter to the present, as any other hit does */
        return rc < 0 ? rc : strategy->step(state, &step, &ignored);
    }
    return mode == WEIR_REFUND ? strategy->refund(state, &step, verdict)
                               : strategy->step(state, &step, verdict);
}

static int step_slot(struct decision *d, uint32_t i, int64_t cost, struct weir_verdict *verdict) {
    return step(&d->checks[i], cost, d->now_ns, d->mode, &d->txn.lines,
                &d->slot[d->slot_of[i]].state, verdict);
}

/*
 * A denial takes back what the others were charged: their verdicts then describe uncharged counters. A hit
 * of cost 0 charges nothing, but brings a counter to the present, as the denied one's is.
 */
static int uncharge(struct decision *d) {
    weir_transaction_rewind(&d->txn);
    for (uint32_t i = 0; i < d->slots; i++)
        d->slot[i].state = *d->slot[i].was;
    for (uint32_t i = 0; i < d->n; i++) {
        struct weir_verdict uncharged;
        int rc = step_slot(d, i, 0, &uncharged);
        if (rc < 0)
            return rc;
        struct weir_verdict *verdict = &d->verdicts[i];
        verdict->remaining = uncharged.remaining;
        verdict->reset_at_ns = uncharged.reset_at_ns;
    }
    return 0;
}

static int evaluate(struct decision *d) {
    d->denied = d->vetoed = false;
    for (uint32_t i = 0; i < d->n; i++) {
        int64_t cost = d->mode == WEIR_TEST ? summed_cost(d, i) : d->checks[i].cost;
        int rc = step_slot(d, i, cost, &d->verdicts[i]);
        if (rc < 0)
            return rc;
        d->denied |= !d->verdicts[i].allowed;
        d->vetoed |= !d->verdicts[i].allowed && (d->checks[i].flags & WEIR_CHECK_VETO);
    }
    bool charges = d->mode == WEIR_EACH ? !d->vetoed : d->mode != WEIR_HIT;
    return d->denied && !charges && d->n > 1 ? uncharge(d) : 0;
}

/* log2(number) in steps of an eighth, roughly; 0 for 0. */
static uint32_t eighths(uint64_t number) {
    uint32_t bits = 64 - (uint32_t)__builtin_clzll(number | 1);
    return number ? bits << 3 | (uint32_t)(number << (64 - bits) >> 60 & 7) : 0;
}

/* How much of the limit is used: 255 all of it, 8 less for each halving. No division. */
static uint8_t share(const struct weir_verdict *verdict) {
    uint64_t limit = (uint64_t)verdict->limit, used = limit - (uint64_t)verdict->remaining;
    uint32_t less = used > limit ? 255 : eighths(limit) - eighths(used);
    return less < 255 ? (uint8_t)(255 - less) : 0;
}

static bool same_state(const struct weir_state *a, const struct weir_state *b) {
    return a->expires_ns == b->expires_ns && a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
           a->word[2] == b->word[2] && a->line[0] == b->line[0] && a->line[1] == b->line[1] &&
           a->line[2] == b->line[2];
}

/* Changes the slots whose keys are in the table already, or places those that are not. */
static int write_slots(struct decision *d, bool fresh) {
    struct weir_transaction *txn = &d->txn;
    for (uint32_t i = 0; i < d->slots; i++) {
        struct slot *slot = &d->slot[i];
        bool empty = slot->state.expires_ns == 0;
        if ((slot->cell == WEIR_CELL_NONE) != fresh || same_state(&slot->state, slot->was) ||
            (fresh && empty))
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

/* Old keys first: a new one must not be placed where this very decision writes. */
static int write_back(struct decision *d) {
    int rc = write_slots(d, false);
    return rc < 0 ? rc : write_slots(d, true);
}

/* Sets what eviction goes by: shares of what was charged, heat of what was denied. */
static void mark(struct weir_state *state, const struct weir_check *check,
                 const struct weir_verdict *verdict) {
    state->strategy = (uint8_t)check->limit->strategy;
    state->share = share(verdict);
    if (!verdict->allowed)
        state->heat = state->heat < UINT8_MAX - HEAT ? (uint8_t)(state->heat + HEAT) : UINT8_MAX;
}

static void mark_all(struct decision *d) {
    for (uint32_t i = 0; i < d->n; i++) {
        struct slot *slot = &d->slot[d->slot_of[i]];
        mark(&slot->state, &d->checks[i], &d->verdicts[i]);
        if (!d->verdicts[i].allowed && slot->cell != WEIR_CELL_NONE)
            d->table->cell[slot->cell].state.heat = slot->state.heat;
    }
}

/*
 * Of limits of which one denied, only those that denied count anything, unless each is its own decision. Nor
 * does a look that let it pass.
 */
static void count_all(const struct decision *d) {
    struct weir_table *table = d->table;
    bool all = !d->denied || (d->mode == WEIR_EACH && !d->vetoed);
    int64_t now_ns = d->now_ns;
    for (uint32_t i = 0, n = d->n; i < n; i++) {
        const struct slot *slot = &d->slot[d->slot_of[i]];
        if (!d->verdicts[i].allowed || (all && !looks(&d->checks[i])))
            weir_board_count(table, &d->checks[i], &d->verdicts[i], slot->fingerprint,
                             weir_cell_stripe(table, slot->fingerprint), slot->cell,
                             slot->state.heavy, now_ns);
    }
}

static int attempt(struct decision *d) {
    weir_transaction_begin(&d->txn, d->table);
    int rc = take_locks(d);
    if (rc == 0) {
        read_states(d);
        rc = evaluate(d);
    }
    if (rc == 0 && d->mode != WEIR_TEST) {
        mark_all(d);
        rc = write_back(d);
        if (rc == 0)
            weir_transaction_commit(&d->txn);
        if (rc == 0 && d->mode != WEIR_REFUND)
            count_all(d);
    }
    weir_transaction_end(&d->txn);
    return rc;
}

/*
 * One check, the most common decision: the same steps in one go, without slots. Returns as attempt().
 */
static int attempt_one(struct weir_table *table, const struct weir_check *check,
                       const uint64_t fingerprint[2], int64_t now_ns, enum weir_mode mode,
                       struct weir_verdict *verdict) {
    struct weir_transaction txn;
    uint32_t stripe = weir_cell_stripe(table, fingerprint);
    int rc = weir_lock_take(table, stripe);
    if (rc < 0)
        return rc;
    weir_transaction_begin(&txn, table);
    txn.lock[txn.locks++] = (uint16_t)stripe;
    uint32_t cell = weir_cell_find(table, fingerprint);
    bool fresh = cell == WEIR_CELL_NONE;
    struct weir_state *was = fresh ? NULL : &table->cell[cell].state;
    struct weir_state state = fresh ? never_seen : *was;
    rc = step(check, check->cost, now_ns, mode, &txn.lines, &state, verdict);
    if (rc < 0 || mode == WEIR_TEST)
        goto out;
    mark(&state, check, verdict);
    if (!verdict->allowed && !fresh)
        was->heat = state.heat;
    bool empty = state.expires_ns == 0;
    if (fresh) {
        if (empty)
            goto count;
        weir_cell_make_room(&txn, fingerprint, now_ns);
        rc = weir_cell_place(&txn, fingerprint, now_ns, &cell);
        if (rc < 0)
            goto out;
    } else if (!empty && !txn.lines.changed && weir_commit_word(was, &state)) {
        goto count;
    }
    txn.change[txn.changes++] = (struct weir_change){.cell = cell,
                                                     .same_key = !fresh,
                                                     .fingerprint = fingerprint,
                                                     .state = empty ? NULL : &state};
    weir_transaction_commit(&txn);
count:
    if (mode != WEIR_REFUND && (!looks(check) || !verdict->allowed))
        weir_board_count(table, check, verdict, fingerprint, stripe, cell, state.heavy, now_ns);
out:
    weir_transaction_end(&txn);
    return rc;
}

/*
 * The pool is empty: lines that a decision gives back are free only once it is committed. So what has
 * expired in its own logs is dropped first, by hits of cost 0.
 */
static void shed(struct weir_table *table, const struct weir_check *check,
                 const uint64_t fingerprint[2], int64_t now_ns) {
    struct weir_check nothing = *check;
    struct weir_verdict verdict;
    nothing.cost = 0;
    nothing.label = 0;
    nothing.flags = 0;
    (void)attempt_one(table, &nothing, fingerprint, now_ns, WEIR_HIT, &verdict);
}

static int decide_one(struct weir_table *table, const struct weir_check *check, int64_t now_ns,
                      enum weir_mode mode, struct weir_verdict *verdict) {
    uint64_t fingerprint[2];
    const uint64_t *keep = fingerprint;
    weir_fingerprint(table, check->key, check->key_len, check->limit, fingerprint);
    int rc = attempt_one(table, check, fingerprint, now_ns, mode, verdict);
    for (int i = 0; i <= RETRIES && rc == WEIR_EFULL; i++) {
        if (i == 0)
            shed(table, check, fingerprint, now_ns);
        rc = i == 0 ? 0 : weir_table_reclaim(table, now_ns, &keep, 1);
        if (rc == 0)
            rc = attempt_one(table, check, fingerprint, now_ns, mode, verdict);
    }
    return rc;
}

static int decide_many(struct weir_table *table, const struct weir_check *checks, uint32_t n,
                       int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts) {
    struct decision d;
    d.table = table;
    d.checks = checks;
    d.n = n;
    d.now_ns = now_ns;
    d.mode = mode;
    d.verdicts = verdicts;
    name_slots(&d);
    int rc = attempt(&d);
    const uint64_t *keep[WEIR_CHECKS_MAX];
    for (int i = 0; i <= RETRIES && rc == WEIR_EFULL; i++) {
        for (uint32_t j = 0; j < n && i == 0; j++) {
            keep[d.slot_of[j]] = d.slot[d.slot_of[j]].fingerprint;
            shed(table, &checks[j], keep[d.slot_of[j]], now_ns);
        }
        rc = i == 0 ? 0 : weir_table_reclaim(table, now_ns, keep, d.slots);
        if (rc == 0)
            rc = attempt(&d);
    }
    return rc;
}

/* Which verdict to tell the client: see struct weir_decision. */
void weir_decide_choose(const struct weir_check *checks, const struct weir_verdict *verdicts,
                        uint32_t n, struct weir_decision *decision) {
    int32_t deciding = 0;
    for (uint32_t i = 1; i < n; i++) {
        const struct weir_verdict *a = &verdicts[i], *b = &verdicts[deciding];
        if (a->allowed != b->allowed ? !a->allowed
            : a->allowed ? checks[i].limit->period_ns < checks[deciding].limit->period_ns
                         : a->retry_after_ns > b->retry_after_ns)
            deciding = (int32_t)i;
    }
    *decision = (struct weir_decision){.allowed = verdicts[deciding].allowed, .deciding = deciding};
}

/* Inline in weir_decide(), whose seven arguments would be copied for another call. */
static inline __attribute__((always_inline)) int
by_limits(struct weir_table *table, const struct weir_check *checks, size_t n, int64_t now_ns,
          enum weir_mode mode, struct weir_verdict *verdicts, struct weir_decision *decision) {
    int rc = n == 1 ? decide_one(table, checks, now_ns, mode, verdicts)
                    : decide_many(table, checks, (uint32_t)n, now_ns, mode, verdicts);
    if (rc == 0 && decision) {
        *decision = (struct weir_decision){.allowed = verdicts[0].allowed, .deciding = 0};
        if (n > 1)
            weir_decide_choose(checks, verdicts, (uint32_t)n, decision);
    }
    return rc;
}

int weir_decide_by_limits(struct weir_table *table, const struct weir_check *checks, size_t n,
                          int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts,
                          struct weir_decision *decision) {
    return by_limits(table, checks, n, now_ns, mode, verdicts, decision);
}

static inline __attribute__((always_inline)) int
checked(struct weir_table *table, const struct weir_check *checks, size_t n, int64_t now_ns,
        enum weir_mode mode, struct weir_verdict *verdicts, struct weir_decision *decision) {
    int rc = table->home == WEIR_HOME_MEMORY ? weir_after_fork(table) : 0;
    if (rc < 0)
        return rc;
    if (weir_rules_any(table, now_ns) && mode != WEIR_REFUND)
        return weir_decide_ruled(table, checks, n, now_ns, mode, verdicts, decision);
    return by_limits(table, checks, n, now_ns, mode, verdicts, decision);
}

int weir_decide_checked(struct weir_table *table, const struct weir_check *checks, size_t n,
                        int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts,
                        struct weir_decision *decision) {
    return checked(table, checks, n, now_ns, mode, verdicts, decision);
}

int weir_decide(struct weir_table *table, const struct weir_check *checks, size_t n, int64_t now_ns,
                enum weir_mode mode, struct weir_verdict *verdicts,
                struct weir_decision *decision) {
    int rc = weir_checks_validate(table, checks, n);
    if (rc == 0 &&
        (!verdicts || now_ns < 0 || now_ns > WEIR_NOW_MAX || (unsigned)mode > WEIR_REFUND))
        rc = WEIR_EINVAL;
    return rc < 0 ? rc : checked(table, checks, n, now_ns, mode, verdicts, decision);
}

int weir_clear(struct weir_table *table, const struct weir_check *checks, size_t n) {
    int rc = weir_checks_validate(table, checks, n);
    if (rc == 0 && table->home == WEIR_HOME_MEMORY)
        rc = weir_after_fork(table);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct weir_transaction txn;
        uint32_t lines = 0;
        uint64_t fingerprint[2];
        weir_fingerprint(table, checks[i].key, checks[i].key_len, checks[i].limit, fingerprint);
        uint16_t stripe = (uint16_t)weir_cell_stripe(table, fingerprint);
        rc = weir_lock_take(table, stripe);
        if (rc < 0)
            break;
        weir_transaction_begin(&txn, table);
        txn.lock[txn.locks++] = stripe;
        uint32_t cell = weir_cell_find(table, fingerprint);
        if (cell != WEIR_CELL_NONE)
            rc = weir_cell_forget(&txn, cell, &lines);
        weir_transaction_end(&txn);
    }
    return rc;
}

int weir_table_reset(struct weir_table *table) {
    if (!table)
        return WEIR_EINVAL;
    int rc = table->home == WEIR_HOME_MEMORY ? weir_after_fork(table) : 0;
    for (uint32_t stripe = 0; stripe <= table->stripe_mask && rc == 0; stripe++) {
        struct weir_transaction txn;
        uint32_t lines = 0;
        rc = weir_lock_take(table, stripe);
        if (rc < 0)
            break;
        weir_transaction_begin(&txn, table);
        txn.lock[txn.locks++] = (uint16_t)stripe;
        for (uint64_t bucket = stripe; bucket < table->buckets && rc == 0;
             bucket += (uint64_t)table->stripe_mask + 1) {
            uint32_t cell = (uint32_t)(bucket * WEIR_BUCKET_CELLS);
            for (uint32_t i = 0; i < WEIR_BUCKET_CELLS && rc == 0; i++, cell++)
                if (table->cell[cell].fingerprint[0] | table->cell[cell].fingerprint[1])
                    rc = weir_cell_forget(&txn, cell, &lines);
        }
        weir_transaction_end(&txn);
    }
    return rc;
}
