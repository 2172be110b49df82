/* Names of counters on remote stores, and the rest of what their codecs share. See remote.h. */
#include "remote/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "calendar.h"
#include "strategy/strategy.h"

static const char *const unit_names[] = {"second", "minute", "hour", "day", "month", "year"};

enum { UNITS = sizeof unit_names / sizeof unit_names[0] };

static bool valid(const struct weir_check *check) {
    const struct weir_limit *limit = check->limit;
    if (!limit || check->cost < 0 || check->key_len > WEIR_KEY_MAX ||
        (!check->key && check->key_len) || (check->flags & ~WEIR_CHECK_LOOK) != 0)
        return false;
    return limit->amount >= 0 && limit->period_ns > 0 && limit->period_ns <= WEIR_PERIOD_MAX_NS &&
           limit->burst >= 0 && limit->max_delay_ns >= 0 &&
           limit->max_delay_ns <= limit->period_ns && (uint32_t)limit->strategy < WEIR_STRATEGIES &&
           (uint32_t)limit->unit < UNITS &&
           (!limit->zone || (limit->strategy == WEIR_CALENDAR_WINDOW &&
                             weir_zone_validate(limit->zone, NULL) == 0));
}

int weir_remote_validate(const struct weir_check *checks, size_t n) {
    if (!checks || n == 0)
        return WEIR_EINVAL;
    if (n > WEIR_CHECKS_MAX)
        return WEIR_ETOOMANY;
    for (size_t i = 0; i < n; i++)
        if (!valid(&checks[i]))
            return WEIR_EINVAL;
    return 0;
}

static char *put(char *to, const void *bytes, size_t len) {
    if (len > 0)
        memcpy(to, bytes, len);
    return to + len;
}

static char *put_number(char *to, int64_t number) {
    char digits[20];
    char *at = digits + sizeof digits;
    uint64_t left = (uint64_t)number;
    *to++ = '/';
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    return put(to, at, (size_t)(digits + sizeof digits - at));
}

/* "/Europe:Berlin": the zone's name is one part. */
static char *put_zone(char *to, const struct weir_zone *zone) {
    *to++ = '/';
    for (const char *at = zone->name; *at; at++)
        *to++ = (char)(*at == '/' ? ':' : *at);
    return to;
}

static const char *zone_name(const struct weir_limit *limit) {
    return limit->zone ? limit->zone->name : "";
}

/* The length of a key's first two parts. */
static size_t tag_len(const char *key, size_t key_len) {
    const char *slash = key_len ? memchr(key, '/', key_len) : NULL;
    if (slash)
        slash = memchr(slash + 1, '/', key_len - (size_t)(slash + 1 - key));
    return slash ? (size_t)(slash - key) : key_len;
}

static int64_t burst(const struct weir_limit *limit) {
    return limit->burst ? limit->burst : limit->amount;
}

size_t weir_remote_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                        char *name) {
    const struct weir_limit *limit = check->limit;
    const char *key = check->key, *unit = unit_names[limit->unit];
    size_t tag = tag_len(key, check->key_len);
    char *to = put(name, prefix, prefix_len);
    *to++ = ':';
    to = put(to, weir_strategies[limit->strategy]->tag, 2);
    to = put(to, ":{", 2);
    to = put(to, key, tag);
    *to++ = '}';
    if (tag < check->key_len)
        to = put(to, key + tag, check->key_len - tag);
    to = put_number(to, limit->amount);
    to = put_number(to, limit->multiples);
    *to++ = '/';
    to = put(to, unit, strlen(unit));
    if (limit->strategy == WEIR_TOKEN_BUCKET)
        to = put_number(to, burst(limit));
    if (limit->zone)
        to = put_zone(to, limit->zone);
    return (size_t)(to - name);
}

bool weir_remote_same(const struct weir_check *a, const struct weir_check *b) {
    const struct weir_limit *x = a->limit, *y = b->limit;
    return x->strategy == y->strategy && x->amount == y->amount && x->multiples == y->multiples &&
           x->unit == y->unit && (x->strategy != WEIR_TOKEN_BUCKET || burst(x) == burst(y)) &&
           !strcmp(zone_name(x), zone_name(y)) &&
           a->key_len == b->key_len && (a->key_len == 0 || !memcmp(a->key, b->key, a->key_len));
}

void weir_remote_choose(const struct weir_check *checks, const struct weir_verdict *verdicts,
                        size_t n, struct weir_decision *decision) {
    size_t deciding = 0;
    for (size_t i = 1; i < n; i++) {
        const struct weir_verdict *a = &verdicts[i], *b = &verdicts[deciding];
        if (a->allowed != b->allowed ? !a->allowed
            : a->allowed ? checks[i].limit->period_ns < checks[deciding].limit->period_ns
                         : a->retry_after_ns > b->retry_after_ns)
            deciding = i;
    }
    *decision = (struct weir_decision){.allowed = verdicts[deciding].allowed,
                                       .deciding = (int32_t)deciding};
}
