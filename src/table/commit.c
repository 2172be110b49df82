/*
 * A transaction makes the cells and lines that one decision changes visible together.
 *
 * struct weir_lock in layout.h describes the protocol. If the process is killed, its stores have
 * happened in program order, so compiler barriers between the steps are sufficient. Another process
 * reads them only after it has taken the lock, which orders the processors.
 *
 * A change of one 8-byte word of one cell is atomic and needs no undo record. Counting up in a
 * fixed window is such a change.
 */
#include <string.h>

#include "table/commit.h"

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

static void prepare_undo(struct weir_transaction *txn, uint32_t index, uint32_t coordinator,
                         uint64_t seq) {
    struct weir_lock *lock = weir_lock_at(txn->table, index);
    lock->coordinator = coordinator;
    lock->seq = seq;
    WEIR_ORDER(); /* or an older seq beside the new record could equal the coordinator's txn */
    lock->undo_ready = 1;
    if (index != coordinator) {
        struct weir_lock *first = weir_lock_at(txn->table, coordinator);
        uint32_t at = first->participants++;
        while (at > 0 && first->participant[at - 1] > index) {
            first->participant[at] = first->participant[at - 1];
            at--;
        }
        first->participant[at] = (uint16_t)index;
    }
}

static void record_cells(struct weir_transaction *txn, uint32_t coordinator, uint64_t seq) {
    struct weir_table *table = txn->table;
    for (uint32_t i = 0; i < txn->changes; i++) {
        uint32_t index = stripe_of(table, txn->change[i].cell);
        struct weir_stripe *stripe = &table->stripe[index];
        if (stripe->lock.undo_ready == 0)
            prepare_undo(txn, index, coordinator, seq);
        struct weir_undo *undo = &stripe->undo[stripe->lock.undo_ready - 1];
        undo->cell = txn->change[i].cell;
        undo->was = table->cell[txn->change[i].cell];
        stripe->lock.undo_ready++;
    }
}

static void record_lines(struct weir_transaction *txn, uint32_t coordinator, uint64_t seq) {
    struct weir_pool *pool = txn->table->pool;
    const struct weir_lines *lines = &txn->lines;
    prepare_undo(txn, txn->table->stripe_mask + 1, coordinator, seq);
    pool->was_head = pool->free_head;
    pool->was_count = pool->free_count;
    for (uint32_t i = 0; i < lines->links; i++)
        pool->was[i] =
            (struct weir_link){lines->link[i].line, txn->table->line[lines->link[i].line].next};
    pool->lock.undo_ready = lines->links + 1;
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

static void drop_undo(struct weir_transaction *txn) {
    struct weir_table *table = txn->table;
    for (uint32_t i = 0; i < txn->changes; i++)
        table->stripe[stripe_of(table, txn->change[i].cell)].lock.undo_ready = 0;
    if (txn->lines.changed)
        table->pool->lock.undo_ready = 0;
    weir_lock_at(table, txn->lock[0])->undo_ready = 0;
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

    uint32_t coordinator = txn->lock[0];
    struct weir_lock *first = weir_lock_at(table, coordinator);
    uint64_t seq = ++first->last_seq;
    first->participants = 0;
    WEIR_ORDER(); /* no record is prepared with a seq that could be used again */
    prepare_undo(txn, coordinator, coordinator,
                 seq); /* maybe without entries: a recoverer checks undo_ready */
    if (lines->changed &&
        lines->given_head != WEIR_LINE_NONE) /* returned lines go before the free ones; */
        lines->link[lines->links++] =        /* take() left room for this link */
            (struct weir_link){lines->given_tail, lines->free_head};
    record_cells(txn, coordinator, seq);
    if (lines->changed)
        record_lines(txn, coordinator, seq);
    WEIR_ORDER();
    atomic_store_explicit(&first->txn, seq, memory_order_release);
    WEIR_ORDER();
    for (uint32_t i = 0; i < txn->changes; i++)
        write_cell(table, &txn->change[i]);
    if (lines->changed)
        write_lines(txn);
    WEIR_ORDER();
    atomic_store_explicit(&first->txn, 0, memory_order_release);
    WEIR_ORDER();
    drop_undo(txn);
}
