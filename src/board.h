/*
 * The board in a table's mapping, and what a decision does to it. src/board.c tells how.
 *
 * Who may write what, in the terms of layout.h
 *  - "stripe": under that stripe's lock, outside of its undo record. A crash loses what it was about.
 *  - "first": under the first stripe's lock. What is counted in `labels` or `described` is never written
 *    again, so readers need no lock: the number is the last that is written.
 */
#ifndef WEIR_BOARD_INTERNAL_H
#define WEIR_BOARD_INTERNAL_H

#include "layout.h"
#include "weir/board.h"

#define WEIR_HEAVY_ENTRIES 32u /* of each stripe */

/* A client among the heaviest, by the key and limit of its counter. */
struct weir_heavy_entry {
    _Alignas(64) uint64_t fingerprint[2]; /* stripe: of the cell; 0,0: free */
    uint64_t allowed;                     /* stripe: since it took this place */
    uint64_t denied;                      /* stripe: the same */
    int64_t last_ns;                      /* stripe */
    uint32_t error;                       /* stripe: score of who had the place before */
    uint32_t label;                       /* stripe */
    char name[WEIR_NAME_OF_CLIENT];       /* stripe: NUL-terminated */
};

_Static_assert(sizeof(struct weir_heavy_entry) == 128, "an entry is two cache lines");

enum weir_count { WEIR_COUNT_ALLOWED, WEIR_COUNT_DENIED, WEIR_COUNT_NEAR, WEIR_COUNT_SHADOW };

struct weir_board_stripe {
    _Alignas(64) uint64_t count[WEIR_BOARD_LABELS][4]; /* stripe: by label - 1 and enum weir_count */
    uint32_t tag[WEIR_HEAVY_ENTRIES];                  /* stripe: low half of fingerprint[0] */
    uint32_t score[WEIR_HEAVY_ENTRIES];                /* stripe: weight, halved now and then */
    int64_t halve_ns;                                  /* stripe: when that is due */
    uint32_t used;                                     /* stripe: entries taken so far */
    uint32_t skip;                                     /* stripe: hits to pass over */
    uint64_t random;                                   /* stripe */
    struct weir_heavy_entry entry[WEIR_HEAVY_ENTRIES]; /* stripe */
};

struct weir_board {
    _Alignas(64) _Atomic uint32_t labels;              /* first: given out, "other" aside */
    _Atomic uint32_t described;                        /* first */
    uint64_t pad[7];
    char label[WEIR_BOARD_LABELS][WEIR_LABEL_MAX + 1]; /* first: NUL-terminated; the last is "other" */
    struct weir_board_stripe stripe[];                 /* then the catalogue */
};

_Static_assert(sizeof(struct weir_described) == 256, "byte map");
_Static_assert(offsetof(struct weir_board, stripe) % 64 == 0, "byte map");

size_t weir_board_bytes(uint32_t stripes, uint32_t described);
void weir_board_init(struct weir_table *table);
/* Whether what it holds may be what it holds. All locks are held. */
int weir_board_check(struct weir_table *table, struct weir_error *error);

static inline struct weir_described *weir_board_described(const struct weir_table *table) {
    return (struct weir_described *)&table->board->stripe[table->stripe_mask + 1];
}

#endif
