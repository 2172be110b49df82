/*
 * Finds the cell of a key, and chooses a cell for a new key.
 *
 *     fingerprint --> stripe s, first bucket (of all), second bucket (of s's)
 *
 *     bucket:  | cell | cell | cell | cell | cell | cell | cell | cell |   8 x 64 bytes
 *
 * Within a bucket the search starts at a cell that depends on the key, so most lookups read one
 * cache line. The second bucket takes a key only when the first is full (two choices, Azar et al.
 * 1994). When that is full too, one of the sixteen moves to its own other bucket, if there is room
 * (cuckoo hashing with buckets, Dietzfelbinger and Weidling 2007, one step deep): the table fills
 * to some 97 % before anything is evicted.
 *
 * If none can move, one of the sixteen is evicted, in this order:
 *
 *   1. an expired key
 *   2. a key that has used little of its limit and was not denied recently
 *   3. a key of the limit that has most of the sixteen, so that a flood of keys of one limit evicts
 *      its own keys and not those of other limits
 *
 * Among several: the key that has used the smallest part of its limit, then the one with fewest
 * recent denials, then the one that expires first. Among keys of one limit, keys that were denied
 * stay until there are more of them than cells; then keys that are still denied stay longest.
 */
#include <string.h>

#include "table/cell.h"
#include "table/hash.h"
#include "strategy/log/log.h"

#define LITTLE_USED 231       /* `usage` of an eighth of the limit */
#define RECLAIM_BUCKETS 4096u /* searched by one reclaim: about a millisecond */
#define RECLAIM_LINES 64u     /* enough for one reclaim */

/* A random number below `range`. */
static uint64_t scale(uint64_t random, uint64_t range) {
    return (uint64_t)((unsigned __int128)random * range >> 64);
}

void weir_buckets_of(const struct weir_table *table, const uint64_t fingerprint[2],
                     uint64_t bucket[2]) {
    bucket[0] = weir_first_bucket(table, fingerprint);
    uint64_t stripe = bucket[0] & table->stripe_mask;
    int shift = __builtin_ctz(table->stripe_mask + 1);
    uint64_t of_stripe = ((table->buckets - 1 - stripe) >> shift) + 1;
    uint64_t other = (bucket[0] >> shift) + (of_stripe > 1) + scale(fingerprint[1], of_stripe - 1);
    if (other >= of_stripe)
        other -= of_stripe;
    bucket[1] = stripe + (other << shift);
}

static uint32_t find_in(const struct weir_table *table, uint64_t bucket,
                        const uint64_t fingerprint[2]) {
    uint32_t base = (uint32_t)(bucket * WEIR_BUCKET_CELLS);
    uint32_t first = weir_first_cell(fingerprint);
    for (uint32_t i = 0; i < WEIR_BUCKET_CELLS; i++) {
        uint32_t cell = base + (first + i) % WEIR_BUCKET_CELLS;
        const uint64_t *there = table->cell[cell].fingerprint;
        if (there[0] == fingerprint[0] && there[1] == fingerprint[1])
            return cell;
    }
    return WEIR_CELL_NONE;
}

uint32_t weir_cell_search(const struct weir_table *table, const uint64_t fingerprint[2]) {
    uint64_t bucket[2];
    weir_buckets_of(table, fingerprint, bucket);
    uint32_t cell = find_in(table, bucket[0], fingerprint);
    if (cell == WEIR_CELL_NONE && bucket[1] != bucket[0])
        cell = find_in(table, bucket[1], fingerprint);
    return cell;
}

static bool taken_by(const struct weir_transaction *txn, uint32_t cell) {
    for (uint32_t i = 0; i < txn->changes; i++)
        if (txn->change[i].cell == cell)
            return true;
    return false;
}

/* Whether evicting `a` loses less than evicting `b`. */
static bool loses_less(const struct weir_state *a, const struct weir_state *b) {
    if (a->usage != b->usage)
        return a->usage < b->usage;
    if (a->denials != b->denials)
        return a->denials < b->denials;
    return a->expires_ns < b->expires_ns;
}

/* A free or expired cell, else WEIR_CELL_NONE. */
static uint32_t search(const struct weir_transaction *txn, uint64_t bucket,
                       const uint64_t fingerprint[2], int64_t now_ns) {
    const struct weir_cell *cells = txn->table->cell;
    uint32_t base = (uint32_t)(bucket * WEIR_BUCKET_CELLS);
    uint32_t first = weir_first_cell(fingerprint);
    for (uint32_t i = 0; i < WEIR_BUCKET_CELLS; i++) {
        uint32_t cell = base + (first + i) % WEIR_BUCKET_CELLS;
        if (cells[cell].state.expires_ns <= now_ns && !taken_by(txn, cell))
            return cell;
    }
    return WEIR_CELL_NONE;
}

