/*
 * The log of a moving window: every admitted hit that may still count, exactly, in about 4 bytes.
 *
 *   state   total, oldest time, hits of the open entry; head, tail; newest index line
 *             |                                             |
 *             v head                                        v tail
 *   lines   [record record ..] -> [records] -> (index) -> [records ....      ]    + the open entry
 *             ^ 60 bytes each, linked by `next`    \________ prev, jump: older index lines
 *
 * An entry is a time and a number of hits; times strictly increase. The newest entry is *open*: it stands
 * in the state alone, so that hits of the same moment merge, and a key with one entry needs no line. When
 * a later hit comes, the open entry is closed by a record behind the last one:
 *
 *     record = [0x00 varint(hits)]  varint(time of the next entry - its own)
 *              only if hits != 1    at least 1, so never the byte 0x00
 *
 * Varints are LEB128: 4 bytes for a step below 268 ms, 5 below 34 s, 9 at most. A record stands in one line.
 *
 * `next` holds the next line in its lower 26 bits. The 6 bits above say, of a data line, how many bytes of
 * it are records (the tail's end is in the state), and of an index line INDEX. Bytes that records
 * occupy are never written again while a committed state reaches them: a decision writes behind the tail
 * and in lines it has just taken, and all else it changes are links, which the store can undo.
 *
 * Every STRETCH data lines an *index line* precedes the next data line. It says what is known there: time
 * of the entry that begins it, hits and lines since the chain of index lines began; and it points to the one
 * before (prev) and to one further back (jump), by the rule of Myers, "An applicative random-access
 * stack" (1983): so the newest finds any other in O(log n), adding one is O(1), and none is ever changed.
 * Where the paper's stacks live for ever, ours loses its oldest lines: an index line stands in the chain of
 * `next` right in front of what it describes and is given back with it. A pointer carries the time of
 * its target, and a target no later than the oldest entry is gone and is not followed.
 *
 * Finding by time or by count: walk from the head to the first index line (STRETCH lines at most); from the
 * newest index line jump back to the last one in front of the goal; walk from there. Dropping either
 * end of a log is then one splice, since the index lines also count the lines between them.
 *
 * Invariants
 *  - total = hits of all records from the head on + open; the times' steps sum up to newest - oldest
 *  - head = tail (place, not only line) if and only if the open entry is the only one
 *  - the head's place is the first byte of a record, or the tail's end
 *  - index is the last index line in the chain, or 0 if there is none; since: data lines behind it
 *
 * Cost: a hit O(1) amortised, one line touched at each end. A search: up to 2 x STRETCH lines and
 * O(log n) index lines. Indices are checked before use and walks are bounded: a damaged file gives
 * WEIR_ECORRUPT or wrong counts, never a wild access or an endless walk.
 */
#include "log.h"

#include <string.h>

#include "strategy/strategy.h"

#define STRETCH 16  /* data lines from one index line to the next */
#define WALK_MAX 64 /* lines any walk may take: 2 x STRETCH and the index lines between */
#define HOPS_MAX 1024
#define INDEX 63 /* the upper bits of an index line's next */
#define RECORD_MAX 20

struct index {
    int64_t time_ns; /* of the entry that begins behind it */
    uint64_t hits;   /* in front of that entry, since the first index line; differences count */
    int64_t prev_time_ns;
    int64_t jump_time_ns;
    uint32_t prev; /* index lines; a time of -1: none */
    uint32_t jump;
    uint32_t depth; /* index lines before it */
    uint32_t jump_depth;
    uint32_t lines; /* lines of either kind in front of it, since the first index line; differences count */
};

_Static_assert(sizeof(struct index) <= WEIR_LINE_BYTES, "an index fits a line");

