/*
 * The layout of a table's statistics. src/stats/stats.h declares the functions.
 *
 * Who may write what, in the terms of layout.h
 *  - "stripe": under that stripe's lock, outside of its undo record. A crash loses the current
 *    change.
 *  - "first": under the first stripe's lock. Entries that `labels` or `registered` counts are never
 *    written again, and the count is written last, so readers need no lock.
 */
#ifndef WEIR_STATS_LAYOUT_H
#define WEIR_STATS_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>

#include "weir/stats.h"

#define WEIR_HITTERS 32u        /* of each stripe */
#define WEIR_HITTERS_DENIED 16u /* weight of a denied hit; an allowed hit has 1 */

/* A heavy hitter, by the key and limit of its counter. */
struct weir_hitter {
    _Alignas(64) uint64_t fingerprint[2]; /* stripe: of the cell; first word 0: none */
    uint64_t allowed;                     /* stripe: since it got this entry */
    uint64_t denied;                      /* stripe: the same */
    int64_t last_ns;                      /* stripe */
    uint64_t error;                       /* stripe: score of the previous owner of the entry */
    uint32_t label;                       /* stripe */
    uint32_t pad[3];
    char name[WEIR_CLIENT_NAME_SIZE]; /* stripe: NUL-terminated */
};

_Static_assert(sizeof(struct weir_hitter) == 128, "an entry is two cache lines");

enum weir_count { WEIR_COUNT_ALLOWED, WEIR_COUNT_DENIED, WEIR_COUNT_NEAR, WEIR_COUNT_SHADOW };

struct weir_stats_stripe {
    /* stripe: by label - 1, then by enum weir_count */
    _Alignas(64) uint64_t count[WEIR_STATS_LABELS][4];
    uint64_t score[WEIR_HITTERS]; /* stripe: weight, halved every ten minutes */
    uint32_t tag[WEIR_HITTERS];   /* stripe: low half of fingerprint[0] */
    int64_t halve_ns;             /* stripe: time of the next halving */
    uint64_t random;              /* stripe */
    uint32_t used;                /* stripe: entries in use */
    uint32_t skip;                /* stripe: allowed hits of unlisted clients to skip */
    uint64_t pad[5];
    struct weir_hitter entry[WEIR_HITTERS]; /* stripe */
};

struct weir_stats {
    _Alignas(64) _Atomic uint32_t labels; /* first: number, without "other" */
    _Atomic uint32_t registered;          /* first */
    uint64_t pad[7];
    char label[WEIR_STATS_LABELS]
              [WEIR_LABEL_MAX + 1];    /* first: NUL-terminated; the last is "other" */
    struct weir_stats_stripe stripe[]; /* then the registry */
};

_Static_assert(sizeof(struct weir_registered_limit) == 256, "byte map");
_Static_assert(offsetof(struct weir_stats, stripe) % 64 == 0, "byte map");

#endif
