/*
 * Decisions on Memcached: counters that the server counts itself, and states that it only stores.
 *
 *     ma <name> N<seconds> J<start, cost> D<cost> v t c    hit: open a window with the cost, or add
 *                                                          the cost
 *     mg <name> v t c                                      peek
 *     ma <name> MD D<cost> C<cas> v t c                    take a charge back, if nothing has
 *                                                          changed since
 *
 * The number has 63 bits: the upper 33 are the time at which the window began, in ticks and modulo
 * 2^33; the lower 30 are the count. So one command returns both, and the window ends exactly one
 * period after its start. The item lives longer: its expiry, which has whole seconds, only removes
 * unused items. The first hit after the end replaces it by compare-and-swap.
 *
 * The 64th bit stays 0: Memcached 1.6.18 calls a number from 2^63 on "non-numeric" if a hyphen
 * follows it in memory, where an earlier item may have left one.
 *
 * A tick is a power of two of nanoseconds, some 2^-31 of the period. The start is rounded up, so no
 * window is shorter than its period.
 *
 * src/remote/packed.c packs and steps the stored states.
 */
#include "weir/memcached.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "checks.h"
#include "crypto/crypto.h"
#include "digest.h"
#include "remote/names.h"
#include "remote/packed.h"
#include "remote/resp.h"

#define NS_PER_S INT64_C(1000000000)
#define COUNT_BITS WEIR_MEMCACHED_COUNT_BITS
/* The count has room for this amount and 63 denied costs that are not yet taken back. */
#define COUNT_MAX (INT64_C(1) << 24)
#define START_MASK ((UINT64_C(1) << (63 - COUNT_BITS)) - 1)
/*
 * An item lives this much longer than its window: the server has whole seconds, and hosts' clocks
 * differ.
 */
#define SPARE_S 5
/*
 * The time that has passed by the server's whole seconds may differ this much from the true time.
 */
#define SERVER_TOLERANCE_NS (3 * NS_PER_S)
#define REPLY_LINE_MAX 2048                  /* bytes of a line that the server sends */
#define PERIOD_MAX_NS (155520000 * NS_PER_S) /* five years: Memcached's times end in 2038 */

/* ---------------------------------------------------------------------------------------- names */

static bool is_safe(const char *name, size_t len) {
    if (len > WEIR_MEMCACHED_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] >= 0x7f)
            return false;
    return true;
}

/* Hashes the parts of the name in order, without building the name. */
static int hashed_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                       char *name) {
    struct weir_check without_key = *check;
    char rest[WEIR_MEMCACHED_PREFIX_MAX + WEIR_NAME_REST];
    unsigned char digest[WEIR_BLAKE2B_BYTES];
    struct weir_blake2b hash;
    without_key.key_len = 0;
    size_t rest_len = weir_remote_name(&without_key, prefix, prefix_len, rest);
    weir_blake2b_init(&hash);
    weir_blake2b_update(&hash, rest, rest_len);
    weir_blake2b_update(&hash, "", 1);
    weir_blake2b_update(&hash, check->key, check->key_len);
    weir_blake2b_final(&hash, digest);
    /* "weir:fw:", then the hash. Other names have no digit at that position. */
    size_t head = prefix_len + 4;
    memcpy(name, rest, head);
    weir_hex(digest, sizeof digest, name + head);
    return (int)(head + 2 * (size_t)WEIR_BLAKE2B_BYTES);
}

int weir_memcached_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                        char *name) {
    if (!check || !name || !prefix || prefix_len > WEIR_MEMCACHED_PREFIX_MAX ||
        !is_safe(prefix, prefix_len) || weir_checks_validate(check, 1) < 0)
        return WEIR_EINVAL;
    if (check->key_len + prefix_len <= WEIR_MEMCACHED_NAME_MAX) {
        char whole[WEIR_MEMCACHED_NAME_MAX + WEIR_NAME_REST];
        size_t len = weir_remote_name(check, prefix, prefix_len, whole);
        if (is_safe(whole, len)) {
            memcpy(name, whole, len);
            return (int)len;
        }
    }
    return hashed_name(check, prefix, prefix_len, name);
}

