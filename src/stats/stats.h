/*
 * How decisions are counted, by label and by client; weir/stats.h has the public functions. See
 * record.c, heavy_hitters.c, labels.c and registry.c.
 */
#ifndef WEIR_STATS_INTERNAL_H
#define WEIR_STATS_INTERNAL_H

#include "stats/stats_layout.h"
#include "table/lock.h"

/* The number of labels besides "other", which is the last. */
#define WEIR_LABELS_NAMED (WEIR_STATS_LABELS - 1u)

/* Reads a number of entries, bounded in case it is damaged. */
static inline uint32_t weir_stats_number(const _Atomic uint32_t *count, uint32_t max) {
    uint32_t number = atomic_load_explicit(count, memory_order_acquire);
    return number < max ? number : max;
}

/* Whether an entry of the registry is valid. */
bool weir_registered_valid(const struct weir_registered_limit *registered);

size_t weir_stats_bytes(uint32_t stripes, uint32_t registered);
void weir_stats_init(struct weir_table *table);
/* The text of a label by its number; "" for none. */
void weir_label_copy(const struct weir_table *table, uint32_t label, char text[WEIR_LABEL_MAX + 1]);

/* Must precede the first lock of a call: renews the locks in a forked child. */
static inline int weir_stats_ready(struct weir_table *table) {
    return table->backing == WEIR_BACKING_MEMORY ? weir_after_fork(table) : weir_result(table, 0);
}

/*
 * weir_stats_record() from check *done on. *done counts the finished checks, so a call after
 * WEIR_EBUSY continues there.
 */
int weir_stats_record_from(struct weir_table *table, const struct weir_check *checks, size_t n,
                           int64_t now_ns, const struct weir_verdict *verdicts, int shadow,
                           size_t *done);

/* Verifies the statistics. All locks are held. */
int weir_stats_check(struct weir_table *table, struct weir_error *error);

static inline struct weir_registered_limit *weir_stats_registered(const struct weir_table *table) {
    return (struct weir_registered_limit *)&table->stats->stripe[table->stripe_mask + 1];
}

/* ------------------------------------------------------------------------------ heavy_hitters.c */

int weir_hitters_check(const struct weir_table *table, uint32_t stripe, struct weir_error *error);

/* A decision about one key that is to be counted. Its stripe's lock is held. */
struct weir_stats_hit {
    const void *client;
    size_t client_len;
    uint32_t label; /* not 0 */
    const uint64_t *fingerprint;
    uint32_t stripe;
    uint32_t cell; /* WEIR_CELL_NONE: none */
    bool allowed;
    int64_t now_ns;
};

/* Counts a hit of a client whose entry is unknown; may add an entry. */
void weir_hitters_find(struct weir_table *table, const struct weir_stats_hit *hit);

/*
 * Counts a decision of another store under the stripe's lock; sets hit->cell. 0, or an error of the
 * lock.
 */
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

/* Whether, after an allowed request, at least 80 % of the limit is used. */
static inline bool weir_stats_is_near(const struct weir_verdict *verdict) {
    return (uint64_t)verdict->remaining <= (uint64_t)verdict->limit / 5;
}

/*
 * Counts the verdict of one limit, after the commit. `place` is the byte of its cell that has the
 * client's entry. The stripe's lock is held.
 */
static inline void weir_stats_count(struct weir_table *table, const struct weir_stats_hit *hit,
                                    const struct weir_verdict *verdict, uint8_t place) {
    struct weir_stats_stripe *stats = &table->stats->stripe[hit->stripe];
    uint64_t *count = stats->count[hit->label - 1];
    if (hit->allowed) {
        count[WEIR_COUNT_ALLOWED]++;
        count[WEIR_COUNT_NEAR] += weir_stats_is_near(verdict);
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
