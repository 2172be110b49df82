/*
 * The log of a moving window as one value, for stores that read and write whole values. It holds
 * the same hits as the log in lines of src/strategy/log/log.c.
 *
 *     mark, oldest, newest, total, open   three bytes, then four numbers of eight bytes
 *     record record record ...            [0x00 varint(hits)] varint(next entry's time - its own)
 *
 * An entry is a time and a number of hits; times strictly increase. The newest entry is open: its
 * time and hits are in `newest` and `open`, so that hits at the same moment merge. Each other entry
 * has a record. hits are only written if they are not 1; a step is at least 1, so it never begins
 * with 0x00.
 *
 * A step of the strategy changes only the two ends; the records between them are copied unchanged.
 * It may add two records after them: the last entry that remains after the clock stepped back, and
 * the entry that a hit closes.
 *
 * The length of a log is bounded. If it has more than LONG_BYTES of records, and the last record is
 * less than period / MOMENTS old, a hit joins the open entry, which moves to the hit's time. Of two
 * consecutive records, the second then ends at least that much later than the first begins, so at
 * most 2 * MOMENTS more are added. Moved hits expire later than they would otherwise, never
 * earlier.
 *
 * Cost: reads every record once to verify the sums, and once more to find a place.
 */
#include "strategy/log/flat.h"

#include <string.h>

#include "strategy/exact.h"

#define HEADER (WEIR_FLAT_MARK + 4 * 8)
#define RECORD_MAX 21
#define LONG_BYTES (1 << 17)
#define MOMENTS (1 << 14)

struct record {
    int64_t hits;
    int64_t step_ns; /* to the next entry */
};

struct flat {
    int64_t oldest_ns, newest_ns, total, open;
    const unsigned char *from, *to; /* records that are copied unchanged */
    struct record tail[2];          /* the records after them */
    int tail_from, tail_to;
    /* The last record that was read; `to` is its end while it is the last one. */
    const unsigned char *last;
    const unsigned char *last_end;
};

/* A place in the records. */
struct place {
    const unsigned char *at;
    int tail;
};

static int64_t get_word(const unsigned char *from) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | from[i];
    return (int64_t)value;
}

static bool get_varint(const unsigned char **at, const unsigned char *end, int64_t *value) {
    uint64_t sum = 0;
    for (unsigned shift = 0; shift < 63 && *at < end; shift += 7) {
        unsigned char byte = *(*at)++;
        sum |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *value = (int64_t)sum;
            return true;
        }
    }
    return false;
}

static size_t put_varint(char *to, int64_t value) {
    size_t n = 0;
    uint64_t left = (uint64_t)value;
    for (; left > 127; left >>= 7)
        to[n++] = (char)(left | 128);
    to[n++] = (char)left;
    return n;
}

static bool get_record(const unsigned char **at, const unsigned char *end, struct record *record) {
    record->hits = 1;
    if (*at < end && **at == 0) {
        ++*at;
        if (!get_varint(at, end, &record->hits) || record->hits < 1)
            return false;
    }
    return get_varint(at, end, &record->step_ns) && record->step_ns > 0;
}

static size_t put_record(char *to, const struct record *record) {
    size_t n = 0;
    if (record->hits != 1) {
        to[n++] = 0;
        n += put_varint(to + n, record->hits);
    }
    return n + put_varint(to + n, record->step_ns);
}

static struct place start_of(const struct flat *log) {
    return (struct place){log->from, log->tail_from};
}

/* Reads the record at *place and advances *place. False at the end: only the open entry is left. */
static bool next(const struct flat *log, struct place *place, struct record *record) {
    if (place->at < log->to)
        return get_record(&place->at, log->to, record);
    if (place->tail == log->tail_to)
        return false;
    *record = log->tail[place->tail++];
    return true;
}

/* Makes `place` the end of the records. */
static void end_at(struct flat *log, struct place place) {
    if (place.at < log->to) {
        log->to = place.at;
        log->tail_from = log->tail_to = 0;
    } else {
        log->tail_to = place.tail;
    }
}

static void empty(struct flat *log) {
    *log = (struct flat){.from = log->from, .to = log->from};
}

