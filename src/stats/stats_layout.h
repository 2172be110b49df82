/*
 * The bytes of a table's statistics. src/stats/stats.h declares what is done with them.
 *
 * Who may write what, in the terms of layout.h
 *  - "stripe": under that stripe's lock, outside of its undo record. A crash loses what it was about.
 *  - "first": under the first stripe's lock. What is counted in `labels` or `registered` is never written
 *    again, so readers need no lock: the number is the last that is written.
 */
#ifndef WEIR_STATS_LAYOUT_H
#define WEIR_STATS_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>

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

#endif
