/*
 * Several limits, all or nothing, over packed states: the counterpart of src/by_limits.h.
 *
 * Each counter has two areas in the caller's buffer, used in turn: a step reads one and writes the
 * other. If a limit denies, all counters are reset to the values read and updated to now with hits
 * of cost 0.
 */
#include "weir/state.h"

#include <stdbool.h>
#include <string.h>

#include "checks.h"
#include "remote/names.h"
#include "remote/packed.h"
#include "weir/memcached.h"

/* A counter while its checks are stepped. */
struct place {
    const char *value; /* NULL: no value */
    size_t len;
    char *turn[2]; /* of `room` bytes each */
    size_t room;
    int64_t expires_ns;
    bool stepped;
};

struct decision {
    const struct weir_check *checks;
    size_t n;
    const struct weir_counter *counters;
    size_t count;
    int64_t now_ns;
    enum weir_mode mode;
    struct weir_verdict *verdicts;
    uint8_t of[WEIR_CHECKS_MAX]; /* the counter of each check */
    struct place place[WEIR_CHECKS_MAX];
};

int weir_state_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                    char *name) {
    return weir_memcached_name(check, prefix, prefix_len, name);
}

int weir_state_counters(const struct weir_check *checks, size_t n, struct weir_counter *counters,
                        size_t *count) {
    int rc = weir_checks_validate(checks, n);
    if (rc < 0 || !counters || !count)
        return rc < 0 ? rc : WEIR_EINVAL;
    *count = 0;
    for (size_t i = 0; i < n; i++) {
        size_t same = 0;
        while (same < *count && !weir_remote_same(&checks[counters[same].check], &checks[i]))
            same++;
        if (same == *count)
            counters[(*count)++] = (struct weir_counter){.check = i};
    }
    return 0;
}

static size_t room_of(const struct weir_counter *counter, size_t n) {
    return counter->was_len + (2 * n + 1) * WEIR_PACKED_GROWTH;
}

size_t weir_state_room(const struct weir_counter *counters, size_t count, size_t n) {
    size_t room = 0;
    for (size_t i = 0; counters && i < count; i++)
        room += 2 * room_of(&counters[i], n);
    return room;
}

static void begin(struct decision *d) {
    for (size_t i = 0; i < d->count; i++) {
        const struct weir_counter *counter = &d->counters[i];
        d->place[i].value = counter->was_len ? counter->was : NULL;
        d->place[i].len = counter->was_len;
        d->place[i].stepped = false;
    }
}

/* One step of a check's counter. keep: do not change the counter. */
static int step_once(struct decision *d, size_t i, int64_t cost, bool charge, bool keep,
                     struct weir_verdict *verdict) {
    struct place *place = &d->place[d->of[i]];
    const struct weir_step step = {
        .limit = d->checks[i].limit, .now_ns = d->now_ns, .cost = cost, .charge = charge};
    char *next = place->turn[place->value == place->turn[0]];
    size_t next_len;
    int64_t expires_ns = 0;
    int rc = weir_packed_step(&step, charge ? d->mode : WEIR_TEST, place->value, place->len,
                              verdict, next, place->room, &next_len, &expires_ns);
    if (rc == 0 && !keep) {
        place->value = next_len ? next : NULL;
        place->len = next_len;
        place->expires_ns = expires_ns;
        place->stepped = true;
    }
    return rc;
}

static int step_check(struct decision *d, size_t i, int64_t cost, struct weir_verdict *verdict) {
    bool peeks = d->checks[i].flags & WEIR_CHECK_PEEK;
    if (d->mode == WEIR_TEST)
        return step_once(d, i, cost, false, true, verdict);
    if (!peeks)
        return step_once(d, i, cost, true, false, verdict);
    if (d->mode == WEIR_REFUND)
        return step_once(d, i, 0, true, false, verdict);
    struct weir_verdict ignored;
    int rc = step_once(d, i, cost, false, true, verdict);
    return rc < 0 ? rc : step_once(d, i, 0, true, false, &ignored);
}