static bool is_spared(const struct weir_state *state) {
    return state->denials > 0 || state->usage >= LITTLE_USED;
}

/* The cells in both buckets of a new key that it may replace. */
struct candidates {
    uint32_t cell[2 * WEIR_BUCKET_CELLS];
    uint32_t limit[2 * WEIR_BUCKET_CELLS]; /* weir_limit_mark() of each */
    uint32_t count;
};

static void find_candidates(const struct weir_transaction *txn, const uint64_t bucket[2],
                            struct candidates *found) {
    found->count = 0;
    for (int b = 0; b < 1 + (bucket[1] != bucket[0]); b++)
        for (uint32_t i = 0; i < WEIR_BUCKET_CELLS; i++) {
            uint32_t cell = (uint32_t)(bucket[b] * WEIR_BUCKET_CELLS) + i;
            if (taken_by(txn, cell))
                continue;
            found->cell[found->count] = cell;
            found->limit[found->count++] = weir_limit_mark(txn->table->cell[cell].fingerprint);
        }
}

/* The number of spared candidates that have the limit of candidate `i`, itself included. */
static uint32_t count_alike(const struct weir_table *table, const struct candidates *among,
                            uint32_t i) {
    uint32_t alike = 0;
    for (uint32_t j = 0; j < among->count; j++)
        alike +=
            among->limit[j] == among->limit[i] && is_spared(&table->cell[among->cell[j]].state);
    return alike;
}

/* The number of the candidate to evict; `count` if there is none. */
static uint32_t choose_victim(const struct weir_table *table, const struct candidates *among) {
    uint32_t victim = among->count, most = 0; /* of its limit */
    for (uint32_t i = 0; i < among->count; i++) {
        const struct weir_state *state = &table->cell[among->cell[i]].state;
        uint32_t alike = is_spared(state) ? count_alike(table, among, i) : UINT32_MAX;
        if (victim == among->count || alike > most ||
            (alike == most && loses_less(state, &table->cell[among->cell[victim]].state))) {
            victim = i;
            most = alike;
        }
    }
    return victim;
}

/*
 * If a key that was denied recently is evicted, all candidates of its limit were. Lowers their
 * protection, so that keys that are still denied stay longest.
 */
static void cool(struct weir_table *table, const struct candidates *among, uint32_t victim) {
    if (table->cell[among->cell[victim]].state.denials == 0)
        return;
    for (uint32_t i = 0; i < among->count; i++) {
        struct weir_state *state = &table->cell[among->cell[i]].state;
        if (state->denials > 0 && among->limit[i] == among->limit[victim])
            state->denials--;
    }
}

static uint32_t free_in(const struct weir_table *table, uint64_t bucket, int64_t now_ns) {
    uint32_t base = (uint32_t)(bucket * WEIR_BUCKET_CELLS);
    for (uint32_t cell = base; cell < base + WEIR_BUCKET_CELLS; cell++) {
        const struct weir_state *state = &table->cell[cell].state;
        if (state->expires_ns <= now_ns && !weir_owns_lines(state))
            return cell;
    }
    return WEIR_CELL_NONE;
}

/* Moves the key in `from` to its other bucket, if that has room. */
static bool move_out(struct weir_transaction *txn, uint32_t from, int64_t now_ns) {
    struct weir_table *table = txn->table;
    struct weir_cell moving = table->cell[from];
    uint64_t bucket[2];
    weir_buckets_of(table, moving.fingerprint, bucket);
    uint32_t to = free_in(table, bucket[from / WEIR_BUCKET_CELLS == bucket[0]], now_ns);
    if (to == WEIR_CELL_NONE)
        return false;
    txn->change[0] =
        (struct weir_change){.cell = to, .fingerprint = moving.fingerprint, .state = &moving.state};
    txn->change[1] = (struct weir_change){.cell = from, .state = NULL};
    txn->changes = 2;
    weir_transaction_commit(txn);
    txn->changes = 0;
    return true;
}

/*
 * Makes room for a new key whose two buckets are full by moving another key, in a separate
 * transaction that changes no counter. `txn` holds the stripe and has no changes yet.
 * Returns whether a cell was moved.
 */
