/*
 * A transaction: the cells and lines that one decision changes, made visible all at once.
 *
 * struct weir_lock in layout.h tells the protocol. The stores below happen in program order as far as a
 * killed process is concerned, so a compiler barrier between the steps is all that SIGKILL asks for: the
 * recoverer reads through the lock, which orders the processors.
 *
 * A change of one 8-byte word of one cell is a commit by itself and needs no record; a fixed window that
 * counts up is such a change.
 */
#include <string.h>

#include "table/layout.h"

int weir_transaction_lock_pool(struct weir_lines *lines) {
    struct weir_table *table = lines->owner;
    int rc = weir_lock_take(table, table->stripe_mask + 1);
    if (rc < 0)
        return rc;
    lines->locked = true;
    lines->free_head = table->pool->free_head;
    lines->free_count = table->pool->free_count;
    return 0;
}

void weir_transaction_rewind(struct weir_transaction *txn) {
    struct weir_lines *lines = &txn->lines;
    txn->changes = 0;
    lines->given_head = WEIR_LINE_NONE;
    lines->given_count = 0;
    lines->links = 0;
    lines->changed = false;
    if (lines->locked) {
        lines->free_head = txn->table->pool->free_head;
        lines->free_count = txn->table->pool->free_count;
    }
}

static uint32_t stripe_of(const struct weir_table *table, uint32_t cell) {
    return (cell / WEIR_BUCKET_CELLS) & table->stripe_mask;
}

static void arm(struct weir_transaction *txn, uint32_t index, uint32_t lead, uint64_t seq) {
    struct weir_lock *lock = weir_lock_at(txn->table, index);
    lock->lead = lead;
    lock->seq = seq;
    WEIR_ORDER(); /* an older seq beside a new record might still be its lead's */
    lock->armed = 1;
    if (index != lead) {
        struct weir_lock *leader = weir_lock_at(txn->table, lead);
        uint32_t at = leader->members++;
        while (at > 0 && leader->member[at - 1] > index) {
            leader->member[at] = leader->member[at - 1];
            at--;
        }
        leader->member[at] = (uint16_t)index;
    }
}

static void record_cells(struct weir_transaction *txn, uint32_t lead, uint64_t seq) {
    struct weir_table *table = txn->table;
    for (uint32_t i = 0; i < txn->changes; i++) {
        uint32_t index = stripe_of(table, txn->change[i].cell);
        struct weir_stripe *stripe = &table->stripe[index];
        if (stripe->lock.armed == 0)
            arm(txn, index, lead, seq);
        struct weir_undo *undo = &stripe->undo[stripe->lock.armed - 1];
        undo->cell = txn->change[i].cell;
        undo->was = table->cell[txn->change[i].cell];
        stripe->lock.armed++;
    }
}

static void record_lines(struct weir_transaction *txn, uint32_t lead, uint64_t seq) {
    struct weir_pool *pool = txn->table->pool;
    const struct weir_lines *lines = &txn->lines;
    arm(txn, txn->table->stripe_mask + 1, lead, seq);
    pool->was_head = pool->free_head;
    pool->was_count = pool->free_count;
    for (uint32_t i = 0; i < lines->links; i++)
        pool->was[i] =
            (struct weir_link){lines->link[i].line, txn->table->line[lines->link[i].line].next};
    pool->lock.armed = lines->links + 1;
}

static void write_lines(struct weir_transaction *txn) {
    struct weir_pool *pool = txn->table->pool;
    const struct weir_lines *lines = &txn->lines;
    for (uint32_t i = 0; i < lines->links; i++)
        txn->table->line[lines->link[i].line].next = lines->link[i].next;
    pool->free_head = lines->given_head != WEIR_LINE_NONE ? lines->given_head : lines->free_head;
    pool->free_count = lines->free_count + lines->given_count;
}

static void write_cell(struct weir_table *table, const struct weir_change *change) {
    struct weir_cell *cell = &table->cell[change->cell];
    if (!change->state) {
        memset(cell, 0, sizeof *cell);
        return;
    }
    cell->fingerprint[0] = change->fingerprint[0];
    cell->fingerprint[1] = change->fingerprint[1];
    cell->state = *change->state;
}

static void disarm(struct weir_transaction *txn) {
    struct weir_table *table = txn->table;
    for (uint32_t i = 0; i < txn->changes; i++)
        table->stripe[stripe_of(table, txn->change[i].cell)].lock.armed = 0;
    if (txn->lines.changed)
        table->pool->lock.armed = 0;
    weir_lock_at(table, txn->lock[0])->armed = 0;
}

void weir_transaction_commit(struct weir_transaction *txn) {
    struct weir_table *table = txn->table;
    struct weir_lines *lines = &txn->lines;
    if (txn->changes == 0 && !lines->changed)
        return;
    const struct weir_change *only = &txn->change[0];
    if (txn->changes == 1 && !lines->changed && only->same_key && only->state) {
        weir_commit_one(table, stripe_of(table, only->cell), only->cell, only->state);
        return;
    }

    uint32_t lead = txn->lock[0];
    struct weir_lock *leader = weir_lock_at(table, lead);
    uint64_t seq = ++leader->last_seq;
    leader->members = 0;
    WEIR_ORDER();              /* nobody arms anything with a number that may be given out again */
    arm(txn, lead, lead, seq); /* with nothing to undo, maybe: who takes the lock on sees `armed` */
    if (lines->changed &&
        lines->given_head != WEIR_LINE_NONE) /* given lines go before the free ones; */
        lines->link[lines->links++] =        /* take() left room for this link */
            (struct weir_link){lines->given_tail, lines->free_head};
    record_cells(txn, lead, seq);
    if (lines->changed)
        record_lines(txn, lead, seq);
    WEIR_ORDER();
    atomic_store_explicit(&leader->txn, seq, memory_order_release);
    WEIR_ORDER();
    for (uint32_t i = 0; i < txn->changes; i++)
        write_cell(table, &txn->change[i]);
    if (lines->changed)
        write_lines(txn);
    WEIR_ORDER();
    atomic_store_explicit(&leader->txn, 0, memory_order_release);
    WEIR_ORDER();
    disarm(txn);
}