/* ---------------------------------------------------------------- what the server itself counts */

int weir_memcached_counts(const struct weir_limit *limit) {
    return limit && limit->strategy == WEIR_FIXED_WINDOW && limit->amount <= COUNT_MAX &&
           limit->period_ns <= PERIOD_MAX_NS;
}

/* Nanoseconds of a tick: an item's age is at most half the range of the bits of its start. */
static int64_t tick_of(const struct weir_limit *limit) {
    int64_t tick = 1, longest_ns = limit->period_ns + 30 * NS_PER_S;
    while ((uint64_t)(longest_ns / tick) > START_MASK / 2)
        tick *= 2;
    return tick;
}

/* For how many seconds an item is kept. */
static int64_t kept_s(const struct weir_limit *limit) {
    return (limit->period_ns + NS_PER_S - 1) / NS_PER_S + SPARE_S;
}

int weir_memcached_opened(const struct weir_check *check, int64_t now_ns, uint64_t *number,
                          int64_t *expires_s) {
    if (!check || !number || !expires_s || weir_checks_validate(check, 1) < 0 || now_ns < 0 ||
        now_ns > WEIR_NOW_MAX || !weir_memcached_counts(check->limit) || check->cost > COUNT_MAX)
        return WEIR_EINVAL;
    int64_t tick = tick_of(check->limit);
    uint64_t start = ((uint64_t)(now_ns / tick) + (now_ns % tick > 0)) & START_MASK;
    /* A start of 0 marks a number that is not a window. */
    *number = (start ? start : 1) << COUNT_BITS | (uint64_t)check->cost;
    *expires_s = kept_s(check->limit);
    return 0;
}

/* Memcached takes more seconds than a month for a time since the epoch. */
static int64_t expiry_of(int64_t seconds, int64_t now_ns) {
    return seconds > WEIR_MEMCACHED_MONTH_S ? seconds + (now_ns + NS_PER_S - 1) / NS_PER_S
                                            : seconds;
}

int weir_memcached_command(const struct weir_check *check, const char *name, size_t name_len,
                           int what, uint64_t cas, int64_t now_ns, char *buffer) {
    if (!check || !name || !buffer || weir_checks_validate(check, 1) < 0 || now_ns < 0 ||
        now_ns > WEIR_NOW_MAX || !weir_memcached_counts(check->limit) || !is_safe(name, name_len) ||
        (what != WEIR_MEMCACHED_PEEK && check->cost > COUNT_MAX))
        return WEIR_EINVAL;
    size_t room = WEIR_MEMCACHED_COMMAND_MAX;
    int len = (int)name_len;
    int64_t seconds;
    long long cost = (long long)check->cost;
    uint64_t first;
    switch (what) {
    case WEIR_MEMCACHED_HIT:
        if (weir_memcached_opened(check, now_ns, &first, &seconds) < 0)
            return WEIR_EINVAL;
        return snprintf(buffer, room, "ma %.*s N%lld J%llu D%lld v t c\r\n", len, name,
                        (long long)expiry_of(seconds, now_ns), (unsigned long long)first, cost);
    case WEIR_MEMCACHED_PEEK:
        return snprintf(buffer, room, "mg %.*s v t c\r\n", len, name);
    case WEIR_MEMCACHED_UNDO:
        return snprintf(buffer, room, "ma %.*s MD D%lld C%llu v t c\r\n", len, name, cost,
                        (unsigned long long)cas);
    default:
        return WEIR_EINVAL;
    }
}

/*
 * What is left of a window by the server's clock, which has whole seconds and does not depend on
 * the hosts' clocks: it corrects a host whose clock is wrong. An end more than a month ahead is
 * stored as a time of a host's clock.
 */