bool weir_cell_make_room(struct weir_transaction *txn, const uint64_t fingerprint[2],
                         int64_t now_ns) {
    uint64_t bucket[2];
    weir_buckets_of(txn->table, fingerprint, bucket);
    if (txn->lines.changed || bucket[0] == bucket[1] ||
        free_in(txn->table, bucket[0], now_ns) != WEIR_CELL_NONE ||
        free_in(txn->table, bucket[1], now_ns) != WEIR_CELL_NONE)
        return false;
    for (int b = 0; b < 2; b++)
        for (uint32_t i = 0; i < WEIR_BUCKET_CELLS; i++)
            if (move_out(txn, (uint32_t)(bucket[b] * WEIR_BUCKET_CELLS) + i, now_ns))
                return true;
    return false;
}

/*
 * Chooses a cell for a new key and frees the lines of the key that it replaces.
 * Returns 0, an error of the pool, or WEIR_ETOOMANY if this decision uses all the cells that the
 * key could take.
 */
int weir_cell_place(struct weir_transaction *txn, const uint64_t fingerprint[2], int64_t now_ns,
                    uint32_t *cell) {
    struct weir_table *table = txn->table;
    uint64_t bucket[2];
    struct candidates among;
    among.count = 0;
    weir_buckets_of(table, fingerprint, bucket);
    *cell = search(txn, bucket[0], fingerprint, now_ns);
    if (*cell == WEIR_CELL_NONE && bucket[1] != bucket[0])
        *cell = search(txn, bucket[1], fingerprint, now_ns);
    uint32_t victim = 0;
    bool evicts = *cell == WEIR_CELL_NONE;
    if (evicts) {
        find_candidates(txn, bucket, &among);
        victim = choose_victim(table, &among);
        if (victim == among.count)
            return WEIR_ETOOMANY;
        *cell = among.cell[victim];
    }
    struct weir_state was = table->cell[*cell].state;
    int rc = weir_owns_lines(&was) ? weir_log_drop(&was, &txn->lines) : 0;
    if (rc == 0 && evicts) {
        table->stripe[bucket[0] & table->stripe_mask].evictions++;
        cool(table, &among, victim);
    }
    return rc;
}

/*
 * Frees `cell` and its lines, and adds their number to *lines, in a separate transaction under a
 * stripe that `txn` holds.
 */
int weir_cell_forget(struct weir_transaction *txn, uint32_t cell, uint32_t *lines) {
    struct weir_state was = txn->table->cell[cell].state;
    txn->change[0] = (struct weir_change){.cell = cell, .state = NULL};
    int rc = weir_owns_lines(&was) ? weir_log_drop(&was, &txn->lines) : 0;
    if (rc == 0) {
        txn->changes = 1;
        *lines += txn->lines.given_count;
        weir_transaction_commit(txn);
    }
    weir_transaction_rewind(txn);
    return rc;
}

/* --------------------------------------------------------------- when the pool has no line left */

/* Reclaiming lines for a decision, whose own logs are kept. */
struct reclaim {
    struct weir_table *table;
    int64_t now_ns;
    const uint64_t *const *keep; /* fingerprints */
    uint32_t kept;
    uint32_t longest; /* lines of the longest of these logs */
    uint32_t lines;   /* freed */
};

/* The longest log of the keys that need a line. No lock is held. */
static int measure(struct reclaim *reclaim) {
    struct weir_table *table = reclaim->table;
    for (uint32_t i = 0; i < reclaim->kept; i++) {
        struct weir_transaction txn;
        uint32_t stripe = weir_cell_stripe(table, reclaim->keep[i]), count = 0;
        int rc = weir_lock_take(table, stripe);
        if (rc < 0)
            return rc;
        weir_transaction_begin(&txn, table);
        uint32_t cell = weir_cell_find(table, reclaim->keep[i]);
        if (cell != WEIR_CELL_NONE && weir_owns_lines(&table->cell[cell].state))
            rc = weir_log_lines(&table->cell[cell].state, &txn.lines, &count);
        weir_lock_release(table, stripe);
        if (rc < 0)
            return rc;
        if (count > reclaim->longest)
            reclaim->longest = count;
    }
    return 0;
}

