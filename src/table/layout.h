/*
 * The bytes of a table, whatever its backing. All places are indices or offsets, never pointers.
 *
 *     offset          what
 *     0               struct weir_header                        4096 bytes, with meters (meter.c)
 *     stripes_at      struct weir_stripe [stripes]              one lock and undo record each
 *     pool_at         struct weir_pool                          lock and undo record of the lines
 *     stats_at        struct weir_stats                         labels; stats.h
 *                     struct weir_stats_stripe [stripes]        counts and heavy hitters of each
 *                     struct weir_registered_limit [registry_room]  registry of limits
 *     rules_at        rules.h                                   rules about clients
 *     cells_at        struct weir_cell [keys]                   64 bytes a key, in buckets of 8
 *     lines_at        struct weir_line [lines]                  64 bytes, line 0 is never used
 *
 * Bucket b belongs to stripe b mod stripes. A key may sit in one of two buckets of the same stripe, so
 * that one lock covers every place it can be.
 *
 * Who may write what
 *  - "made": by the creator before the table gets its name, then by nobody. Covered by `checksum`.
 *  - "stripe": under that stripe's lock. A crash leaves it half-made; the stripe's undo record says how
 *    it was before.
 *  - "pool": the same under the pool's lock.
 *  - "hint": any value is safe, in particular the one a crash leaves.
 */
#ifndef WEIR_LAYOUT_H
#define WEIR_LAYOUT_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "strategy/log/lines.h"
#include "strategy/strategy.h"
#include "table/word_lock.h"
#include "weir/weir.h"

#define WEIR_MAGIC "WEIRTBL\n"
#define WEIR_LAYOUT_VERSION 3u
#define WEIR_BUCKET_CELLS 8u
#define WEIR_STRIPES_MAX 256u
#define WEIR_CELL_NONE UINT32_MAX

struct weir_header {
    unsigned char magic[8];   /* made */
    uint32_t version;         /* made: WEIR_LAYOUT_VERSION */
    uint32_t header_bytes;    /* made: 4096 */
    uint64_t signature;       /* made: sizes, alignment, lock type, byte order of the maker */
    uint64_t bytes;           /* made: the whole mapping */
    uint64_t keys;            /* made: cells */
    uint64_t hits;            /* made: as asked for */
    uint32_t stripes;         /* made: a power of two, 1 to WEIR_STRIPES_MAX */
    uint32_t lines;           /* made */
    uint64_t stripes_at;      /* made */
    uint64_t pool_at;         /* made */
    uint64_t cells_at;        /* made */
    uint64_t lines_at;        /* made */
    uint64_t stats_at;        /* made */
    uint64_t rules_at;        /* made */
    uint32_t rules;           /* made: rules there is room for */
    uint32_t registry_room;   /* made: limits there is room for in the registry */
    unsigned char secret[16]; /* made: key of SipHash, from the kernel's random source */
    uint64_t mix[6];          /* made: odd random factors that tell limits of one key apart */
    uint64_t checksum;        /* made: SipHash of all above under a fixed key, against damage */
    uint64_t pad[2];
    _Atomic uint64_t sweep_cursor; /* hint: where the next sweep for expired logs starts */
    _Atomic uint64_t recoveries;   /* locks taken over from the dead; a crash may lose one */
};

_Static_assert(offsetof(struct weir_header, checksum) == 176, "byte map");
_Static_assert(offsetof(struct weir_header, sweep_cursor) == 200, "byte map");
#define WEIR_HEADER_BYTES 4096u
_Static_assert(sizeof(struct weir_header) <= WEIR_HEADER_BYTES, "the header has a page");

struct weir_cell {
    uint64_t
        fingerprint[2]; /* stripe: 112 keyed bits of key and limit, 16 of the limit; 0,0: free */
    struct weir_state state; /* stripe; `usage` and `denials` are hints */
};

_Static_assert(sizeof(struct weir_cell) == 64, "a cell is one cache line");