static int64_t corrected(const struct weir_limit *limit, int64_t left_ns, int64_t left_s) {
    if (left_s < 0 || kept_s(limit) > WEIR_MEMCACHED_MONTH_S)
        return left_ns;
    int64_t by_server = limit->period_ns - (kept_s(limit) - left_s) * NS_PER_S;
    int64_t least = by_server - SERVER_TOLERANCE_NS, most = by_server + SERVER_TOLERANCE_NS;
    if (left_ns < least) /* the wait ends when the server's seconds have passed */
        return least > 0 ? most : 0;
    return left_ns <= most ? left_ns : most > 0 ? most : 0;
}

void weir_memcached_window(const struct weir_limit *limit, struct weir_memcached_reply *reply,
                           int64_t now_ns) {
    if (!limit || !reply || reply->kind != WEIR_MEMCACHED_COUNT || now_ns < 0 ||
        now_ns > WEIR_NOW_MAX || !weir_memcached_counts(limit))
        return;
    int64_t tick = tick_of(limit), now = now_ns / tick;
    uint64_t start = reply->count >> COUNT_BITS & START_MASK,
             ahead = ((uint64_t)now - start) & START_MASK;
    int64_t age = (int64_t)ahead - (ahead > START_MASK / 2 ? (int64_t)START_MASK + 1 : 0);
    int64_t left_ns = (now - age) * tick + limit->period_ns - now_ns;
    reply->start = start;
    reply->count &= (UINT64_C(1) << COUNT_BITS) - 1;
    reply->left_ns = start ? corrected(limit, left_ns, reply->left_s) : 0;
    if (reply->left_ns <= 0) {
        reply->count = 0;
        reply->left_ns = 0;
    }
}

static bool take_number(struct weir_resp *text, uint64_t *value) {
    const char *start = text->at;
    for (*value = 0; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        uint64_t digit = (uint64_t)(*text->at - '0');
        if (*value > (UINT64_MAX - digit) / 10)
            return false;
        *value = *value * 10 + digit;
    }
    return text->at > start;
}

static void skip_blanks(struct weir_resp *text) {
    while (text->at < text->end && *text->at == ' ')
        text->at++;
}

/* "VA 2 t59 c17", then the number on a separate line. A number that was lowered ends in blanks. */
static int read_value(struct weir_resp *line, struct weir_resp *input,
                      struct weir_memcached_reply *reply) {
    uint64_t size, number;
    line->at += 2;
    skip_blanks(line);
    if (!take_number(line, &size) || size > 64)
        return WEIR_EFORMAT;
    for (skip_blanks(line); line->at < line->end; skip_blanks(line)) {
        char flag = *line->at++;
        bool forever = flag == 't' && line->end - line->at >= 2 && !memcmp(line->at, "-1", 2);
        if (forever)
            return WEIR_EFORMAT; /* not one of our counters */
        if (!take_number(line, &number))
            return WEIR_EFORMAT;
        if (flag == 't')
            reply->left_s = number > INT32_MAX ? INT32_MAX : (int64_t)number;
        else if (flag == 'c')
            reply->cas = number;
    }
    if ((size_t)(input->end - input->at) < size + 2)
        return 0;
    struct weir_resp text = {input->at, input->at + size};
    if (!take_number(&text, &reply->count))
        return WEIR_EFORMAT;
    skip_blanks(&text);
    if (text.at != text.end || memcmp(text.end, "\r\n", 2))
        return WEIR_EFORMAT;
    input->at += size + 2;
    reply->kind = WEIR_MEMCACHED_COUNT;
    return 1;
}

static bool is(const struct weir_resp *line, const char *word) {
    size_t len = strlen(word);
    return (size_t)(line->end - line->at) >= len && !memcmp(line->at, word, len);
}

