/*
 * Finds a position in the log of a moving window, by time or by count.
 *
 *     head                                                           tail
 *      [....]->[....]->(i)->[....]-> .. ->(i)->[....]-> .. ->(i)->[....]
 *      1. walk -------->                  ^  |             2. |
 *                                         |  3. walk to goal  |
 *                                         +--- prev, jump ----+
 *
 * The counts of hits and lines in an index line start at the first index line of its chain, which
 * may no longer exist. Step 1 finds the first index line after the head, whose counts relate the
 * others to the head. log.c describes the layout.
 *
 * Cost: at most two stretches of lines and O(log n) index lines; usually only the first records.
 * Every index is checked before it is used, and times must decrease on the way back, so a damaged
 * pool causes WEIR_ECORRUPT.
 */
#include "strategy/log/place.h"

#include <string.h>

#include "strategy/strategy.h"

#define HOPS_MAX 1024 /* the most index lines read; a search in 2^26 lines needs far fewer */

/* Reads a varint of up to 63 bits at bytes[*at..end). */
static bool get_varint(const uint8_t *bytes, uint32_t *at, uint32_t end, int64_t *value) {
    uint64_t sum = 0;
    for (uint32_t shift = 0; shift < 63 && *at < end; shift += 7) {
        uint8_t byte = bytes[(*at)++];
        sum |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *value = (int64_t)sum;
            return true;
        }
    }
    return false;
}

bool weir_log_get_record(const uint8_t *bytes, uint32_t *at, uint32_t end, int64_t *hits,
                         int64_t *step_ns) {
    *hits = 1;
    if (*at < end && bytes[*at] == 0) {
        ++*at;
        if (!get_varint(bytes, at, end, hits) || *hits < 1)
            return false;
    }
    return get_varint(bytes, at, end, step_ns) && *step_ns > 0;
}

void weir_log_get_index(const struct weir_lines *lines, uint32_t line,
                        struct weir_log_index *index) {
    memcpy(index, lines->line[line].bytes, sizeof *index);
}

int weir_log_unpack(struct weir_log *log, const struct weir_state *state,
                    struct weir_lines *lines) {
    *log = (struct weir_log){.lines = lines};
    log->total = state->word[0];
    log->oldest_ns = state->word[1];
    log->open = state->word[2];
    log->head = weir_log_line_of(state->line[0]);
    log->head_at = weir_log_bits_of(state->line[0]);
    log->tail = weir_log_line_of(state->line[1]);
    log->tail_at = weir_log_bits_of(state->line[1]);
    log->index = weir_log_line_of(state->line[2]);
    log->since = weir_log_bits_of(state->line[2]);
    if (log->total < log->open || log->open < 1 || log->oldest_ns < 0 ||
        log->tail_at > WEIR_LINE_BYTES || log->head_at > WEIR_LINE_BYTES)
        return WEIR_ECORRUPT;
    if (log->head == 0)
        return log->tail == 0 && log->total == log->open ? 0 : WEIR_ECORRUPT;
    bool sound = weir_log_in_pool(lines, log->head) && weir_log_in_pool(lines, log->tail) &&
                 (log->index == 0 || weir_log_in_pool(lines, log->index)) &&
                 (log->head != log->tail || log->head_at <= log->tail_at);
    return sound ? 0 : WEIR_ECORRUPT;
}

/* --------------------------------------------------------------------------------------- places */

/* Reads the entry at a position. */
static int load(const struct weir_log *log, struct weir_log_place *place) {
    if (weir_log_at_open(log, place)) {
        place->time_ns = log->newest_ns; /* the last record of a dry log may have an old step */
        place->hits = log->open;
        place->step_ns = INT64_MAX - place->time_ns;
        return 0;
    }
    place->end = place->at;
    if (!weir_log_get_record(log->lines->line[place->line].bytes, &place->end, place->fill,
                             &place->hits, &place->step_ns))
        return WEIR_ECORRUPT;
    bool sound = place->time_ns < log->newest_ns && place->step_ns <= INT64_MAX - place->time_ns &&
                 place->hits <= log->total - place->before;
    return sound ? 0 : WEIR_ECORRUPT;
}

int weir_log_enter(const struct weir_log *log, struct weir_log_place *place, uint32_t line) {
    if (!weir_log_in_pool(log->lines, line) || place->walked++ == WEIR_LOG_WALK_MAX)
        return WEIR_ECORRUPT;
    place->line = line;
    place->at = 0;
    if (line == log->tail) {
        place->fill = log->tail_at;
        place->next = WEIR_LINE_NONE;
        return 0;
    }
    uint32_t packed = weir_lines_next(log->lines, line);
    place->fill = weir_log_bits_of(packed);
    place->next = weir_log_line_of(packed);
    return place->fill <= WEIR_LINE_BYTES ? 0 : WEIR_ECORRUPT;
}

/* Goes to the next data line. Skips an index line between them. */
static int next_line(const struct weir_log *log, struct weir_log_place *place) {
    uint32_t line = place->next;
    place->left = place->line;
    place->passed++;
    if (weir_log_in_pool(log->lines, line) && line != log->tail) {
        uint32_t packed = weir_lines_next(log->lines, line);
        if (weir_log_bits_of(packed) == WEIR_LOG_INDEX) {
            place->left = place->index = line;
            place->passed++;
            place->since = 0;
            line = weir_log_line_of(packed);
        }
    }
    place->since++;
    return weir_log_enter(log, place, line);
}

