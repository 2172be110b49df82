/*
 * The log of a moving window: every admitted hit that may still count, exactly, in about 4 bytes.
 *
 *   state   total, oldest time, hits of the open entry; head, tail; newest index line
 *             |                                             |
 *             v head                                        v tail
 *   lines   [record record ..] -> [records] -> (index) -> [records ....      ]    + the open entry
 *             ^ 60 bytes each, linked by `next`    \________ prev, jump: older index lines
 *
 * An entry is a time and a number of hits; times strictly increase. The newest entry is *open*:
 * only the state contains it, so that hits at the same moment merge, and a key with one entry needs
 * no line. A later hit closes it: a record for it is appended after the last record.
 *
 *     record = [0x00 varint(hits)]  varint(time of the next entry - its own)
 *              only if hits != 1    at least 1, so never the byte 0x00
 *
 * Varints are LEB128: 4 bytes for a step below 268 ms, 5 below 34 s, 9 at most. A record never
 * spans two lines.
 *
 * The lower 26 bits of `next` are the next line. In a data line, the upper 6 bits are the number of
 * bytes that are records (for the tail, the state has it); in an index line they are
 * WEIR_LOG_INDEX. Bytes of records are never overwritten while a committed state refers to them: a
 * decision writes after the tail's end and in lines it has just taken. Everything else it changes
 * is links, which the store can undo.
 *
 * After every STRETCH data lines, an *index line* precedes the next data line. It has the time of
 * the entry that begins there, the hits and lines since the chain of index lines began, and
 * pointers to the previous index line (prev) and to an older one (jump), by the rule of Myers, "An
 * applicative random-access stack" (1983). So any index line can be found from the newest one in
 * O(log n), adding one is O(1), and none is ever changed. Unlike the stacks of that paper, a log
 * loses its oldest lines: an index line is in the chain of `next` directly before the line that it
 * describes and is given back together with it. A pointer includes the time of its target; a target
 * that is not later than the oldest entry no longer exists and is not followed.
 *
 * Searches by time or by count: walk from the head to the first index line (at most STRETCH lines);
 * jump from the newest index line back to the last one before the goal; walk from there. Dropping
 * either end of a log is then one change of a link, because the index lines also count the lines
 * between them.
 *
 * Invariants
 *  - total = hits of all records from the head on + open; the sum of the steps is newest - oldest
 *  - head = tail (the position, not only the line) if and only if the open entry is the only one
 *  - the head is at the first byte of a record, or at the tail's end
 *  - index is the last index line in the chain, or 0 if there is none; since: data lines after it
 *  - only the tail may be without a record, so the times of index lines increase
 *
 * Cost: a hit is O(1) amortised and touches one line at each end. A search reads up to 2 x STRETCH
 * lines and O(log n) index lines. Indices are checked before use and walks are bounded: a damaged
 * file causes WEIR_ECORRUPT or wrong counts, but no invalid access and no endless walk.
 */
#include "strategy/log/log.h"

#include <string.h>

#include "strategy/log/place.h"
#include "strategy/strategy.h"

#define FREE_TIMES 10
#define STRETCH 16 /* data lines from one index line to the next */
#define RECORD_MAX 20

static uint32_t put_varint(uint8_t *bytes, uint64_t value) {
    uint32_t n = 0;
    for (; value > 127; value >>= 7)
        bytes[n++] = (uint8_t)(value | 128);
    bytes[n++] = (uint8_t)value;
    return n;
}

static uint32_t put_record(uint8_t *bytes, int64_t hits, int64_t step_ns) {
    uint32_t n = 0;
    if (hits != 1) {
        bytes[n++] = 0;
        n += put_varint(bytes + n, (uint64_t)hits);
    }
    return n + put_varint(bytes + n, (uint64_t)step_ns);
}

/* ---------------------------------------------------------------------------- giving lines back */

/*
 * The number of lines from `line` to the tail, both included. `line` may be in the middle of a
 * stretch: lines are counted up to the first index line, whose counts give the rest.
 */