int weir_memcached_read(const char *bytes, size_t len, struct weir_memcached_reply *reply) {
    if (!bytes || !reply)
        return WEIR_EINVAL;
    struct weir_resp input = {bytes, bytes + len}, line;
    *reply = (struct weir_memcached_reply){0};
    int rc = weir_resp_line(&input, REPLY_LINE_MAX, &line);
    if (rc <= 0)
        return rc;
    if (is(&line, "VA "))
        rc = read_value(&line, &input, reply);
    else if (is(&line, "NF") || is(&line, "EN") || is(&line, "EX") || is(&line, "NS") ||
             is(&line, "HD"))
        reply->kind = WEIR_MEMCACHED_NONE;
    else if (is(&line, "MN"))
        reply->kind = WEIR_MEMCACHED_END;
    else if (is(&line, "CLIENT_ERROR") || is(&line, "SERVER_ERROR") || is(&line, "ERROR")) {
        reply->kind = WEIR_MEMCACHED_ERROR;
        reply->error = line.at;
        reply->error_len = (size_t)(line.end - line.at);
    } else
        rc = WEIR_EFORMAT;
    reply->used = (size_t)(input.at - bytes);
    return rc;
}

void weir_memcached_evaluate(const struct weir_check *check,
                             const struct weir_memcached_reply *reply, int what, int64_t now_ns,
                             struct weir_verdict *verdict) {
    if (!verdict)
        return;
    *verdict = (struct weir_verdict){.retry_after_ns = WEIR_NEVER};
    if (!check || !check->limit || !reply)
        return;
    int64_t amount = check->limit->amount;
    bool there = reply->kind == WEIR_MEMCACHED_COUNT && reply->count > 0;
    uint64_t used = there ? reply->count : 0, limit = (uint64_t)amount;
    uint64_t cost = (uint64_t)check->cost;
    int64_t left_ns = there ? reply->left_ns : 0;
    *verdict = (struct weir_verdict){.allowed = 1, .limit = amount};
    if (what == WEIR_MEMCACHED_HIT)
        verdict->allowed = used <= limit;
    else if (what == WEIR_MEMCACHED_PEEK)
        verdict->allowed = cost == 0 || (cost <= limit && used <= limit - cost);
    if (!verdict->allowed)
        verdict->retry_after_ns = cost > limit ? WEIR_NEVER : left_ns;
    if (what == WEIR_MEMCACHED_HIT && !verdict->allowed) /* as it is after the undo */
        used -= cost < used ? cost : used;
    verdict->remaining = used < limit ? (int64_t)(limit - used) : 0;
    verdict->reset_at_ns = there && used > 0 ? now_ns + left_ns : now_ns;
}

/* ------------------------------------------------------------------- what the server only keeps */

int weir_memcached_step(const struct weir_check *check, const char *value, size_t len,
                        int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdict,
                        char *next, size_t *next_len, int64_t *expires_s, int *changed) {
    if (!check || !verdict || !next || !next_len || !expires_s || !changed || now_ns < 0 ||
        now_ns > WEIR_NOW_MAX || (unsigned)mode > WEIR_REFUND || weir_checks_validate(check, 1) < 0)
        return WEIR_EINVAL;
    const struct weir_step step = {
        .limit = check->limit, .now_ns = now_ns, .cost = check->cost, .charge = mode != WEIR_TEST};
    int64_t expires_ns = 0;
    int rc = weir_packed_step(&step, mode, value, len, verdict, next, WEIR_MEMCACHED_VALUE_MAX,
                              next_len, &expires_ns);
    if (rc < 0)
        return rc;
    *expires_s = expires_ns > now_ns ? (expires_ns - now_ns - 1) / NS_PER_S + 1 + SPARE_S : 1;
    *changed = mode != WEIR_TEST && (*next_len != (value ? len : 0) ||
                                     (*next_len > 0 && memcmp(next, value, *next_len) != 0));
    return 0;
}