/* ------------------------------------------------------------------------------- read and write */

static int read_log(struct flat *log, const char *value, size_t len) {
    const unsigned char *bytes = (const unsigned char *)value;
    *log = (struct flat){0};
    if (!value)
        return 0;
    if (len < HEADER)
        return WEIR_EFORMAT;
    log->oldest_ns = get_word(bytes + WEIR_FLAT_MARK);
    log->newest_ns = get_word(bytes + WEIR_FLAT_MARK + 8);
    log->total = get_word(bytes + WEIR_FLAT_MARK + 16);
    log->open = get_word(bytes + WEIR_FLAT_MARK + 24);
    log->from = bytes + HEADER;
    log->to = log->last_end = bytes + len;
    if (log->oldest_ns < 0 || log->newest_ns < log->oldest_ns || log->open < 1 ||
        log->total < log->open)
        return WEIR_EFORMAT;
    int64_t hits = log->total - log->open, time_ns = log->newest_ns - log->oldest_ns;
    for (const unsigned char *at = log->from; at < log->to;) {
        struct record record;
        log->last = at;
        if (!get_record(&at, log->to, &record) || record.hits > hits || record.step_ns > time_ns)
            return WEIR_EFORMAT;
        hits -= record.hits;
        time_ns -= record.step_ns;
    }
    return hits || time_ns ? WEIR_EFORMAT : 0;
}

static int write_log(const struct flat *log, char *to, size_t room, size_t *len) {
    *len = 0;
    if (log->total == 0)
        return 0;
    size_t kept = (size_t)(log->to - log->from);
    if (kept + HEADER + 2 * RECORD_MAX > room)
        return WEIR_EFULL;
    const int64_t words[4] = {log->oldest_ns, log->newest_ns, log->total, log->open};
    for (int i = 0; i < 32; i++)
        to[WEIR_FLAT_MARK + i] = (char)((uint64_t)words[i / 8] >> (8 * (i % 8)) & 0xFF);
    if (kept > 0)
        memcpy(to + HEADER, log->from, kept);
    *len = HEADER + kept;
    for (int i = log->tail_from; i < log->tail_to; i++)
        *len += put_record(to + *len, &log->tail[i]);
    return 0;
}

/* -------------------------------------------------------------------------------------- changes */

/* Moves every entry later than now_ns to now_ns. */
static void bring_back(struct flat *log, int64_t now_ns) {
    struct place place = start_of(log), before = place;
    struct record record, last = {0};
    int64_t time_ns = log->oldest_ns, hits = 0; /* of the entries before the first later one */
    bool any = false;
    if (time_ns > now_ns) {
        log->oldest_ns = now_ns;
        end_at(log, place);
    } else {
        int64_t at_ns = time_ns;
        for (struct place here = place; next(log, &place, &record); here = place) {
            if (time_ns > now_ns)
                break;
            before = here;
            last = record;
            at_ns = time_ns;
            hits += record.hits;
            time_ns += record.step_ns;
            any = true;
        }
        if (any) { /* the last remaining entry: its step ends at now, or it is at now itself */
            end_at(log, before);
            if (at_ns == now_ns)
                hits -= last.hits;
            else
                log->tail[log->tail_to++] = (struct record){last.hits, now_ns - at_ns};
        }
    }
    log->newest_ns = now_ns;
    log->open = log->total - hits;
}

static void expire(struct flat *log, int64_t upto_ns) {
    if (log->newest_ns <= upto_ns) {
        empty(log);
        return;
    }
    struct place place = start_of(log);
    struct record record;
    while (log->oldest_ns <= upto_ns && next(log, &place, &record)) {
        log->total -= record.hits;
        log->oldest_ns += record.step_ns;
        log->from = place.at;
        log->tail_from = place.tail;
    }
}

/*
 * Whether the open entry of a long log moves to at_ns. If so, the record before it must be
 * rewritten.
 */