static int count_from(const struct weir_log *log, uint32_t line, uint32_t *count) {
    for (*count = 1; *count <= WEIR_LOG_WALK_MAX && weir_log_in_pool(log->lines, line); ++*count) {
        if (line == log->tail)
            return 0;
        uint32_t packed = weir_lines_next(log->lines, line);
        if (weir_log_bits_of(packed) == WEIR_LOG_INDEX &&
            weir_log_in_pool(log->lines, log->index)) {
            struct weir_log_index first, last;
            weir_log_get_index(log->lines, line, &first);
            weir_log_get_index(log->lines, log->index, &last);
            *count += last.lines - first.lines + log->since;
            return *count < log->lines->total ? 0 : WEIR_ECORRUPT;
        }
        line = weir_log_line_of(packed);
    }
    return WEIR_ECORRUPT;
}

static int give_from(const struct weir_log *log, uint32_t line) {
    uint32_t count;
    int rc = count_from(log, line, &count);
    return rc < 0 ? rc : weir_lines_give(log->lines, line, log->tail, count);
}

/* Gives all lines back. The open entry remains. */
static int give_all(struct weir_log *log) {
    int rc = log->head && !log->dry ? give_from(log, log->head) : 0;
    log->head = log->head_at = log->tail = log->tail_at = log->index = log->since = 0;
    return rc;
}

static int clear(struct weir_log *log) {
    log->total = log->open = 0;
    return give_all(log);
}

/*
 * Makes the entry at `place` (not the oldest) the open one, with `hits`; drops all later entries.
 */
static int cut(struct weir_log *log, const struct weir_log_place *place, int64_t hits) {
    int rc = place->line != log->tail && !log->dry ? give_from(log, place->next) : 0;
    log->tail = place->line;
    log->tail_at = place->at;
    log->index = place->index;
    log->since = place->since;
    log->newest_ns = place->time_ns;
    log->open = hits;
    log->total = place->before + hits;
    return rc;
}

/* ------------------------------------------------------------------------------------ appending */

/* How far back the next index line jumps, given the newest one. */
static void choose_jump(const struct weir_log *log, const struct weir_log_index *last,
                        struct weir_log_index *index) {
    struct weir_log_index over;
    index->jump = log->index;
    index->jump_time_ns = last->time_ns;
    index->jump_depth = last->depth;
    if (last->jump_time_ns <= log->oldest_ns || !weir_log_in_pool(log->lines, last->jump))
        return;
    weir_log_get_index(log->lines, last->jump, &over);
    if (last->depth - over.depth == over.depth - over.jump_depth &&
        over.jump_time_ns > log->oldest_ns) {
        index->jump = over.jump;
        index->jump_time_ns = over.jump_time_ns;
        index->jump_depth = over.jump_depth;
    }
}

/* Fills the index line for a new data line that begins with the open entry. */
static int describe(const struct weir_log *log, struct weir_log_index *index) {
    memset(index, 0, sizeof *index);
    index->time_ns = log->newest_ns;
    index->prev_time_ns = index->jump_time_ns = -1;
    if (log->index == WEIR_LINE_NONE)
        return 0;
    struct weir_log_index last;
    weir_log_get_index(log->lines, log->index, &last);
    struct weir_log_place place = {.time_ns = last.time_ns};
    int rc = weir_log_enter(log, &place, weir_log_line_of(weir_lines_next(log->lines, log->index)));
    if (rc == 0)
        rc = weir_log_arrive(log, &place);
    while (rc == 0 && !weir_log_at_open(log, &place))
        rc = place.index ? WEIR_ECORRUPT : weir_log_advance(log, &place);
    index->hits = last.hits + (uint64_t)place.before;
    index->lines = last.lines + 1 + log->since;
    index->depth = last.depth + 1;
    index->prev = log->index;
    index->prev_time_ns = last.time_ns;
    choose_jump(log, &last, index);
    return rc;
}

/* Appends a new index line to the tail, and `line` to the index line. */
static int link_indexed(struct weir_log *log, uint32_t line) {
    struct weir_log_index index;
    uint32_t at;
    int rc = describe(log, &index);
    if (rc == 0)
        rc = weir_lines_take(log->lines, &at);
    if (rc < 0)
        return rc;
    memcpy(log->lines->line[at].bytes, &index, sizeof index);
    log->index = at;
    log->since = 0;
    rc = weir_lines_link(log->lines, log->tail, weir_log_pack(at, log->tail_at));
    return rc < 0 ? rc : weir_lines_link(log->lines, at, weir_log_pack(line, WEIR_LOG_INDEX));
}