/*
 * A lock and the state of the transaction that its holder commits. A transaction that changes more than
 * one word is coordinated by the lowest stripe it holds:
 *
 *   1. each lock it changes anything under gets an undo record: `coordinator`, `seq`, `undo_ready`, then the old bytes
 *   2. coordinator.txn = seq           from here on a crash is undone
 *   3. cells, links, free list  are written
 *   4. coordinator.txn = 0             from here on a crash keeps the change: the commit, one store
 *   5. undo_ready = 0 everywhere
 *
 * The next holder of a dead process's lock undoes its record if coordinator.txn is still its seq. The recoverer of the
 * coordinator first undoes every participant (they are higher, so the lock order holds), then
 * clears txn. The next recoverer may repeat all of it.
 */
struct weir_lock {
    pthread_mutex_t mutex; /* process-shared and robust (memory://: a word, word_lock.h) */
    _Atomic uint64_t txn;  /* its holder; read by recoverers of other locks. 0: none */
    uint32_t coordinator;  /* holder: the stripe that coordinates the record's transaction */
    uint32_t undo_ready;   /* holder: the undo record's number of entries + 1; 0: none */
    uint64_t seq;          /* holder: of the undo record; unique under its coordinator */
    uint64_t last_seq;     /* holder, as coordinator: the latest seq it gave out */
    uint32_t participants; /* holder, as coordinator: locks in participant[] */
    uint16_t participant[WEIR_CHECKS_MAX + 1]; /* holder: ascending; `stripes`: the pool */
};

struct weir_undo {
    uint64_t cell;        /* holder: index of the cell */
    struct weir_cell was; /* holder: its bytes before */
};

struct weir_stripe {
    _Alignas(64) struct weir_lock lock;
    uint64_t evictions; /* stripe, outside of the undo record: a crash may lose one */
    struct weir_undo undo[WEIR_CHECKS_MAX];
};

struct weir_pool {
    _Alignas(64) struct weir_lock lock;
    uint32_t free_head;                       /* pool */
    uint32_t free_count;                      /* pool */
    uint32_t was_head;                        /* holder: undo */
    uint32_t was_count;                       /* holder: undo */
    struct weir_link was[WEIR_LINKS_MAX + 1]; /* holder: undo, last entry first */
};

struct weir_stats; /* stats.h */
struct weir_rules; /* rules.h */

#define WEIR_RULES_LEVELS 6u

/*
 * Where things are in a copy of the rules (rules.h). Each process computes its own of the capacity alone: there
 * is nothing to damage.
 */
struct weir_rules_plan {
    uint32_t capacity, slots, name_bytes; /* room for */
    size_t entry_at, end_at, wider_at, mark_4_at, mark_6_at, slot_at, name_at;
    size_t key_4_at[WEIR_RULES_LEVELS]; /* of each level; 0 has all keys */
    size_t key_6_at[WEIR_RULES_LEVELS];
    size_t copy_bytes;
};

/* This process's handle. */
enum weir_backing {
    WEIR_BACKING_MEMORY, /* of one process; a forked child has a copy */
    WEIR_BACKING_FORKS,  /* memory that processes forked from this one share */
    WEIR_BACKING_SHM,
    WEIR_BACKING_FILE,
};

#define WEIR_HASH_CACHE_ENTRIES 512u
#define WEIR_HASH_CACHE_WORDS 6u
#define WEIR_HASH_CACHE_BYTES (WEIR_HASH_CACHE_WORDS * 8u)

/* Recently hashed bytes and what they hash to; a sequence lock (odd: being written). */
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
    int (*repair)(struct weir_table *table); /* makes all locks anew, those of the rules, too */
    int fd; /* holds a shared flock() for as long as the table is open */
    size_t bytes;
    uint32_t huge_pages;
    _Atomic int reveal;               /* clients are listed in clear */
    _Atomic uint64_t fork_generation; /* memory://: locks are true for this generation */
    char name[WEIR_NAME_MAX + 64];    /* for messages */
    struct weir_hash_entry hash_cache[WEIR_HASH_CACHE_ENTRIES];
};

/* Whether a state holds lines of the pool. Line 0 is no line, so all zero means none. */
static inline bool weir_owns_lines(const struct weir_state *state) {
    return (state->line[0] | state->line[1] | state->line[2]) != 0;
}

/* Number of locks: the stripes and the pool, which is the last. */
static inline uint32_t weir_locks(const struct weir_table *table) {
    return table->stripe_mask + 2;
}