static bool moves(struct flat *log, int64_t at_ns, int64_t period_ns) {
    const unsigned char *at = log->last;
    struct record record;
    if (log->to - log->from < LONG_BYTES || log->to != log->last_end ||
        log->tail_from != log->tail_to || !get_record(&at, log->to, &record))
        return false;
    record.step_ns += at_ns - log->newest_ns;
    if (record.step_ns >= period_ns / MOMENTS)
        return false;
    log->to = log->last;
    log->tail[log->tail_to++] = record;
    return true;
}

static void add(struct flat *log, int64_t at_ns, int64_t hits, int64_t period_ns) {
    if (log->total == 0) {
        log->oldest_ns = at_ns;
        log->open = 0;
    } else if (at_ns > log->newest_ns && !moves(log, at_ns, period_ns)) {
        log->tail[log->tail_to++] = (struct record){log->open, at_ns - log->newest_ns};
        log->open = 0;
    }
    log->newest_ns = at_ns;
    log->open += hits;
    log->total += hits;
}

static void take_back(struct flat *log, int64_t hits) {
    if (hits >= log->total) {
        empty(log);
        return;
    }
    int64_t left = log->total - hits, sum = 0, time_ns = log->oldest_ns;
    struct place place = start_of(log), here = place;
    struct record record;
    for (; next(log, &place, &record); here = place) {
        if (sum + record.hits >= left) {
            end_at(log, here);
            log->newest_ns = time_ns;
            break;
        }
        sum += record.hits;
        time_ns += record.step_ns;
    }
    log->open = left - sum;
    log->total = left;
}

/* The time of the entry that contains hit number `hits`, counted from the oldest. */
static int64_t time_of(const struct flat *log, int64_t hits) {
    struct place place = start_of(log);
    struct record record;
    int64_t sum = 0, time_ns = log->oldest_ns;
    while (next(log, &place, &record)) {
        sum += record.hits;
        if (sum >= hits)
            return time_ns;
        time_ns += record.step_ns;
    }
    return log->newest_ns;
}

/* ----------------------------------------------------------------------------------------- step */

/* Updates the log to now. Returns the effective time: now, or a little later. */
static int64_t settle(struct flat *log, const struct weir_step *step) {
    int64_t at_ns = step->now_ns;
    if (log->total == 0)
        return at_ns;
    if (log->newest_ns > at_ns + WEIR_SKEW_NS)
        bring_back(log, at_ns);
    else if (log->newest_ns > at_ns)
        at_ns = log->newest_ns;
    expire(log, at_ns - step->limit->period_ns);
    return at_ns;
}

static void hit(struct flat *log, const struct weir_step *step, int64_t at_ns,
                struct weir_verdict *verdict) {
    int64_t amount = step->limit->amount;
    verdict->allowed =
        step->cost == 0 || (step->cost <= amount && log->total <= amount - step->cost);
    if (!verdict->allowed)
        verdict->retry_after_ns = step->cost > amount
                                      ? WEIR_NEVER
                                      : time_of(log, log->total - (amount - step->cost)) +
                                            step->limit->period_ns - step->now_ns;
    else if (step->charge && step->cost > 0)
        add(log, at_ns, step->cost, step->limit->period_ns);
}

int weir_flat_step(const struct weir_step *step, enum weir_mode mode, const char *value, size_t len,
                   struct weir_verdict *verdict, char *next_value, size_t room, size_t *next_len,
                   int64_t *expires_ns) {
    struct flat log;
    const struct weir_limit *limit = step->limit;
    int rc = read_log(&log, value, len);
    if (rc < 0)
        return rc;
    int64_t at_ns = settle(&log, step);
    verdict->allowed = 1;
    verdict->retry_after_ns = 0;
    verdict->delay_ns = 0;
    if (mode == WEIR_REFUND)
        take_back(&log, step->cost);
    else
        hit(&log, step, at_ns, verdict);
    verdict->limit = limit->amount;
    verdict->remaining = log.total < limit->amount ? limit->amount - log.total : 0;
    verdict->reset_at_ns = log.total ? log.oldest_ns + limit->period_ns : step->now_ns;
    *expires_ns = log.total ? weir_add(log.newest_ns, limit->period_ns) : 0;
    return write_log(&log, next_value, room, next_len);
}