/*
 * A long log only grows while it has at most FREE_TIMES as many lines as are free (dynamic
 * thresholds, Choudhury and Hahne 1998). A single long log gets 10/11 of the pool, two get 10/21
 * each, and some lines always remain for short logs. Called with a line just taken.
 */
static int check_share(const struct weir_log *log) {
    uint32_t count;
    if (log->head == WEIR_LINE_NONE)
        return 0;
    int rc = count_from(log, log->head, &count);
    if (rc < 0 || !weir_log_is_long(count, log->lines->total))
        return rc;
    return count / FREE_TIMES > log->lines->free_count ? WEIR_EFULL : 0;
}

/* Makes a line just taken the new tail. */
static int add_line(struct weir_log *log) {
    uint32_t line;
    int rc = weir_lines_take(log->lines, &line);
    if (rc == 0)
        rc = check_share(log);
    if (rc < 0)
        return rc;
    if (log->head == log->tail && log->head_at == log->tail_at) { /* no record: start again */
        rc = give_all(log);
        log->head = line;
    } else if (log->since >= STRETCH) {
        rc = link_indexed(log, line);
    } else {
        rc = weir_lines_link(log->lines, log->tail, weir_log_pack(line, log->tail_at));
    }
    log->tail = line;
    log->tail_at = 0;
    log->since++;
    return rc;
}

/*
 * Closes the open entry and opens one of `hits` at now_ns, which is later. `fresh`: this decision
 * itself removed the records after the tail's end, so the record must be written to another line.
 */
static int append(struct weir_log *log, int64_t now_ns, int64_t hits, bool fresh) {
    uint8_t record[RECORD_MAX];
    uint32_t size = put_record(record, log->open, now_ns - log->newest_ns);
    if (!log->tail || fresh || log->tail_at + size > WEIR_LINE_BYTES) {
        int rc = add_line(log);
        if (rc < 0)
            return rc;
    }
    memcpy(log->lines->line[log->tail].bytes + log->tail_at, record, size);
    log->tail_at += size;
    log->newest_ns = now_ns;
    log->open = hits;
    log->total += hits;
    return 0;
}

/* -------------------------------------------------------------------------------- the interface */

int weir_log_read(struct weir_log *log, const struct weir_state *state, struct weir_lines *lines,
                  int64_t newest_ns, bool dry) {
    if (state->word[0] == 0) {
        *log = (struct weir_log){.lines = lines, .dry = dry};
        return 0;
    }
    int rc = weir_log_unpack(log, state, lines);
    log->newest_ns = newest_ns;
    log->dry = dry;
    if (newest_ns < log->oldest_ns || newest_ns > WEIR_NOW_MAX)
        return WEIR_ECORRUPT;
    return rc;
}

void weir_log_save(const struct weir_log *log, struct weir_state *state, int64_t period_ns) {
    bool any = log->total > 0;
    state->expires_ns = any ? log->newest_ns + period_ns : 0;
    state->word[0] = log->total;
    state->word[1] = any ? log->oldest_ns : 0;
    state->word[2] = log->open;
    state->line[0] = weir_log_pack(log->head, log->head_at);
    state->line[1] = weir_log_pack(log->tail, log->tail_at);
    state->line[2] = weir_log_pack(log->index, log->since);
}

int weir_log_expire(struct weir_log *log, int64_t upto_ns) {
    struct weir_log_place place;
    struct weir_log_goal goal = WEIR_LOG_NO_GOAL;
    if (log->total == 0 || log->oldest_ns > upto_ns)
        return 0;
    if (log->newest_ns <= upto_ns)
        return clear(log);
    goal.after_ns = upto_ns;
    int rc = weir_log_find(log, goal, &place);
    if (rc == 0 && place.line != log->head) {
        if (!log->dry)
            rc = weir_lines_give(log->lines, log->head, place.left, place.passed);
        if (place.index == log->index)
            log->index = WEIR_LINE_NONE;
    }
    log->head = place.line;
    log->head_at = place.at;
    log->oldest_ns = place.time_ns;
    log->total -= place.before;
    return rc;
}