/* Only logs at least as long as the longest log that needs a line are evicted. */
static bool may_evict(const struct reclaim *reclaim, const struct weir_cell *cell) {
    struct weir_transaction txn;
    uint32_t count;
    if (!weir_owns_lines(&cell->state))
        return false;
    weir_transaction_begin(&txn, reclaim->table);
    if (weir_log_lines(&cell->state, &txn.lines, &count) < 0 || count < reclaim->longest)
        return false;
    for (uint32_t i = 0; i < reclaim->kept; i++)
        if (!memcmp(cell->fingerprint, reclaim->keep[i], sizeof cell->fingerprint))
            return false;
    return true;
}

/*
 * Frees the expired logs of a bucket; with `evict`, if there is none, the log that loses_less()
 * selects.
 */
static int reclaim_bucket(struct reclaim *reclaim, uint64_t bucket, bool evict) {
    struct weir_table *table = reclaim->table;
    struct weir_transaction txn;
    uint32_t victim = WEIR_CELL_NONE;
    uint32_t stripe = (uint32_t)bucket & table->stripe_mask;
    int rc = weir_lock_try(table, stripe);
    if (rc < 0)
        return rc == WEIR_EBUSY ? 0 : rc;
    weir_transaction_begin(&txn, table);
    txn.lock[txn.locks++] = (uint16_t)stripe;
    for (uint32_t i = 0; i < WEIR_BUCKET_CELLS && rc == 0; i++) {
        uint32_t cell = (uint32_t)(bucket * WEIR_BUCKET_CELLS) + i;
        const struct weir_state *state = &table->cell[cell].state;
        if (weir_owns_lines(state) && state->expires_ns <= reclaim->now_ns)
            rc = weir_cell_forget(&txn, cell, &reclaim->lines);
        else if (may_evict(reclaim, &table->cell[cell]) &&
                 (victim == WEIR_CELL_NONE || loses_less(state, &table->cell[victim].state)))
            victim = cell;
    }
    if (rc == 0 && evict && reclaim->lines == 0 && victim != WEIR_CELL_NONE) {
        rc = weir_cell_forget(&txn, victim, &reclaim->lines);
        table->stripe[stripe].evictions++;
    }
    weir_transaction_end(&txn);
    return rc;
}

/* The bucket of the best log to evict, among the buckets searched. */
struct cheapest {
    bool found;
    uint64_t bucket;
    struct weir_state state;
};

static void consider(const struct reclaim *reclaim, uint64_t bucket, struct cheapest *best) {
    struct weir_table *table = reclaim->table;
    uint32_t stripe = (uint32_t)bucket & table->stripe_mask;
    if (weir_lock_try(table, stripe) < 0)
        return;
    for (uint32_t i = 0; i < WEIR_BUCKET_CELLS; i++) {
        const struct weir_cell *cell = &table->cell[bucket * WEIR_BUCKET_CELLS + i];
        if (may_evict(reclaim, cell) && (!best->found || loses_less(&cell->state, &best->state)))
            *best = (struct cheapest){true, bucket, cell->state};
    }
    weir_lock_release(table, stripe);
}

/*
 * Frees lines of expired logs. If there is none, and unless the logs that need a line are long,
 * evicts the best of the logs searched, but none that is shorter, and none of the `kept` keys in
 * keep[]: a decision must not get lines by deleting its own hits. *evicts: whether it may evict; if
 * not, calling it again is useless. Called with no lock held.
 * Returns 0 if a line was freed, WEIR_EFULL, or another error.
 */
int weir_table_reclaim(struct weir_table *table, int64_t now_ns, const uint64_t *const *keep,
                       uint32_t kept, bool *evicts) {
    struct reclaim reclaim = {.table = table, .now_ns = now_ns, .keep = keep, .kept = kept};
    uint64_t count = table->buckets < RECLAIM_BUCKETS ? table->buckets : RECLAIM_BUCKETS;
    uint64_t cursor =
        atomic_fetch_add_explicit(&table->header->sweep_cursor, count, memory_order_relaxed);
    struct cheapest best = {.found = false};
    int rc = measure(&reclaim);
    *evicts = !weir_log_is_long(reclaim.longest, table->lines);
    for (uint64_t i = 0; i < count && reclaim.lines < RECLAIM_LINES && rc == 0; i++) {
        uint64_t bucket = (cursor + i) % table->buckets;
        rc = reclaim_bucket(&reclaim, bucket, false);
        if (rc == 0 && reclaim.lines == 0 && *evicts)
            consider(&reclaim, bucket, &best);
    }
    if (rc == 0 && reclaim.lines == 0 && best.found)
        rc = reclaim_bucket(&reclaim, best.bucket, true);
    return rc < 0 ? rc : reclaim.lines > 0 ? 0 : WEIR_EFULL;
}
