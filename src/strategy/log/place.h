/*
 * Places in the log of a moving window, and how one is found. Shared by log.c, which tells the
 * layout, log_place.c and log_check.c; nobody else needs it.
 */
#ifndef WEIR_LOG_PLACE_H
#define WEIR_LOG_PLACE_H

#include "strategy/log/log.h"

/* The upper bits of an index line's next; of a data line's: how many bytes are records. */
#define WEIR_LOG_INDEX 63

/* Lines any walk may take: two stretches and the index lines between. */
#define WEIR_LOG_WALK_MAX 64

/* What an index line says about the data line behind it. */
struct weir_log_index {
    int64_t time_ns; /* of the entry that begins behind it */
    uint64_t hits;   /* in front of that entry, since the first index line; differences count */
    int64_t prev_time_ns;
    int64_t jump_time_ns;
    uint32_t prev; /* index lines; a time of -1: none */
    uint32_t jump;
    uint32_t depth; /* index lines before it */
    uint32_t jump_depth;
    uint32_t lines; /* lines of either kind in front of it, since the first index line; differences
                       count */
};

_Static_assert(sizeof(struct weir_log_index) <= WEIR_LINE_BYTES, "an index fits a line");

/* A place in a log: at an entry. */
struct weir_log_place {
    int64_t time_ns; /* the entry's */
    int64_t hits;    /* the entry's */
    int64_t before;  /* hits in front of it, from the head on */
    int64_t step_ns; /* to the next entry */
    uint32_t line;   /* where its record is; of the open entry: the tail and its end */
    uint32_t at;
    uint32_t end;    /* first byte behind the record */
    uint32_t fill;   /* bytes of the line that are records */
    uint32_t next;   /* the next line */
    uint32_t left;   /* the line before, 0 at the head */
    uint32_t passed; /* lines in front of it, from the head on */
    uint32_t index;  /* last index line passed, or 0 */
    uint32_t since;  /* data lines from there (from the head) on, this one included */
    uint32_t walked; /* lines entered, against endless chains */
};

/* What a search is for: the first entry that fulfils one of these. */
struct weir_log_goal {
    int64_t after_ns; /* its time is later */
    int64_t hits;     /* with it, so many hits are complete */
    int64_t until_ns; /* the next entry's time is later */
};

/* clang-format off */
#define WEIR_LOG_NO_GOAL (struct weir_log_goal){INT64_MAX, INT64_MAX, INT64_MAX}
/* clang-format on */

static inline bool weir_log_in_pool(const struct weir_lines *lines, uint32_t line) {
    return line != WEIR_LINE_NONE && line < lines->total;
}

static inline uint32_t weir_log_pack(uint32_t line, uint32_t bits) {
    return line | bits << WEIR_LINE_BITS;
}

static inline uint32_t weir_log_line_of(uint32_t packed) {
    return packed & WEIR_LINE_MASK;
}

static inline uint32_t weir_log_bits_of(uint32_t packed) {
    return packed >> WEIR_LINE_BITS;
}

/* Whether a place is that of the open entry. */
static inline bool weir_log_at_open(const struct weir_log *log,
                                    const struct weir_log_place *place) {
    return place->line == log->tail && place->at == log->tail_at;
}

/* Reads the record at bytes[*at..end) and moves *at behind it; false: there is none that is sound.
 */
bool weir_log_get_record(const uint8_t *bytes, uint32_t *at, uint32_t end, int64_t *hits,
                         int64_t *step_ns);

void weir_log_get_index(const struct weir_lines *lines, uint32_t line,
                        struct weir_log_index *index);

/* Reads a state's words; checks what can be checked without reading a line. newest_ns is not in
 * them. */
int weir_log_unpack(struct weir_log *log, const struct weir_state *state, struct weir_lines *lines);

/* Goes to the first byte of data line `line`. */
int weir_log_enter(const struct weir_log *log, struct weir_log_place *place, uint32_t line);

/* Reads the entry that begins here, or at the next line that has a record. */
int weir_log_arrive(const struct weir_log *log, struct weir_log_place *place);

/* Goes to the next entry; not from the open one. */
int weir_log_advance(const struct weir_log *log, struct weir_log_place *place);

/* Finds the first entry that fulfils the goal; WEIR_ECORRUPT if there is none, which callers
 * exclude. */
int weir_log_find(const struct weir_log *log, struct weir_log_goal goal,
                  struct weir_log_place *place);

#endif
