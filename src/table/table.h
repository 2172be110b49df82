/*
 * A process's handle of an open table: pointers into the mapping, and data of this process alone.
 */
#ifndef WEIR_TABLE_INTERNAL_H
#define WEIR_TABLE_INTERNAL_H

#include "table/guard.h"
#include "table/layout.h"

struct weir_stats; /* stats/stats_layout.h */
struct weir_rules; /* rules/rules.h */

#define WEIR_RULES_LEVELS 6u

/*
 * Offsets within a copy of the rules (rules.h). Each process computes them from the capacity, so
 * they cannot be damaged.
 */
struct weir_rules_plan {
    uint32_t capacity, slots, name_bytes; /* room for */
    size_t entry_at, end_at, wider_at, mark_4_at, mark_6_at, slot_at, name_at;
    size_t key_4_at[WEIR_RULES_LEVELS]; /* of each level; 0 has all keys */
    size_t key_6_at[WEIR_RULES_LEVELS];
    size_t copy_bytes;
};

enum weir_backing {
    WEIR_BACKING_MEMORY, /* of one process; a forked child has a copy */
    WEIR_BACKING_FORKS,  /* memory that processes forked from this one share */
    WEIR_BACKING_SHM,
    WEIR_BACKING_FILE,
};

#define WEIR_HASH_CACHE_ENTRIES 512u
#define WEIR_HASH_CACHE_WORDS 6u
#define WEIR_HASH_CACHE_BYTES (WEIR_HASH_CACHE_WORDS * 8u)

/* Recently hashed bytes and their hash; a sequence lock (odd: being written). */
struct weir_hash_entry {
    _Atomic uint64_t version;
    _Atomic uint64_t
        owner; /* whose bytes: 0: a whole key; else part of a prepared check, and its client */
    _Atomic uint64_t key_len;
    _Atomic uint64_t key[WEIR_HASH_CACHE_WORDS];
    _Atomic uint64_t hash[2];
};

struct weir_table {
    struct weir_header *header;
    struct weir_stripe *stripe;
    struct weir_pool *pool;
    struct weir_cell *cell;
    struct weir_line *line;
    struct weir_stats *stats;
    struct weir_rules *rules;
    struct weir_rules_plan rules_plan;
    uint64_t buckets;
    uint32_t stripe_mask;
    uint32_t lines;
    enum weir_backing backing;
    int (*repair)(struct weir_table *table); /* initializes all locks, also those of the rules */
    int fd; /* holds a shared flock() for as long as the table is open */
    size_t bytes;
    struct weir_mapping *mapping; /* NULL: memory */
    _Atomic uint64_t *end_mark;   /* NULL: no file */
    bool has_name;                /* the file had a name when it was opened: lost.c */
    bool was_cut;                 /* and it was shorter once */
    uint64_t device, inode;       /* of the file. The program may have closed the descriptor */
    uint32_t huge_pages;
    _Atomic int reveal;               /* clients are listed in clear */
    _Atomic uint64_t fork_generation; /* memory://: locks are true for this generation */
    char name[WEIR_NAME_MAX + 64];    /* for messages */
    struct weir_hash_entry hash_cache[WEIR_HASH_CACHE_ENTRIES];
};

/*
 * Whether its file was truncated: a call has read a missing page, or the file was extended again
 * and the mark at its end is missing. What calls have read since then is wrong. Ends a process
 * without weir_table_guard() if the file is still too short.
 */
static inline bool weir_is_cut(const struct weir_table *table) {
    atomic_signal_fence(memory_order_seq_cst);
    return (table->mapping &&
            __builtin_expect(atomic_load_explicit(&table->mapping->lost, memory_order_relaxed),
                             0)) ||
           (table->end_mark &&
            __builtin_expect(
                atomic_load_explicit(table->end_mark, memory_order_relaxed) != WEIR_END_MARK, 0));
}

/* The result of a call that has read the table. */
static inline int weir_result(const struct weir_table *table, int rc) {
    return weir_is_cut(table) ? WEIR_EFORMAT : rc;
}

#endif
