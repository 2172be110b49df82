/*
 * Positions in the log of a moving window, and searches for them. Used only by log.c (which
 * describes the layout), place.c and verify.c.
 */
#ifndef WEIR_LOG_PLACE_H
#define WEIR_LOG_PLACE_H

#include "strategy/log/log.h"

/*
 * The upper bits of `next` in an index line. In a data line, they are the number of bytes that are
 * records.
 */
#define WEIR_LOG_INDEX 63

/* The most lines that a walk may read: two stretches and the index lines between them. */
#define WEIR_LOG_WALK_MAX 64

/* An index line: describes the data line after it. */
struct weir_log_index {
    int64_t time_ns; /* of the entry that begins after it */
    uint64_t hits;   /* before that entry; only differences have a meaning */
    int64_t prev_time_ns;
    int64_t jump_time_ns;
    uint32_t prev; /* older index lines; a time of -1: none */
    uint32_t jump;
    uint32_t depth; /* index lines before it */
    uint32_t jump_depth;
    uint32_t lines; /* lines of both kinds before it, since the first index line; only differences
                       have a meaning */
};

_Static_assert(sizeof(struct weir_log_index) <= WEIR_LINE_BYTES, "an index fits a line");

/* A position in a log: an entry. */
struct weir_log_place {
    int64_t time_ns; /* the entry's */
    int64_t hits;    /* the entry's */
    int64_t before;  /* hits before it, from the head on */
    int64_t step_ns; /* to the next entry */
    uint32_t line;   /* where its record is; for the open entry, the tail's end */
    uint32_t at;
    uint32_t end;    /* first byte after the record */
    uint32_t fill;   /* bytes of the line that are records */
    uint32_t next;   /* the next line */
    uint32_t left;   /* the line before, 0 at the head */
    uint32_t passed; /* lines before it, from the head on */
    uint32_t index;  /* last index line passed, or 0 */
    uint32_t since;  /* data lines since then (or since the head), this one included */
    uint32_t walked; /* lines read, as a bound for circular chains */
};

/* The goal of a search: the first entry that fulfils one of these conditions. */
struct weir_log_goal {
    int64_t after_ns; /* its time is later */
    int64_t hits;     /* it contains hit number `hits`, or a later one */
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

/* Reads the record at bytes[*at..end) and moves *at after it. False: there is no valid record. */
bool weir_log_get_record(const uint8_t *bytes, uint32_t *at, uint32_t end, int64_t *hits,
                         int64_t *step_ns);

void weir_log_get_index(const struct weir_lines *lines, uint32_t line,
                        struct weir_log_index *index);

/*
 * Reads the words of a state, without newest_ns, and checks what can be checked without reading a
 * line.
 */
int weir_log_unpack(struct weir_log *log, const struct weir_state *state, struct weir_lines *lines);

/* Goes to the first byte of data line `line`. */
int weir_log_enter(const struct weir_log *log, struct weir_log_place *place, uint32_t line);

/* Reads the entry at this position, or the first one of the next line that has a record. */
int weir_log_arrive(const struct weir_log *log, struct weir_log_place *place);

/* Goes to the next entry. The current one must not be the open entry. */
int weir_log_advance(const struct weir_log *log, struct weir_log_place *place);

/* Finds the first entry that fulfils the goal. WEIR_ECORRUPT if there is none. */
int weir_log_find(const struct weir_log *log, struct weir_log_goal goal,
                  struct weir_log_place *place);

#endif
