/*
 * Transactions: the cells and lines that one decision changes become visible together. The protocol
 * is described at struct weir_lock in layout.h.
 */
#ifndef WEIR_COMMIT_H
#define WEIR_COMMIT_H

#include "table/lock.h"

struct weir_change {
    uint32_t cell;                  /* index; its stripe's lock is held */
    bool same_key;                  /* the cell's fingerprint stays */
    const uint64_t *fingerprint;    /* of the new key; borrowed until the commit */
    const struct weir_state *state; /* the new state; NULL: the cell becomes free */
};
struct weir_transaction {
    struct weir_table *table;
    uint32_t changes;
    uint32_t locks; /* stripes held, ascending */
    uint16_t lock[WEIR_CHECKS_MAX];
    struct weir_change change[WEIR_CHECKS_MAX];
    struct weir_lines lines;
};
int weir_transaction_lock_pool(struct weir_lines *lines);

static inline void weir_transaction_begin(struct weir_transaction *txn, struct weir_table *table) {
    struct weir_lines *lines = &txn->lines;
    txn->table = table;
    txn->changes = 0;
    txn->locks = 0;
    lines->line = table->line;
    lines->total = table->lines;
    lines->given_head = WEIR_LINE_NONE;
    lines->given_count = 0;
    lines->links = 0;
    lines->locked = false;
    lines->changed = false;
    lines->lock = weir_transaction_lock_pool;
    lines->owner = table;
}

void weir_transaction_rewind(
    struct weir_transaction *txn); /* drops its changes, and the lines it took or returned */
/* Makes all changes or none. They are final when it returns, even if the process is killed then. */
void weir_transaction_commit(struct weir_transaction *txn);

/*
 * Orders stores for the case that the process is killed: those before it are in the mapping first.
 */
#define WEIR_ORDER() atomic_signal_fence(memory_order_seq_cst)

/*
 * Commits a change of at most one word of a state. Returns false, with nothing done, if it changes
 * more.
 */
static inline bool weir_commit_word(struct weir_state *from, const struct weir_state *to) {
    bool expires = from->expires_ns != to->expires_ns, a = from->word[0] != to->word[0],
         b = from->word[1] != to->word[1], c = from->word[2] != to->word[2];
    if (expires + a + b + c > 1 || from->line[0] != to->line[0] || from->line[1] != to->line[1] ||
        from->line[2] != to->line[2])
        return false;
    from->usage = to->usage; /* a hint: any value is safe beside the old word */
    WEIR_ORDER();
    int64_t *word = expires ? &from->expires_ns
                    : a     ? &from->word[0]
                    : b     ? &from->word[1]
                            : &from->word[2];
    *(volatile int64_t *)word = expires ? to->expires_ns
                                : a     ? to->word[0]
                                : b     ? to->word[1]
                                        : to->word[2];
    return true;
}
/*
 * Commits the change of one cell that keeps its key, under its stripe's lock: the protocol of
 * struct weir_lock for a stripe that is its own coordinator and has no participants.
 */
static inline void weir_commit_cell(struct weir_table *table, uint32_t stripe, uint32_t index,
                                    const struct weir_state *state) {
    struct weir_lock *lock = &table->stripe[stripe].lock;
    struct weir_undo *undo = &table->stripe[stripe].undo[0];
    struct weir_cell *cell = &table->cell[index];
    uint64_t seq = ++lock->last_seq;
    lock->participants = 0;
    lock->coordinator = stripe;
    lock->seq = seq;
    undo->cell = index;
    undo->was = *cell;
    WEIR_ORDER(); /* the record is complete before it becomes valid */
    lock->undo_ready = 2;
    WEIR_ORDER();
    atomic_store_explicit(&lock->txn, seq, memory_order_release);
    WEIR_ORDER();
    cell->state = *state;
    WEIR_ORDER();
    atomic_store_explicit(&lock->txn, 0, memory_order_release);
    WEIR_ORDER();
    lock->undo_ready = 0;
}

/* The same, by a single store if one word changes. */
static inline void weir_commit_one(struct weir_table *table, uint32_t stripe, uint32_t index,
                                   const struct weir_state *state) {
    if (!weir_commit_word(&table->cell[index].state, state))
        weir_commit_cell(table, stripe, index, state);
}

/* Releases all locks of a transaction. */
static inline void weir_transaction_end(struct weir_transaction *txn) {
    if (__builtin_expect(txn->lines.locked, 0))
        weir_lock_release(txn->table, txn->table->stripe_mask + 1);
    for (uint32_t i = txn->locks; i-- > 0;)
        weir_lock_release_at(txn->table, &txn->table->stripe[txn->lock[i]].lock);
}

#endif
