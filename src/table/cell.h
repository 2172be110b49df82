/*
 * Cells: where the state of a key is, or where a new one goes.
 */
#ifndef WEIR_CELL_H
#define WEIR_CELL_H

#include "table/commit.h"

/* Whether a state owns lines of the pool. Line 0 is never used, so all zero means none. */
static inline bool weir_owns_lines(const struct weir_state *state) {
    return (state->line[0] | state->line[1] | state->line[2]) != 0;
}

static inline uint64_t weir_first_bucket(const struct weir_table *table,
                                         const uint64_t fingerprint[2]) {
    return (uint64_t)((unsigned __int128)fingerprint[0] * table->buckets >> 64);
}

static inline uint32_t weir_cell_stripe(const struct weir_table *table,
                                        const uint64_t fingerprint[2]) {
    return (uint32_t)weir_first_bucket(table, fingerprint) & table->stripe_mask;
}

/* The cell of a bucket at which the search for a key starts. */
static inline uint32_t weir_first_cell(const uint64_t fingerprint[2]) {
    return (uint32_t)fingerprint[1] % WEIR_BUCKET_CELLS;
}

/* The key's cell by a search of both buckets, or WEIR_CELL_NONE. */
uint32_t weir_cell_search(const struct weir_table *table, const uint64_t fingerprint[2]);

/* The key's cell, or WEIR_CELL_NONE. Usually the first cell of the search has it. */
static inline uint32_t weir_cell_find(const struct weir_table *table,
                                      const uint64_t fingerprint[2]) {
    uint32_t cell = (uint32_t)(weir_first_bucket(table, fingerprint) * WEIR_BUCKET_CELLS) +
                    weir_first_cell(fingerprint);
    const uint64_t *there = table->cell[cell].fingerprint;
    return there[0] == fingerprint[0] && there[1] == fingerprint[1]
               ? cell
               : weir_cell_search(table, fingerprint);
}

/* The functions below are described in cell.c. */
bool weir_cell_make_room(struct weir_transaction *txn, const uint64_t fingerprint[2],
                         int64_t now_ns);
int weir_cell_place(struct weir_transaction *txn, const uint64_t fingerprint[2], int64_t now_ns,
                    uint32_t *cell);
int weir_cell_forget(struct weir_transaction *txn, uint32_t cell, uint32_t *lines);
void weir_buckets_of(const struct weir_table *table, const uint64_t fingerprint[2],
                     uint64_t bucket[2]);
int weir_table_reclaim(struct weir_table *table, int64_t now_ns, const uint64_t *const *keep,
                       uint32_t kept, bool *evicts);

#endif
