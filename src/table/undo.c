/*
 * Restores data that a dead process left half changed under one lock. struct weir_lock in layout.h
 * has the protocol.
 */
#include "table/undo.h"

#include "table/lock.h"

/* The record may come from a damaged file, so every index is checked. */
void weir_undo_apply(struct weir_table *table, uint32_t index) {
    struct weir_lock *lock = weir_lock_at(table, index);
    uint32_t entries = lock->undo_ready ? lock->undo_ready - 1 : 0;
    if (index <= table->stripe_mask) {
        if (entries > WEIR_CHECKS_MAX)
            return;
        for (uint32_t i = 0; i < entries; i++) {
            const struct weir_undo *undo = &table->stripe[index].undo[i];
            if (undo->cell < table->header->keys)
                table->cell[undo->cell] = undo->was;
        }
        return;
    }
    struct weir_pool *pool = table->pool;
    if (entries > WEIR_LINKS_MAX + 1 || lock->undo_ready == 0)
        return;
    for (uint32_t i = entries; i-- > 0;)
        if (pool->was[i].line < table->lines)
            table->line[pool->was[i].line].next = pool->was[i].next;
    pool->free_head = pool->was_head;
    pool->free_count = pool->was_count;
}
