/* Names of counters on remote stores, and functions that their codecs share. See names.h. */
#include "remote/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "units.h"
#include "strategy/strategy.h"

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

size_t weir_remote_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                        char *name) {
    const struct weir_limit *limit = check->limit;
    const char *key = check->key, *unit = weir_unit_name(limit->unit);
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
    if (weir_takes((uint32_t)limit->strategy, WEIR_TAKES_BURST))
        to = put_number(to, weir_limit_size(limit));
    if (limit->zone)
        to = put_zone(to, limit->zone);
    return (size_t)(to - name);
}

bool weir_remote_same(const struct weir_check *a, const struct weir_check *b) {
    const struct weir_limit *x = a->limit, *y = b->limit;
    return x->strategy == y->strategy && x->amount == y->amount && x->multiples == y->multiples &&
           x->unit == y->unit && weir_limit_size(x) == weir_limit_size(y) &&
           !strcmp(zone_name(x), zone_name(y)) && a->key_len == b->key_len &&
           (a->key_len == 0 || !memcmp(a->key, b->key, a->key_len));
}
