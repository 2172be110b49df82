/*
 * The statistics in a table's mapping, and how a decision is counted; see src/stats/record.c and
 * src/stats/heavy_hitters.c.
 *
 * Who may write what, in the terms of layout.h
 *  - "stripe": under that stripe's lock, outside of its undo record. A crash loses what it was about.
 *  - "first": under the first stripe's lock. What is counted in `labels` or `registered` is never written
 *    again, so readers need no lock: the number is the last that is written.
 */
#ifndef WEIR_STATS_LAYOUT_H
#define WEIR_STATS_LAYOUT_H

#include "table/layout.h"
#include "weir/stats.h"

#define WEIR_HITTERS 32u        /* of each stripe */
#define WEIR_HITTERS_DENIED 16u /* what a denied hit weighs; one that was allowed weighs 1 */

/* A heavy hitter, by the key and limit of its counter. */
struct weir_hitter {
    _Alignas(64) uint64_t fingerprint[2]; /* stripe: of the cell; first word 0: none */
    uint64_t allowed;                     /* stripe: since it took this place */
    uint64_t denied;                      /* stripe: the same */
    int64_t last_ns;                      /* stripe */
    uint64_t error;                       /* stripe: score of who had the place before */
    uint32_t label;                       /* stripe */
    uint32_t pad[3];
    char name[WEIR_CLIENT_NAME_SIZE]; /* stripe: NUL-terminated */
};

_Static_assert(sizeof(struct weir_hitter) == 128, "an entry is two cache lines");

enum weir_count { WEIR_COUNT_ALLOWED, WEIR_COUNT_DENIED, WEIR_COUNT_NEAR, WEIR_COUNT_SHADOW };

struct weir_stats_stripe {
    /* stripe: by label - 1, then by enum weir_count */
    _Alignas(64) uint64_t count[WEIR_STATS_LABELS][4];
    uint64_t score[WEIR_HITTERS]; /* stripe: weight, halved now and then */
    uint32_t tag[WEIR_HITTERS];   /* stripe: low half of fingerprint[0] */
    int64_t halve_ns;             /* stripe: when that is due */
    uint64_t random;              /* stripe */
    uint32_t used;                /* stripe: entries that were taken so far */
    uint32_t skip;                /* stripe: allowed hits of others to pass over */
    uint64_t pad[5];
    struct weir_hitter entry[WEIR_HITTERS]; /* stripe */
};

struct weir_stats {
    _Alignas(64) _Atomic uint32_t labels; /* first: given out, "other" aside */
    _Atomic uint32_t registered;          /* first */
    uint64_t pad[7];
    char label[WEIR_STATS_LABELS]
              [WEIR_LABEL_MAX + 1];    /* first: NUL-terminated; the last is "other" */
    struct weir_stats_stripe stripe[]; /* then the registry */
};

_Static_assert(sizeof(struct weir_registered_limit) == 256, "byte map");
_Static_assert(offsetof(struct weir_stats, stripe) % 64 == 0, "byte map");

/* Labels with a text of their own; the last of all is "other". */
#define WEIR_LABELS_NAMED (WEIR_STATS_LABELS - 1u)

/* How many are there, and no more than there can be, should the number be damaged. */
static inline uint32_t weir_stats_number(const _Atomic uint32_t *count, uint32_t max) {
    uint32_t number = atomic_load_explicit(count, memory_order_acquire);
    return number < max ? number : max;
}

/* Whether an entry of the registry can be what it says. */
bool weir_registered_valid(const struct weir_registered_limit *registered);

size_t weir_stats_bytes(uint32_t stripes, uint32_t registered);
void weir_stats_init(struct weir_table *table);
/* The text of a label by its number; "" for none. */
void weir_label_copy(const struct weir_table *table, uint32_t label, char text[WEIR_LABEL_MAX + 1]);

/* What comes before the first lock of a call: locks are made anew in a forked child. */
static inline int weir_stats_ready(struct weir_table *table) {
    return table->backing == WEIR_BACKING_MEMORY ? weir_after_fork(table) : 0;
}

/* Whether what it holds may be what it holds. All locks are held. */
int weir_stats_check(struct weir_table *table, struct weir_error *error);

static inline struct weir_registered_limit *weir_stats_registered(const struct weir_table *table) {
    return (struct weir_registered_limit *)&table->stats->stripe[table->stripe_mask + 1];
}

/* ------------------------------------------------------------------------------------ heavy_hitters.c */

int weir_hitters_check(const struct weir_table *table, uint32_t stripe, struct weir_error *error);

/* A decision about one key, to be counted. Its stripe's lock is held. */
struct weir_stats_hit {
    const void *client;
    size_t client_len;
    uint32_t label; /* not 0 */
    const uint64_t *fingerprint;
    uint32_t stripe;
    uint32_t cell; /* WEIR_CELL_NONE: it has none */
    bool allowed;
    int64_t now_ns;
};

/* A hit of a client that is not known to be listed: lists it, if it is its turn. */
void weir_hitters_find(struct weir_table *table, const struct weir_stats_hit *hit);

/* Counts a decision that was made without the stripe's lock; sets hit->cell. 0, or an error of the lock. */
int weir_stats_record_one(struct weir_table *table, struct weir_stats_hit *hit,
                          const struct weir_verdict *verdict);

static inline void weir_hitters_add(struct weir_stats_stripe *stats, uint32_t place, bool allowed,
                                    int64_t now_ns) {
    struct weir_hitter *entry = &stats->entry[place];
    entry->last_ns = now_ns;
    if (allowed) {
        entry->allowed++;
        stats->score[place]++;
    } else {
        entry->denied++;
        stats->score[place] += WEIR_HITTERS_DENIED;
    }
}

/*
 * Counts what became of one limit, after the commit; `place` is the byte in its cell that says where the
 * client is listed. The stripe's lock is held.
 */
static inline void weir_stats_count(struct weir_table *table, const struct weir_stats_hit *hit,
                                    const struct weir_verdict *verdict, uint8_t place) {
    struct weir_stats_stripe *stats = &table->stats->stripe[hit->stripe];
    uint64_t *count = stats->count[hit->label - 1];
    if (hit->allowed) {
        count[WEIR_COUNT_ALLOWED]++;
        count[WEIR_COUNT_NEAR] += (uint64_t)verdict->remaining <= (uint64_t)verdict->limit / 5;
    } else {
        count[WEIR_COUNT_DENIED]++;
    }
    if (hit->client_len == 0)
        return;
    uint32_t at = (uint32_t)place - 1;
    if (at < WEIR_HITTERS && stats->entry[at].fingerprint[0] == hit->fingerprint[0])
        weir_hitters_add(stats, at, hit->allowed, hit->now_ns);
    else if (hit->allowed && stats->skip > 0)
        stats->skip--;
    else
        weir_hitters_find(table, hit);
}

#endif
