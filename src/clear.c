/* Deletes counters: those of some checks, or all. */
#include "checks.h"
#include "table/cell.h"
#include "table/hash.h"

int weir_clear(struct weir_table *table, const struct weir_check *checks, size_t n) {
    int rc = table ? weir_checks_validate(checks, n) : WEIR_EINVAL;
    if (rc == 0 && table->backing == WEIR_BACKING_MEMORY)
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
    return table ? weir_result(table, rc) : rc;
}

int weir_table_reset(struct weir_table *table) {
    if (!table)
        return WEIR_EINVAL;
    int rc = table->backing == WEIR_BACKING_MEMORY ? weir_after_fork(table) : 0;
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
    return weir_result(table, rc);
}
