/*
 * The log of a moving window: admitted hits as (time, count), oldest first, in lines of the pool.
 * It contains times and counts, but no limit. src/strategy/log/log.c describes the layout.
 *
 * A caller reads the state of a key into a `struct weir_log`, changes that, and saves it. A log
 * that was read with `dry` set accepts the same calls but writes no line; it must not be saved.
 */
#ifndef WEIR_LOG_H
#define WEIR_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "strategy/log/lines.h"

struct weir_state;

struct weir_log {
    struct weir_lines *lines;
    int64_t total;     /* hits in the log; 0: it is empty, ignore the rest */
    int64_t oldest_ns; /* time of the oldest entry */
    int64_t newest_ns; /* time of the newest, the open one */
    int64_t open;      /* hits of the open entry, which is in no line */
    uint32_t head;     /* line of the oldest entry's record; 0: the open entry is the only one */
    uint32_t head_at;  /* the record's first byte in that line */
    uint32_t tail;     /* last line */
    uint32_t tail_at;  /* first byte after the last record */
    uint32_t index;    /* newest index line; 0: none */
    uint32_t since;    /* data lines after it; may be too large, never too small */
    bool dry;          /* write nothing */
};

/*
 * Reads *state. newest_ns: the time of its newest entry (ignored for an empty log). Returns 0 or
 * WEIR_ECORRUPT.
 */
int weir_log_read(struct weir_log *log, const struct weir_state *state, struct weir_lines *lines,
                  int64_t newest_ns, bool dry);

/* Writes the log into word[] and line[] of *state, and its end, newest + period_ns, into
 * expires_ns. */
void weir_log_save(const struct weir_log *log, struct weir_state *state, int64_t period_ns);

/*
 * The functions below return 0, WEIR_ECORRUPT, WEIR_EFULL or WEIR_EBUSY. Cost: O(1) amortised, or
 * O(log n).
 */

/* Drops every entry up to and including time `upto_ns`. */
int weir_log_expire(struct weir_log *log, int64_t upto_ns);

/* The time of the entry that contains hit number `hits` (1 to total), counted from the oldest. */
int weir_log_time_of(const struct weir_log *log, int64_t hits, int64_t *time_ns);

/* Adds hits at `now_ns`, the newest time or later. */
int weir_log_add(struct weir_log *log, int64_t now_ns, int64_t hits);

/* Removes the newest `hits` hits, or all if there are fewer. */
int weir_log_take_back(struct weir_log *log, int64_t hits);

/* Moves every entry later than `now_ns` to now_ns. */
int weir_log_bring_back(struct weir_log *log, int64_t now_ns);

/*
 * For stores; the period is not needed.
 *
 * weir_log_drop gives back all lines of a moving window's state. It does not change the state,
 * whose line[] must not be used again. weir_log_verify checks a whole log outside of a decision:
 * every record, index line and count. It marks each line in the bitmap `seen` (a bit for each line
 * of the pool) and fails if a line is already marked.
 */
int weir_log_drop(const struct weir_state *state, struct weir_lines *lines);

/* How many lines of the pool a moving window's state has. */
int weir_log_lines(const struct weir_state *state, struct weir_lines *lines, uint32_t *count);

/* Whether a log of `count` lines, in a pool of `total`, is long: its growth is then restricted. */
static inline bool weir_log_is_long(uint32_t count, uint32_t total) {
    return count > total / 32;
}
int weir_log_verify(const struct weir_state *state, const struct weir_lines *lines, uint8_t *seen);

#endif