int weir_log_time_of(const struct weir_log *log, int64_t hits, int64_t *time_ns) {
    struct weir_log_place place;
    struct weir_log_goal goal = WEIR_LOG_NO_GOAL;
    *time_ns = log->newest_ns;
    if (hits > log->total - log->open)
        return 0;
    goal.hits = hits;
    int rc = weir_log_find(log, goal, &place);
    *time_ns = place.time_ns;
    return rc;
}

int weir_log_add(struct weir_log *log, int64_t now_ns, int64_t hits) {
    if (log->total > 0 && now_ns > log->newest_ns)
        return append(log, now_ns, hits, false);
    if (log->total == 0)
        log->oldest_ns = log->newest_ns = now_ns;
    log->open += hits;
    log->total += hits;
    return 0;
}

int weir_log_take_back(struct weir_log *log, int64_t hits) {
    struct weir_log_place place;
    struct weir_log_goal goal = WEIR_LOG_NO_GOAL;
    if (hits >= log->total)
        return clear(log);
    int64_t keep = log->total - hits;
    if (hits < log->open) {
        log->open -= hits;
        log->total = keep;
        return 0;
    }
    goal.hits = keep;
    int rc = weir_log_find(log, goal, &place);
    if (rc < 0)
        return rc;
    if (place.before > 0)
        return cut(log, &place, keep - place.before);
    log->open = log->total = keep;
    log->newest_ns = log->oldest_ns;
    return give_all(log);
}

/* Like cut(), but replaces the line that begins with the entry by a line just taken. */
static int cut_line(struct weir_log *log, const struct weir_log_place *place) {
    uint32_t line, bits = weir_log_bits_of(weir_lines_next(log->lines, place->left));
    int rc = weir_lines_take(log->lines, &line);
    if (rc == 0)
        rc = give_from(log, place->line);
    if (rc == 0)
        rc = weir_lines_link(log->lines, place->left, weir_log_pack(line, bits));
    struct weir_log_place fresh = *place;
    fresh.line = log->tail = line;
    return rc < 0 ? rc : cut(log, &fresh, place->hits);
}

/*
 * Moves all entries after the one at `place` to now_ns. This changes the step in the entry's
 * record, which is written again elsewhere: the old record is needed if this decision is not
 * committed.
 */
static int bring_behind(struct weir_log *log, const struct weir_log_place *place, int64_t now_ns) {
    int64_t late = log->total - place->before - place->hits;
    if (log->dry) { /* as if the record there held now_ns */
        struct weir_log_place open = *place;
        open.at = place->end;
        open.before += place->hits;
        open.time_ns = now_ns;
        return cut(log, &open, late);
    }
    int rc;
    if (place->before == 0) {
        rc = give_all(log);
        log->open = log->total = place->hits;
        log->newest_ns = log->oldest_ns;
    } else {
        rc = place->at == 0 ? cut_line(log, place) : cut(log, place, place->hits);
    }
    return rc < 0 ? rc : append(log, now_ns, late, place->at > 0);
}

int weir_log_bring_back(struct weir_log *log, int64_t now_ns) {
    struct weir_log_place place;
    struct weir_log_goal goal = WEIR_LOG_NO_GOAL;
    if (log->total == 0 || log->newest_ns <= now_ns)
        return 0;
    if (log->oldest_ns >= now_ns) {
        log->open = log->total;
        log->oldest_ns = log->newest_ns = now_ns;
        return give_all(log);
    }
    goal.until_ns = now_ns - 1; /* the last entry before now */
    int rc = weir_log_find(log, goal, &place);
    if (rc == 0 && place.time_ns + place.step_ns > now_ns)
        return bring_behind(log, &place, now_ns);
    if (rc == 0)
        rc = weir_log_advance(log, &place);
    return rc < 0 ? rc : cut(log, &place, log->total - place.before);
}

int weir_log_lines(const struct weir_state *state, struct weir_lines *lines, uint32_t *count) {
    struct weir_log log;
    int rc = weir_log_unpack(&log, state, lines);
    *count = 0;
    return rc < 0 || log.head == WEIR_LINE_NONE ? rc : count_from(&log, log.head, count);
}

int weir_log_drop(const struct weir_state *state, struct weir_lines *lines) {
    struct weir_log log;
    int rc = weir_log_unpack(&log, state, lines);
    return rc < 0 || log.head == WEIR_LINE_NONE ? rc : give_from(&log, log.head);
}