static inline struct weir_lock *weir_lock_at(struct weir_table *table, uint32_t index) {
    return index <= table->stripe_mask ? &table->stripe[index].lock : &table->pool->lock;
}

/* lock.c */
/* A lock of the kind that the table's backing needs. */
int weir_mutex_init(const struct weir_table *table, pthread_mutex_t *mutex);
int weir_mutex_take(pthread_mutex_t *mutex); /* 0, EOWNERDEAD, or another errno after one second */
int weir_lock_init(struct weir_table *table, uint32_t index);
int weir_lock_take_slow(struct weir_table *table, uint32_t index, int rc);
int weir_lock_try(struct weir_table *table,
                  uint32_t index); /* 0, WEIR_EBUSY at once, WEIR_ECORRUPT */
int weir_lock_all(struct weir_table *table);
void weir_release_all(struct weir_table *table);
/* Makes locks usable after a crash of all openers, or in a forked child: only with no other user. */
int weir_locks_repair(struct weir_table *table);
int weir_after_fork_slow(struct weir_table *table);
void weir_fork_watch(struct weir_table *table);

extern _Atomic uint64_t weir_fork_generation;

/* The first call in a forked child renews the locks of a private table. */
static inline int weir_after_fork(struct weir_table *table) {
    return atomic_load_explicit(&table->fork_generation, memory_order_acquire) ==
                   atomic_load_explicit(&weir_fork_generation, memory_order_relaxed)
               ? 0
               : weir_after_fork_slow(table);
}

/* A private table's locks are words in the place of the mutex. */
static inline bool weir_has_words(const struct weir_table *table) {
    return WEIR_WORD_LOCKS && table->backing == WEIR_BACKING_MEMORY;
}

static inline _Atomic uint32_t *weir_lock_word(struct weir_lock *lock) {
    return (_Atomic uint32_t *)(void *)&lock->mutex;
}

static inline int weir_lock_take_at(struct weir_table *table, struct weir_lock *lock,
                                    uint32_t index) {
    int rc = weir_has_words(table) ? (weir_word_try(weir_lock_word(lock)) ? 0 : EBUSY)
                                   : pthread_mutex_trylock(&lock->mutex);
    return __builtin_expect(rc == 0 && lock->undo_ready == 0, 1)
               ? 0
               : weir_lock_take_slow(table, index, rc);
}

/* Takes a lock, repairing what a dead owner left. 0, WEIR_EBUSY, WEIR_ECORRUPT. */
static inline int weir_lock_take(struct weir_table *table, uint32_t index) {
    return weir_lock_take_at(table, weir_lock_at(table, index), index);
}

/* The same for a lock that is known to be a stripe's. */
static inline int weir_stripe_take(struct weir_table *table, uint32_t stripe) {
    return weir_lock_take_at(table, &table->stripe[stripe].lock, stripe);
}

static inline void weir_lock_release_at(const struct weir_table *table, struct weir_lock *lock) {
    if (weir_has_words(table))
        weir_word_release(weir_lock_word(lock));
    else
        pthread_mutex_unlock(&lock->mutex);
}

static inline void weir_lock_release(struct weir_table *table, uint32_t index) {
    weir_lock_release_at(table, weir_lock_at(table, index));
}

/* open.c: how long an opener waits for a flock() that another holds; tests shorten it. */
extern int64_t weir_open_wait_ns;

/* hash.c */
void weir_fingerprint(struct weir_table *table, const void *key, size_t key_len,
                      const struct weir_limit *limit, uint64_t fingerprint[2]);
uint64_t weir_checksum(const struct weir_header *header);
/*
 * The fingerprint of the key before + client + after, which the handle remembers: `owner` is a number that no
 * other before, after and limit have, 0 if there is none. weir_recall() comes first (hash_cache.h).
 */
struct weir_key_parts {
    uint64_t owner;
    struct weir_bytes before, client, after;
    size_t len; /* of all three */
};
int weir_fingerprint_parts(struct weir_table *table, const struct weir_key_parts *key,
                           const struct weir_limit *limit, uint64_t fingerprint[2]);
/* 64 keyed bits that stand for a client, in statistics and rules. */
uint64_t weir_client_hash(const struct weir_table *table, const void *client, size_t client_len);