/* A test charges nothing, so the second check of a counter adds the cost of the first. */
static int64_t summed_cost(const struct decision *d, size_t i) {
    int64_t cost = d->checks[i].cost;
    for (size_t j = 0; j < i; j++)
        if (d->of[j] == d->of[i] && d->verdicts[j].allowed &&
            !(d->checks[j].flags & WEIR_CHECK_PEEK) &&
            __builtin_add_overflow(cost, d->checks[j].cost, &cost))
            return INT64_MAX;
    return cost;
}

static int evaluate(struct decision *d, size_t *bad) {
    bool denied = false;
    int rc = 0;
    begin(d);
    for (size_t i = 0; i < d->n && rc == 0; i++) {
        int64_t cost = d->mode == WEIR_TEST ? summed_cost(d, i) : d->checks[i].cost;
        rc = step_check(d, i, cost, &d->verdicts[i]);
        denied |= rc == 0 && !d->verdicts[i].allowed;
        if (rc < 0 && bad)
            *bad = d->of[i];
    }
    if (rc < 0 || !denied || d->mode != WEIR_HIT || d->n == 1)
        return rc;
    begin(d);
    for (size_t i = 0; i < d->n && rc == 0; i++) {
        struct weir_verdict uncharged;
        rc = step_check(d, i, 0, &uncharged);
        d->verdicts[i].remaining = uncharged.remaining;
        d->verdicts[i].reset_at_ns = uncharged.reset_at_ns;
    }
    return rc;
}

/* Finds each check's counter, and assigns areas of the buffer. */
static int lay_out(struct decision *d, char *buffer) {
    for (size_t i = 0; i < d->n; i++) {
        size_t same = 0;
        while (same < d->count &&
               (d->counters[same].check > i ||
                !weir_remote_same(&d->checks[d->counters[same].check], &d->checks[i])))
            same++;
        if (same == d->count)
            return WEIR_EINVAL;
        d->of[i] = (uint8_t)same;
    }
    for (size_t i = 0; i < d->count; i++) {
        struct place *place = &d->place[i];
        if (d->counters[i].was_len > WEIR_STATE_PACKED_MAX)
            return WEIR_EFORMAT;
        *place = (struct place){.room = room_of(&d->counters[i], d->n)};
        place->turn[0] = buffer;
        place->turn[1] = buffer + place->room;
        buffer += 2 * place->room;
    }
    return 0;
}

static void tell_changes(const struct decision *d, struct weir_counter *counters) {
    for (size_t i = 0; i < d->count; i++) {
        const struct place *place = &d->place[i];
        counters[i].next = place->value;
        counters[i].next_len = place->len;
        counters[i].expires_ns = place->expires_ns;
        counters[i].changed =
            place->stepped && (place->len != counters[i].was_len ||
                               (place->len && memcmp(place->value, counters[i].was, place->len)));
    }
}

int weir_state_decide(const struct weir_check *checks, size_t n, struct weir_counter *counters,
                      size_t count, int64_t now_ns, enum weir_mode mode, void *buffer,
                      struct weir_verdict *verdicts, struct weir_decision *decision, size_t *bad) {
    int rc = weir_checks_validate(checks, n);
    if (rc < 0)
        return rc;
    if (!counters || count == 0 || count > n || !buffer || !verdicts || now_ns < 0 ||
        now_ns > WEIR_NOW_MAX || (unsigned)mode > WEIR_REFUND)
        return WEIR_EINVAL;
    for (size_t i = 0; i < count; i++)
        if (counters[i].check >= n || (!counters[i].was && counters[i].was_len))
            return WEIR_EINVAL;
    struct decision d = {.checks = checks,
                         .n = n,
                         .counters = counters,
                         .count = count,
                         .now_ns = now_ns,
                         .mode = mode,
                         .verdicts = verdicts};
    rc = lay_out(&d, buffer);
    if (rc == 0)
        rc = evaluate(&d, bad);
    if (rc < 0)
        return rc;
    tell_changes(&d, counters);
    if (decision)
        weir_checks_choose(checks, verdicts, n, decision);
    return 0;
}
