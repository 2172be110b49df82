/*
 * Verifies a whole log, record by record, against the state and the index lines. It walks the chain
 * of lines itself and shares no search with place.c, because it checks what place.c relies on.
 *
 * The state does not contain the period, so the newest time is only the sum of all steps;
 * expires_ns must be a possible period after it. Cost: one pass over the log.
 */
#include "strategy/log/place.h"
#include "strategy/strategy.h"

/* The position of weir_log_verify, and the sums over the lines so far. */
struct verification {
    struct weir_log log;
    uint8_t *seen;
    int64_t time_ns;
    int64_t before;
    uint32_t passed;
    uint32_t since;
    uint32_t last; /* the last index line found, or 0 */
    struct weir_log_index last_index;
    uint64_t base_hits; /* hits before the head, in the counts of the first index line */
    uint32_t base_lines;
};

static bool marked(const uint8_t *seen, uint32_t line) {
    return seen[line / 8] >> line % 8 & 1;
}

static bool verify_jump(const struct verification *v, const struct weir_log_index *index) {
    struct weir_log_index target;
    if (index->jump_time_ns <= v->log.oldest_ns)
        return true;
    if (!weir_log_in_pool(v->log.lines, index->jump) || !marked(v->seen, index->jump))
        return false;
    weir_log_get_index(v->log.lines, index->jump, &target);
    return target.time_ns == index->jump_time_ns && target.depth == index->jump_depth &&
           index->jump_time_ns < index->time_ns;
}

static bool verify_index(struct verification *v, uint32_t line) {
    struct weir_log_index index;
    weir_log_get_index(v->log.lines, line, &index);
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
    if (fill > WEIR_LINE_BYTES || (line == v->log.tail ? at > fill : at >= fill))
        return false;
    while (at < fill) {
        if (!weir_log_get_record(v->log.lines->line[line].bytes, &at, fill, &hits, &step_ns) ||
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
    for (uint32_t line = log->head, at = log->head_at, next; sound;
         line = weir_log_line_of(next), at = 0) {
        if (!weir_log_in_pool(log->lines, line) || marked(v->seen, line))
            return false;
        v->seen[line / 8] |= (uint8_t)(1u << line % 8);
        if (line == log->tail)
            return verify_records(v, line, at, log->tail_at);
        next = weir_lines_next(log->lines, line);
        if (index && weir_log_bits_of(next) == WEIR_LOG_INDEX)
            return false;
        index = weir_log_bits_of(next) == WEIR_LOG_INDEX;
        sound = index ? verify_index(v, line) : verify_records(v, line, at, weir_log_bits_of(next));
        v->passed++;
    }
    return false;
}

int weir_log_verify(const struct weir_state *state, const struct weir_lines *lines, uint8_t *seen) {
    struct verification v = {.seen = seen};
    /* Nothing below changes the pool, but the log's functions take a pointer that is not const. */
    int rc = weir_log_unpack(&v.log, state, (struct weir_lines *)(uintptr_t)lines);
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