/* commit.c */
struct weir_change {
    uint32_t cell;                  /* index; its stripe's lock is held */
    bool same_key;                  /* the cell's fingerprint stays */
    const uint64_t *fingerprint;    /* of the key to be; borrowed until the commit */
    const struct weir_state *state; /* to be; NULL: the cell becomes free */
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

void weir_transaction_rewind(struct weir_transaction *txn); /* forget what lines it took and gave */
/* Makes the changes, all or none, and counts as done even if the process dies the moment after. */
void weir_transaction_commit(struct weir_transaction *txn);

/* What comes before it in the program is in the mapping before what comes after, should we be killed. */
#define WEIR_ORDER() atomic_signal_fence(memory_order_seq_cst)

/* Commits a change of a state that touches at most one word of it; false, with nothing done, if more. */
static inline bool weir_commit_word(struct weir_state *from, const struct weir_state *to) {
    bool expires = from->expires_ns != to->expires_ns, a = from->word[0] != to->word[0],
         b = from->word[1] != to->word[1], c = from->word[2] != to->word[2];
    if (expires + a + b + c > 1 || from->line[0] != to->line[0] || from->line[1] != to->line[1] ||
        from->line[2] != to->line[2])
        return false;
    from->usage = to->usage; /* a hint: true or not, it may stand beside the old word */
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
 * Commits the change of one cell that keeps its key, under its stripe's lock: the protocol of struct weir_lock
 * for a stripe that is its own coordinator and has no participants.
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
    WEIR_ORDER(); /* the record is whole before it counts */
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

/* The same, by one store if that is enough. */
static inline void weir_commit_one(struct weir_table *table, uint32_t stripe, uint32_t index,
                                   const struct weir_state *state) {
    if (!weir_commit_word(&table->cell[index].state, state))
        weir_commit_cell(table, stripe, index, state);
}

/* Releases all locks it holds. */
static inline void weir_transaction_end(struct weir_transaction *txn) {
    if (__builtin_expect(txn->lines.locked, 0))
        weir_lock_release(txn->table, txn->table->stripe_mask + 1);
    for (uint32_t i = txn->locks; i-- > 0;)
        weir_lock_release_at(txn->table, &txn->table->stripe[txn->lock[i]].lock);
}

void weir_undo_apply(struct weir_table *table, uint32_t index);

/* table.c: where a key's cell is, or would go */
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

/* Sixteen bits that keys of one limit have in common. No look-up uses them to choose a bucket or a cell. */
#define WEIR_LIMIT_SHIFT 8
#define WEIR_LIMIT_BITS UINT64_C(0xffff)
static inline uint32_t weir_limit_mark(const uint64_t fingerprint[2]) {
    return (uint32_t)(fingerprint[1] >> WEIR_LIMIT_SHIFT & WEIR_LIMIT_BITS);
}

uint32_t weir_cell_search(const struct weir_table *table, const uint64_t fingerprint[2]);

/* The key's cell, or WEIR_CELL_NONE. Most are where the search starts. */
static inline uint32_t weir_cell_find(const struct weir_table *table,
                                      const uint64_t fingerprint[2]) {
    uint32_t cell = (uint32_t)(weir_first_bucket(table, fingerprint) * WEIR_BUCKET_CELLS) +
                    weir_first_cell(fingerprint);
    const uint64_t *there = table->cell[cell].fingerprint;
    return there[0] == fingerprint[0] && there[1] == fingerprint[1]
               ? cell
               : weir_cell_search(table, fingerprint);
}
bool weir_cell_make_room(struct weir_transaction *txn, const uint64_t fingerprint[2],
                         int64_t now_ns);
int weir_cell_place(struct weir_transaction *txn, const uint64_t fingerprint[2], int64_t now_ns,
                    uint32_t *cell);
int weir_cell_forget(struct weir_transaction *txn, uint32_t cell, uint32_t *lines);
void weir_buckets_of(const struct weir_table *table, const uint64_t fingerprint[2],
                     uint64_t bucket[2]);
int weir_table_reclaim(struct weir_table *table, int64_t now_ns, const uint64_t *const *keep,
                       uint32_t kept, bool evict);

#endif