int weir_log_arrive(const struct weir_log *log, struct weir_log_place *place) {
    int rc = place->at >= place->fill && place->line != log->tail ? next_line(log, place) : 0;
    return rc < 0 ? rc : load(log, place);
}

static int head_of(const struct weir_log *log, struct weir_log_place *place) {
    *place = (struct weir_log_place){.time_ns = log->oldest_ns, .since = log->head ? 1 : 0};
    int rc = log->head ? weir_log_enter(log, place, log->head) : 0;
    place->at = log->head_at;
    return rc < 0 ? rc : load(log, place);
}

int weir_log_advance(const struct weir_log *log, struct weir_log_place *place) {
    place->before += place->hits;
    place->time_ns += place->step_ns;
    place->at = place->end;
    return weir_log_arrive(log, place);
}

/* ------------------------------------------------------------------------------------ searching */

static bool reached(const struct weir_log_place *place, const struct weir_log_goal *goal) {
    return place->time_ns > goal->after_ns || place->before + place->hits >= goal->hits ||
           place->time_ns + place->step_ns > goal->until_ns;
}

/* The index lines of one search, relative to the first one after the head. */
struct leap {
    const struct weir_log *log;
    const struct weir_log_goal *goal;
    struct weir_log_index first;
    int64_t before; /* hits before the first */
};

/* Hits from the head to the entry that an index line describes. */
static int64_t hits_before(const struct leap *leap, const struct weir_log_index *index) {
    return (int64_t)((uint64_t)leap->before + (index->hits - leap->first.hits));
}

/* Whether the goal is at or after the entry of an index line. */
static bool in_front(const struct leap *leap, const struct weir_log_index *index) {
    return index->time_ns <= leap->goal->after_ns && index->time_ns <= leap->goal->until_ns &&
           hits_before(leap, index) < leap->goal->hits;
}

/* Reads an older index line. Returns 0 if it no longer exists. */
static int follow(const struct leap *leap, uint32_t line, int64_t time_ns, int64_t younger_ns,
                  struct weir_log_index *index) {
    if (time_ns < leap->first.time_ns)
        return 0;
    if (time_ns >= younger_ns || !weir_log_in_pool(leap->log->lines, line))
        return WEIR_ECORRUPT;
    weir_log_get_index(leap->log->lines, line, index);
    return index->time_ns == time_ns ? 1 : WEIR_ECORRUPT;
}

/* Finds the last index line before the goal. Returns 1 if found, 0 if there is none. */
static int last_in_front(const struct leap *leap, uint32_t *line, struct weir_log_index *index) {
    struct weir_log_index node, older;
    *line = leap->log->index;
    weir_log_get_index(leap->log->lines, *line, &node);
    for (int hops = 0; hops < HOPS_MAX && !in_front(leap, &node); hops++) {
        int rc = follow(leap, node.jump, node.jump_time_ns, node.time_ns, &older);
        if (rc == 1 && !in_front(leap, &older)) {
            *line = node.jump;
            node = older;
            continue;
        }
        if (rc < 0)
            return rc;
        rc = follow(leap, node.prev, node.prev_time_ns, node.time_ns, &older);
        if (rc < 1)
            return rc;
        *line = node.prev;
        node = older;
    }
    *index = node;
    return in_front(leap, &node) ? 1 : WEIR_ECORRUPT;
}

/* Goes from the line after the first index line to the line after the last one before the goal. */
static int leap_to(const struct weir_log *log, struct weir_log_place *place,
                   const struct weir_log_goal *goal) {
    struct leap leap = {.log = log, .goal = goal, .before = place->before};
    struct weir_log_index index;
    uint32_t line;
    if (!weir_log_in_pool(log->lines, log->index))
        return WEIR_ECORRUPT;
    weir_log_get_index(log->lines, place->index, &leap.first);
    if (leap.first.time_ns != place->time_ns)
        return WEIR_ECORRUPT;
    int rc = last_in_front(&leap, &line, &index);
    if (rc < 1 || line == place->index)
        return rc < 0 ? rc : 0;
    int64_t before = hits_before(&leap, &index);
    if (before < place->before || before > log->total || index.time_ns < place->time_ns)
        return WEIR_ECORRUPT;
    place->passed += index.lines - leap.first.lines;
    place->time_ns = index.time_ns;
    place->before = before;
    place->left = place->index = line;
    place->since = 1;
    place->walked = 0;
    rc = weir_log_enter(log, place, weir_log_line_of(weir_lines_next(log->lines, line)));
    return rc < 0 ? rc : weir_log_arrive(log, place);
}

int weir_log_find(const struct weir_log *log, struct weir_log_goal goal,
                  struct weir_log_place *place) {
    bool leapt = log->index == WEIR_LINE_NONE;
    int rc = head_of(log, place);
    while (rc == 0 && !reached(place, &goal)) {
        if (weir_log_at_open(log, place))
            return WEIR_ECORRUPT;
        rc = weir_log_advance(log, place);
        if (rc == 0 && !leapt && place->index != WEIR_LINE_NONE) {
            leapt = true;
            if (place->index != log->index && !reached(place, &goal))
                rc = leap_to(log, place, &goal);
        }
    }
    if (rc == 0 && weir_log_at_open(log, place) && place->before != log->total - log->open)
        return WEIR_ECORRUPT;
    return rc;
}
