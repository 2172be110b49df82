/*
 * Reads the whole table: verifies its invariants (weir_table_check), counts its contents
 * (weir_table_info).
 *
 *  - a cell is free (fingerprint 0,0 and all zero) or in one of its fingerprint's two buckets, once
 *  - every line but line 0 is in exactly one log, or on the free list, whose length is free_count
 *  - a log's count equals the sum over its entries (src/strategy/log/log.c)
 *  - the statistics and the rules (src/stats/record.c, src/rules/lookup.c)
 *  - no transaction is under way, and no undo record ready, while no lock is held
 */
#include <stdlib.h>
#include <string.h>

#include "stats/stats.h"
#include "error.h"
#include "table/cell.h"
#include "table/hash.h"
#include "strategy/log/log.h"
#include "rules/rules.h"

static int corrupt(struct weir_error *error, const char *what, uint64_t where) {
    return weir_fail(error, WEIR_ECORRUPT, 0, "%s (at %llu)", what, (unsigned long long)where);
}

static int check_cell(struct weir_table *table, uint32_t index, const struct weir_lines *lines,
                      uint8_t *seen, struct weir_error *error) {
    const struct weir_cell *cell = &table->cell[index];
    const struct weir_state *state = &cell->state;
    uint64_t bucket[2];
    if ((cell->fingerprint[0] | cell->fingerprint[1]) == 0) {
        static const struct weir_state zero;
        struct weir_state rest = *state;
        rest.denials = 0; /* a hint, which is changed outside of transactions */
        return memcmp(&rest, &zero, sizeof zero) ? corrupt(error, "a free cell is not empty", index)
                                                 : 0;
    }
    weir_buckets_of(table, cell->fingerprint, bucket);
    if (index / WEIR_BUCKET_CELLS != bucket[0] && index / WEIR_BUCKET_CELLS != bucket[1])
        return corrupt(error, "a key is in a bucket that is not its own", index);
    for (int i = 0; i < 2; i++)
        for (uint32_t j = 0; j < WEIR_BUCKET_CELLS; j++) {
            uint32_t other = (uint32_t)(bucket[i] * WEIR_BUCKET_CELLS) + j;
            if (other != index && !memcmp(table->cell[other].fingerprint, cell->fingerprint,
                                          sizeof cell->fingerprint))
                return corrupt(error, "a key is there twice", index);
        }
    if (state->expires_ns < 0 || state->word[0] < 0 || state->word[1] < 0 || state->word[2] < 0)
        return corrupt(error, "a counter is negative", index);
    if (state->strategy >= WEIR_STRATEGIES)
        return corrupt(error, "a cell of an unknown strategy", index);
    if (weir_strategies[state->strategy]->packing != WEIR_PACK_LOG)
        return weir_owns_lines(state) ? corrupt(error, "a cell without a log owns log lines", index)
                                      : 0;
    return weir_log_verify(state, lines, seen) < 0 ? corrupt(error, "a log is broken", index) : 0;
}

static int check_free_list(struct weir_table *table, uint8_t *seen, struct weir_error *error) {
    uint32_t count = 0;
    for (uint32_t line = table->pool->free_head; line != WEIR_LINE_NONE && count < table->lines;
         line = table->line[line].next & WEIR_LINE_MASK, count++) {
        if (line >= table->lines)
            return corrupt(error, "the free list leaves the pool", line);
        if (seen[line / 8] & 1 << line % 8)
            return corrupt(error, "a line is twice in use or free", line);
        seen[line / 8] |= (uint8_t)(1 << line % 8);
    }
    return count == table->pool->free_count
               ? 0
               : corrupt(error, "the free list has another length", count);
}

static int check_all(struct weir_table *table, uint8_t *seen, struct weir_error *error) {
    struct weir_transaction txn;
    weir_transaction_begin(&txn, table);
    for (uint32_t i = 0; i < weir_locks(table); i++) {
        struct weir_lock *lock = weir_lock_at(table, i);
        if (lock->undo_ready != 0 || atomic_load(&lock->txn) != 0)
            return corrupt(error, "an undo record is ready, but its lock is free", i);
    }
    for (uint32_t i = 0; i < table->header->keys; i++) {
        int rc = check_cell(table, i, &txn.lines, seen, error);
        if (rc < 0)
            return rc;
    }
    int rc = check_free_list(table, seen, error);
    if (rc == 0)
        rc = weir_stats_check(table, error);
    if (rc == 0)
        rc = weir_rules_check(table, error);
    for (uint32_t line = 1; line < table->lines && rc == 0; line++)
        if (!(seen[line / 8] & 1 << line % 8))
            rc = corrupt(error, "a line is lost", line);
    return rc;
}

int weir_table_check(struct weir_table *table, struct weir_error *error) {
    if (!table)
        return weir_fail(error, WEIR_EINVAL, 0, "no table");
    uint8_t *seen = calloc(1, (size_t)table->lines / 8 + 1);
    if (!seen)
        return weir_fail(error, WEIR_ENOMEM, 0, "%s: out of memory", table->name);
    int rc = table->backing == WEIR_BACKING_MEMORY ? weir_after_fork(table) : 0;
    if (rc == 0)
        rc = weir_lock_all(table);
    if (rc == 0) {
        rc = check_all(table, seen, error);
        weir_release_all(table);
    } else {
        weir_fail(error, rc, 0, "%s: %s", table->name, weir_strerror(rc));
    }
    free(seen);
    if (weir_is_cut(table))
        return weir_fail(error, WEIR_EFORMAT, 0, "%s: truncated; remove it", table->name);
    return rc;
}

int weir_table_info(struct weir_table *table, int64_t now_ns, struct weir_table_info *info) {
    if (!table || !info)
        return WEIR_EINVAL;
    int rc = table->backing == WEIR_BACKING_MEMORY ? weir_after_fork(table) : 0;
    uint32_t stripes = table->stripe_mask + 1;
    *info = (struct weir_table_info){.keys_max = table->header->keys,
                                     .lines_max = table->lines - 1,
                                     .bytes = table->bytes,
                                     .stripes = stripes,
                                     .huge_pages = table->huge_pages};
    for (uint32_t stripe = 0; stripe < stripes && rc == 0; stripe++) {
        rc = weir_lock_take(table, stripe);
        if (rc < 0)
            return rc;
        info->evictions += table->stripe[stripe].evictions;
        for (uint64_t bucket = stripe; bucket < table->buckets; bucket += stripes)
            for (uint32_t i = 0; i < WEIR_BUCKET_CELLS; i++)
                info->keys += table->cell[bucket * WEIR_BUCKET_CELLS + i].state.expires_ns > now_ns;
        weir_lock_release(table, stripe);
    }
    if (rc == 0)
        rc = weir_lock_take(table, stripes);
    if (rc < 0)
        return rc;
    info->lines_used = info->lines_max - table->pool->free_count;
    weir_lock_release(table, stripes);
    info->recoveries = atomic_load(&table->header->recoveries);
    return weir_result(table, 0);
}