/* A place in a log: at an entry. */
struct place {
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
struct goal {
    int64_t after_ns; /* its time is later */
    int64_t hits;     /* with it, so many hits are complete */
    int64_t until_ns; /* the next entry's time is later */
};

#define NO_GOAL (struct goal){INT64_MAX, INT64_MAX, INT64_MAX}

static bool in_pool(const struct weir_lines *lines, uint32_t line) {
    return line != WEIR_LINE_NONE && line < lines->total;
}

static uint32_t pack(uint32_t line, uint32_t bits) {
    return line | bits << WEIR_LINE_BITS;
}

static uint32_t line_of(uint32_t packed) {
    return packed & WEIR_LINE_MASK;
}

static uint32_t bits_of(uint32_t packed) {
    return packed >> WEIR_LINE_BITS;
}

/* -------------------------------------------------------------------------------------- records */

static uint32_t put_varint(uint8_t *bytes, uint64_t value) {
    uint32_t n = 0;
    for (; value > 127; value >>= 7)
        bytes[n++] = (uint8_t)(value | 128);
    bytes[n++] = (uint8_t)value;
    return n;
}

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

static uint32_t put_record(uint8_t *bytes, int64_t hits, int64_t step_ns) {
    uint32_t n = 0;
    if (hits != 1) {
        bytes[n++] = 0;
        n += put_varint(bytes + n, (uint64_t)hits);
    }
    return n + put_varint(bytes + n, (uint64_t)step_ns);
}

static bool get_record(const uint8_t *bytes, uint32_t *at, uint32_t end, int64_t *hits,
                       int64_t *step_ns) {
    *hits = 1;
    if (*at < end && bytes[*at] == 0) {
        ++*at;
        if (!get_varint(bytes, at, end, hits) || *hits < 1)
            return false;
    }
    return get_varint(bytes, at, end, step_ns) && *step_ns > 0;
}

static void get_index(const struct weir_lines *lines, uint32_t line, struct index *index) {
    memcpy(index, lines->line[line].bytes, sizeof *index);
}

/* --------------------------------------------------------------------------------------- places */

static bool at_open(const struct weir_log *log, const struct place *place) {
    return place->line == log->tail && place->at == log->tail_at;
}

/* Reads the entry at a place. */
static int load(const struct weir_log *log, struct place *place) {
    if (at_open(log, place)) {
        place->time_ns = log->newest_ns; /* a dry log's last record may not know it */
        place->hits = log->open;
        place->step_ns = INT64_MAX - place->time_ns;
        return 0;
    }
    place->end = place->at;
    if (!get_record(log->lines->line[place->line].bytes, &place->end, place->fill, &place->hits,
                    &place->step_ns))
        return WEIR_ECORRUPT;
    bool sound = place->time_ns < log->newest_ns && place->step_ns <= INT64_MAX - place->time_ns &&
                 place->hits <= log->total - place->before;
    return sound ? 0 : WEIR_ECORRUPT;
}

/* Goes to the first byte of data line `line`. */
static int enter(const struct weir_log *log, struct place *place, uint32_t line) {
    if (!in_pool(log->lines, line) || place->walked++ == WALK_MAX)
        return WEIR_ECORRUPT;
    place->line = line;
    place->at = 0;
    if (line == log->tail) {
        place->fill = log->tail_at;
        place->next = WEIR_LINE_NONE;
        return 0;
    }
    uint32_t packed = weir_lines_next(log->lines, line);
    place->fill = bits_of(packed);
    place->next = line_of(packed);
    return place->fill <= WEIR_LINE_BYTES ? 0 : WEIR_ECORRUPT;
}

/* Goes to the next data line, past an index line if there is one in between. */
static int next_line(const struct weir_log *log, struct place *place) {
    uint32_t line = place->next;
    place->left = place->line;
    place->passed++;
    if (in_pool(log->lines, line) && line != log->tail) {
        uint32_t packed = weir_lines_next(log->lines, line);
        if (bits_of(packed) == INDEX) {
            place->left = place->index = line;
            place->passed++;
            place->since = 0;
            line = line_of(packed);
        }
    }
    place->since++;
    return enter(log, place, line);
}

/* Reads the entry that begins here, or at the next line that has a record. */
static int arrive(const struct weir_log *log, struct place *place) {
    while (place->at >= place->fill && place->line != log->tail) {
        int rc = next_line(log, place);
        if (rc < 0)
            return rc;
    }
    return load(log, place);
}

static int head_of(const struct weir_log *log, struct place *place) {
    *place = (struct place){.time_ns = log->oldest_ns, .since = log->head ? 1 : 0};
    int rc = log->head ? enter(log, place, log->head) : 0;
    place->at = log->head_at;
    return rc < 0 ? rc : load(log, place);
}

/* Goes to the next entry; not from the open one. */
static int advance(const struct weir_log *log, struct place *place) {
    place->before += place->hits;
    place->time_ns += place->step_ns;
    place->at = place->end;
    return arrive(log, place);
}

/* ------------------------------------------------------------------------------------ searching */

static bool reached(const struct place *place, const struct goal *goal) {
    return place->time_ns > goal->after_ns || place->before + place->hits >= goal->hits ||
           place->time_ns + place->step_ns > goal->until_ns;
}

/* Index lines of one search, seen from the first one behind the head. */
struct leap {
    const struct weir_log *log;
    const struct goal *goal;
    struct index first;
    int64_t before; /* hits in front of the first */
};

/* Hits from the head up to what an index line describes. */
static int64_t hits_before(const struct leap *leap, const struct index *index) {
    return (int64_t)((uint64_t)leap->before + (index->hits - leap->first.hits));
}

/* Whether the goal lies at or behind the entry of an index line. */
static bool in_front(const struct leap *leap, const struct index *index) {
    return index->time_ns <= leap->goal->after_ns && index->time_ns <= leap->goal->until_ns &&
           hits_before(leap, index) < leap->goal->hits;
}

/* Reads an older index line; 0: it is gone. */
static int follow(const struct leap *leap, uint32_t line, int64_t time_ns, int64_t younger_ns,
                  struct index *index) {
    if (time_ns < leap->first.time_ns)
        return 0;
    if (time_ns >= younger_ns || !in_pool(leap->log->lines, line))
        return WEIR_ECORRUPT;
    get_index(leap->log->lines, line, index);
    return index->time_ns == time_ns ? 1 : WEIR_ECORRUPT;
}

/* The last index line in front of the goal into *line and *index; 1: found, 0: none is. */
static int last_in_front(const struct leap *leap, uint32_t *line, struct index *index) {
    struct index node, older;
    *line = leap->log->index;
    get_index(leap->log->lines, *line, &node);
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

/* From right behind the first index line, goes to the last one in front of the goal. */
static int leap_to(const struct weir_log *log, struct place *place, const struct goal *goal) {
    struct leap leap = {.log = log, .goal = goal, .before = place->before};
    struct index index;
    uint32_t line;
    if (!in_pool(log->lines, log->index))
        return WEIR_ECORRUPT;
    get_index(log->lines, place->index, &leap.first);
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
    rc = enter(log, place, line_of(weir_lines_next(log->lines, line)));
    return rc < 0 ? rc : arrive(log, place);
}

/* Finds the first entry that fulfils the goal; WEIR_ECORRUPT if there is none, which callers exclude. */
static int find(const struct weir_log *log, struct goal goal, struct place *place) {
    bool leapt = log->index == WEIR_LINE_NONE;
    int rc = head_of(log, place);
    while (rc == 0 && !reached(place, &goal)) {
        if (at_open(log, place))
            return WEIR_ECORRUPT;
        rc = advance(log, place);
        if (rc == 0 && !leapt && place->index != WEIR_LINE_NONE) {
            leapt = true;
            if (place->index != log->index && !reached(place, &goal))
                rc = leap_to(log, place, &goal);
        }
    }
    if (rc == 0 && at_open(log, place) && place->before != log->total - log->open)
        return WEIR_ECORRUPT;
    return rc;
}

/* --------------------------------------------------------------------------------- giving lines back */

/*
 * The number of lines from `line` to the tail, both included. They may begin in the middle of a stretch;
 * from the first index line on the index lines know.
 */
static int count_from(const struct weir_log *log, uint32_t line, uint32_t *count) {
    for (*count = 1; *count <= WALK_MAX && in_pool(log->lines, line); ++*count) {
        if (line == log->tail)
            return 0;
        uint32_t packed = weir_lines_next(log->lines, line);
        if (bits_of(packed) == INDEX && in_pool(log->lines, log->index)) {
            struct index first, last;
            get_index(log->lines, line, &first);
            get_index(log->lines, log->index, &last);
            *count += last.lines - first.lines + log->since;
            return *count < log->lines->total ? 0 : WEIR_ECORRUPT;
        }
        line = line_of(packed);
    }
    return WEIR_ECORRUPT;
}

static int give_from(const struct weir_log *log, uint32_t line) {
    uint32_t count;
    int rc = count_from(log, line, &count);
    return rc < 0 ? rc : weir_lines_give(log->lines, line, log->tail, count);
}

/* Gives all lines back; the open entry is left. */
static int give_all(struct weir_log *log) {
    int rc = log->head && !log->dry ? give_from(log, log->head) : 0;
    log->head = log->head_at = log->tail = log->tail_at = log->index = log->since = 0;
    return rc;
}

static int clear(struct weir_log *log) {
    log->total = log->open = 0;
    return give_all(log);
}

/* Makes the entry at `place`, not the oldest, the open one, with `hits`; drops what is behind. */
static int cut(struct weir_log *log, const struct place *place, int64_t hits) {
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

/* ------------------------------------------------------------------------------------- appending */

/* How far back the next index line jumps, given the newest one. */
static void choose_jump(const struct weir_log *log, const struct index *last, struct index *index) {
    struct index over;
    index->jump = log->index;
    index->jump_time_ns = last->time_ns;
    index->jump_depth = last->depth;
    if (last->jump_time_ns <= log->oldest_ns || !in_pool(log->lines, last->jump))
        return;
    get_index(log->lines, last->jump, &over);
    if (last->depth - over.depth == over.depth - over.jump_depth &&
        over.jump_time_ns > log->oldest_ns) {
        index->jump = over.jump;
        index->jump_time_ns = over.jump_time_ns;
        index->jump_depth = over.jump_depth;
    }
}

/* What there is to say in front of a new data line that begins with the open entry. */
static int describe(const struct weir_log *log, struct index *index) {
    memset(index, 0, sizeof *index);
    index->time_ns = log->newest_ns;
    index->prev_time_ns = index->jump_time_ns = -1;
    if (log->index == WEIR_LINE_NONE)
        return 0;
    struct index last;
    get_index(log->lines, log->index, &last);
    struct place place = {.time_ns = last.time_ns};
    int rc = enter(log, &place, line_of(weir_lines_next(log->lines, log->index)));
    if (rc == 0)
        rc = arrive(log, &place);
    while (rc == 0 && !at_open(log, &place))
        rc = place.index ? WEIR_ECORRUPT : advance(log, &place);
    index->hits = last.hits + (uint64_t)place.before;
    index->lines = last.lines + 1 + log->since;
    index->depth = last.depth + 1;
    index->prev = log->index;
    index->prev_time_ns = last.time_ns;
    choose_jump(log, &last, index);
    return rc;
}

/* Puts a new index line behind the tail and `line` behind that. */
static int link_indexed(struct weir_log *log, uint32_t line) {
    struct index index;
    uint32_t at;
    int rc = describe(log, &index);
    if (rc == 0)
        rc = weir_lines_take(log->lines, &at);
    if (rc < 0)
        return rc;
    memcpy(log->lines->line[at].bytes, &index, sizeof index);
    log->index = at;
    log->since = 0;
    rc = weir_lines_link(log->lines, log->tail, pack(at, log->tail_at));
    return rc < 0 ? rc : weir_lines_link(log->lines, at, pack(line, INDEX));
}

/* Makes a line just taken the new tail. */
static int add_line(struct weir_log *log) {
    uint32_t line;
    int rc = weir_lines_take(log->lines, &line);
    if (rc < 0)
        return rc;
    if (log->head == log->tail && log->head_at == log->tail_at) { /* no record: begin anew */
        rc = give_all(log);
        log->head = line;
    } else if (log->since >= STRETCH) {
        rc = link_indexed(log, line);
    } else {
        rc = weir_lines_link(log->lines, log->tail, pack(line, log->tail_at));
    }
    log->tail = line;
    log->tail_at = 0;
    log->since++;
    return rc;
}

/*
 * Closes the open entry and opens one of `hits` at now_ns, which is later. `fresh`: the bytes behind the tail
 * were cut off by this very decision, so that the record needs another line.
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

/* ----------------------------------------------------------------------------------- the interface */

/* Unpacks and checks what can be checked without reading a line. */
static int unpack(struct weir_log *log, const struct weir_state *state, struct weir_lines *lines) {
    *log = (struct weir_log){.lines = lines};
    log->total = state->word[0];
    log->oldest_ns = state->word[1];
    log->open = state->word[2];
    log->head = line_of(state->line[0]);
    log->head_at = bits_of(state->line[0]);
    log->tail = line_of(state->line[1]);
    log->tail_at = bits_of(state->line[1]);
    log->index = line_of(state->line[2]);
    log->since = bits_of(state->line[2]);
    if (log->total < log->open || log->open < 1 || log->oldest_ns < 0 ||
        log->tail_at > WEIR_LINE_BYTES || log->head_at > WEIR_LINE_BYTES)
        return WEIR_ECORRUPT;
    if (log->head == 0)
        return log->tail == 0 && log->total == log->open ? 0 : WEIR_ECORRUPT;
    bool sound = in_pool(lines, log->head) && in_pool(lines, log->tail) &&
                 (log->index == 0 || in_pool(lines, log->index)) &&
                 (log->head != log->tail || log->head_at <= log->tail_at);
    return sound ? 0 : WEIR_ECORRUPT;
}

int weir_log_read(struct weir_log *log, const struct weir_state *state, struct weir_lines *lines,
                  int64_t newest_ns, bool dry) {
    if (state->word[0] == 0) {
        *log = (struct weir_log){.lines = lines, .dry = dry};
        return 0;
    }
    int rc = unpack(log, state, lines);
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
    state->line[0] = pack(log->head, log->head_at);
    state->line[1] = pack(log->tail, log->tail_at);
    state->line[2] = pack(log->index, log->since);
}

int weir_log_expire(struct weir_log *log, int64_t upto_ns) {
    struct place place;
    struct goal goal = NO_GOAL;
    if (log->total == 0 || log->oldest_ns > upto_ns)
        return 0;
    if (log->newest_ns <= upto_ns)
        return clear(log);
    goal.after_ns = upto_ns;
    int rc = find(log, goal, &place);
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
    struct place place;
    struct goal goal = NO_GOAL;
    *time_ns = log->newest_ns;
    if (hits > log->total - log->open)
        return 0;
    goal.hits = hits;
    int rc = find(log, goal, &place);
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
    struct place place;
    struct goal goal = NO_GOAL;
    if (hits >= log->total)
        return clear(log);
    int64_t keep = log->total - hits;
    if (hits < log->open) {
        log->open -= hits;
        log->total = keep;
        return 0;
    }
    goal.hits = keep;
    int rc = find(log, goal, &place);
    if (rc < 0)
        return rc;
    if (place.before > 0)
        return cut(log, &place, keep - place.before);
    log->open = log->total = keep;
    log->newest_ns = log->oldest_ns;
    return give_all(log);
}

/* Brings all that is behind the entry at `place` to now_ns. */
static int bring_behind(struct weir_log *log, const struct place *place, int64_t now_ns) {
    int64_t late = log->total - place->before - place->hits;
    if (log->dry) { /* as if the record there said now_ns */
        struct place open = *place;
        open.at = place->end;
        open.before += place->hits;
        open.time_ns = now_ns;
        return cut(log, &open, late);
    }
    int rc = 0;
    if (place->before > 0) {
        rc = cut(log, place, place->hits);
    } else {
        rc = give_all(log);
        log->open = log->total = place->hits;
        log->newest_ns = log->oldest_ns;
    }
    return rc < 0 ? rc : append(log, now_ns, late, place->before > 0);
}

int weir_log_bring_back(struct weir_log *log, int64_t now_ns) {
    struct place place;
    struct goal goal = NO_GOAL;
    if (log->total == 0 || log->newest_ns <= now_ns)
        return 0;
    if (log->oldest_ns >= now_ns) {
        log->open = log->total;
        log->oldest_ns = log->newest_ns = now_ns;
        return give_all(log);
    }
    goal.until_ns = now_ns - 1; /* the last entry before now */
    int rc = find(log, goal, &place);
    if (rc == 0 && place.time_ns + place.step_ns > now_ns)
        return bring_behind(log, &place, now_ns);
    if (rc == 0)
        rc = advance(log, &place);
    return rc < 0 ? rc : cut(log, &place, log->total - place.before);
}

/* ------------------------------------------------------------------------------------ for the store */

int weir_log_drop(const struct weir_state *state, struct weir_lines *lines) {
    struct weir_log log;
    int rc = unpack(&log, state, lines);
    return rc < 0 || log.head == WEIR_LINE_NONE ? rc : give_from(&log, log.head);
}

/* Where weir_log_verify is, and what the lines so far said. */
struct verification {
    struct weir_log log;
    uint8_t *seen;
    int64_t time_ns;
    int64_t before;
    uint32_t passed;
    uint32_t since;
    uint32_t last; /* last index line met, or 0 */
    struct index last_index;
    uint64_t base_hits; /* what the first index line calls the head */
    uint32_t base_lines;
};

static bool marked(const uint8_t *seen, uint32_t line) {
    return seen[line / 8] >> line % 8 & 1;
}

static bool verify_jump(const struct verification *v, const struct index *index) {
    struct index target;
    if (index->jump_time_ns <= v->log.oldest_ns)
        return true;
    if (!in_pool(v->log.lines, index->jump) || !marked(v->seen, index->jump))
        return false;
    get_index(v->log.lines, index->jump, &target);
    return target.time_ns == index->jump_time_ns && target.depth == index->jump_depth &&
           index->jump_time_ns < index->time_ns;
}

static bool verify_index(struct verification *v, uint32_t line) {
    struct index index;
    get_index(v->log.lines, line, &index);
    if (v->last == WEIR_LINE_NONE) {
        v->base_hits = index.hits - (uint64_t)v->before;
        v->base_lines = index.lines - v->passed;
        if (index.prev_time_ns > v->log.oldest_ns)
            return false;
    } else if (index.prev != v->last || index.prev_time_ns != v->last_index.time_ns ||
               index.depth != v->last_index.depth + 1) {
        return false;
    }
    bool sound = index.time_ns == v->time_ns && index.hits - v->base_hits == (uint64_t)v->before &&
                 index.lines - v->base_lines == v->passed && verify_jump(v, &index);
    v->last = line;
    v->last_index = index;
    v->since = 0;
    return sound;
}

static bool verify_records(struct verification *v, uint32_t line, uint32_t at, uint32_t fill) {
    int64_t hits, step_ns;
    if (fill > WEIR_LINE_BYTES || at > fill)
        return false;
    while (at < fill) {
        if (!get_record(v->log.lines->line[line].bytes, &at, fill, &hits, &step_ns) ||
            hits > v->log.total - v->before || step_ns > WEIR_NOW_MAX - v->time_ns)
            return false;
        v->before += hits;
        v->time_ns += step_ns;
    }
    v->since++;
    return true;
}

static bool verify_lines(struct verification *v) {
    const struct weir_log *log = &v->log;
    bool index = false, sound = true;
    for (uint32_t line = log->head, at = log->head_at, next; sound; line = line_of(next), at = 0) {
        if (!in_pool(log->lines, line) || marked(v->seen, line))
            return false;
        v->seen[line / 8] |= (uint8_t)(1u << line % 8);
        if (line == log->tail)
            return verify_records(v, line, at, log->tail_at);
        next = weir_lines_next(log->lines, line);
        if (index && bits_of(next) == INDEX)
            return false;
        index = bits_of(next) == INDEX;
        sound = index ? verify_index(v, line) : verify_records(v, line, at, bits_of(next));
        v->passed++;
    }
    return false;
}

int weir_log_verify(const struct weir_state *state, const struct weir_lines *lines, uint8_t *seen) {
    struct verification v = {.seen = seen};
    /* Nothing below changes the pool; the log's own functions want it changeable. */
    int rc = unpack(&v.log, state, (struct weir_lines *)(uintptr_t)lines);
    if (rc < 0)
        return rc;
    v.time_ns = v.log.oldest_ns;
    if (v.log.head != WEIR_LINE_NONE && !verify_lines(&v))
        return WEIR_ECORRUPT;
    int64_t period_ns = state->expires_ns > v.time_ns ? state->expires_ns - v.time_ns : 0;
    bool sound = v.before + v.log.open == v.log.total && v.log.index == v.last &&
                 (v.last ? v.since == v.log.since : v.since <= v.log.since) && period_ns > 0 &&
                 period_ns <= WEIR_PERIOD_MAX_NS;
    return sound ? 0 : WEIR_ECORRUPT;
}
