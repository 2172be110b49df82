/*
 * The bytes of a table, for every backing. References are indices or offsets, never pointers.
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
 *     bytes - 64      uint64_t WEIR_END_MARK                    made. 0: the file was truncated and
 *                                                               extended
 *
 * Bucket b belongs to stripe b mod stripes. Both buckets of a key are in the same stripe, so one
 * lock protects all its possible cells.
 *
 * Who may write what
 *  - "made": by the creator before the table gets its name, and never again. Covered by `checksum`.
 *  - "stripe": under that stripe's lock. A crash can leave a change incomplete; the stripe's undo
 *    record has the previous bytes.
 *  - "pool": the same under the pool's lock.
 *  - "hint": any value is safe, in particular the one a crash leaves.
 */
#ifndef WEIR_LAYOUT_H
#define WEIR_LAYOUT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "strategy/log/lines.h"
#include "strategy/strategy.h"
#include "weir/weir.h"

#define WEIR_MAGIC "WEIRTBL\n"
#define WEIR_LAYOUT_VERSION 4u
#define WEIR_END_MARK UINT64_C(0x2E444E4552494557)
#define WEIR_END_BYTES 64u /* its own cache line, which only readers use */
#define WEIR_BUCKET_CELLS 8u
#define WEIR_STRIPES_MAX 256u
#define WEIR_CELL_NONE UINT32_MAX

struct weir_header {
    unsigned char magic[8];   /* made */
    uint32_t version;         /* made: WEIR_LAYOUT_VERSION */
    uint32_t header_bytes;    /* made: 4096 */
    uint64_t signature;       /* made: sizes, alignment, lock type, byte order of the creator */
    uint64_t bytes;           /* made: the whole mapping */
    uint64_t keys;            /* made: cells */
    uint64_t hits;            /* made: as requested */
    uint32_t stripes;         /* made: a power of two, 1 to WEIR_STRIPES_MAX */
    uint32_t lines;           /* made */
    uint64_t stripes_at;      /* made */
    uint64_t pool_at;         /* made */
    uint64_t cells_at;        /* made */
    uint64_t lines_at;        /* made */
    uint64_t stats_at;        /* made */
    uint64_t rules_at;        /* made */
    uint32_t rules;           /* made: capacity for rules */
    uint32_t registry_room;   /* made: capacity of the limit registry */
    unsigned char secret[16]; /* made: key of SipHash, from the kernel's random source */
    uint64_t mix[6];          /* made: odd random factors that distinguish limits of one key */
    uint64_t checksum;        /* made: SipHash of all above under a fixed key, against damage */
    uint64_t pad[2];
    _Atomic uint64_t sweep_cursor; /* hint: where the next sweep for expired logs starts */
    _Atomic uint64_t recoveries;   /* locks recovered from dead owners; a crash may lose one */
};

_Static_assert(offsetof(struct weir_header, checksum) == 176, "byte map");
_Static_assert(offsetof(struct weir_header, sweep_cursor) == 200, "byte map");
#define WEIR_HEADER_BYTES 4096u
_Static_assert(sizeof(struct weir_header) <= WEIR_HEADER_BYTES, "the header has a page");

struct weir_cell {
    /* Stripe: 112 keyed bits of key and limit, 16 of the limit; 0,0: free. */
    uint64_t fingerprint[2];
    struct weir_state state; /* stripe; `usage` and `denials` are hints */
};

_Static_assert(sizeof(struct weir_cell) == 64, "a cell is one cache line");

/*
 * A lock, and the state of the transaction of the process that holds it. In a transaction that
 * changes more than one word, the lowest stripe that it has locked is the coordinator:
 *
 *   1. for each lock under which something changes, an undo record is written: `coordinator`,
 *      `seq`, `undo_ready`, and the old bytes
 *   2. coordinator.txn = seq is written. If the process crashes after this, the change is undone
 *   3. cells, links and the free list are written
 *   4. coordinator.txn = 0 is written. This single write is the commit: a crash after it keeps the
 *      change
 *   5. undo_ready = 0 is written to all undo records
 *
 * If a process dies while it holds a lock, the next process that takes the lock (the recoverer)
 * restores the old bytes if coordinator.txn is still equal to the record's seq. The recoverer of
 * the coordinator first undoes the records of all participants (their stripes are higher, so the
 * lock order holds), then clears txn. If it dies, too, the next recoverer repeats all of this.
 */
struct weir_lock {
    pthread_mutex_t mutex; /* process-shared and robust (memory://: a word, word_lock.h) */
    _Atomic uint64_t txn;  /* holder; read by recoverers of other locks. 0: none */
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

#endif
