/*
 * Decisions on Memcached: counters that the server counts itself, and states that it only stores.
 *
 *     ma <name> N<seconds> J<cost> D<cost> v t c      hit: add the cost, or create the item -> count, time left
 *     mg <name> v t c                                 peek
 *     ma <name> MD D<cost> v t c                      refund; never below 0
 *     ma <name> MD D<cost> C<cas> v t c               undo a hit, if the item has not changed since: another
 *                                                     change may be that of a new window
 *
 * An item expires N whole seconds after the second in which it was created, so it lives at least N - 1
 * seconds. For a period of P seconds, N is P + 1.
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

#define NS_PER_S INT64_C(1000000000)
#define COUNT_MAX (INT64_C(1) << 61)         /* sums of costs do not wrap its 64 bits */
#define PERIOD_MAX_NS (155520000 * NS_PER_S) /* five years: Memcached's times end in 2038 */

/* ------------------------------------------------------------------------------------------- names */

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

/* ---------------------------------------------------------------------- what the server itself counts */

int weir_memcached_counts(const struct weir_limit *limit) {
    return limit && limit->strategy == WEIR_FIXED_WINDOW && limit->amount <= COUNT_MAX &&
           limit->period_ns <= PERIOD_MAX_NS;
}

int weir_memcached_command(const struct weir_check *check, const char *name, size_t name_len,
                           int what, uint64_t cas, int64_t now_ns, char *buffer) {
    if (!check || !name || !buffer || weir_checks_validate(check, 1) < 0 ||
        !weir_memcached_counts(check->limit) || !is_safe(name, name_len) ||
        (what != WEIR_MEMCACHED_PEEK && check->cost > COUNT_MAX && what != WEIR_MEMCACHED_REFUND))
        return WEIR_EINVAL;
    size_t room = WEIR_MEMCACHED_COMMAND_MAX;
    int len = (int)name_len;
    int64_t seconds = (check->limit->period_ns + NS_PER_S - 1) / NS_PER_S + 1;
    if (seconds > WEIR_MEMCACHED_MONTH_S)
        seconds += (now_ns + NS_PER_S - 1) / NS_PER_S;
    long long cost = (long long)check->cost;
    switch (what) {
    case WEIR_MEMCACHED_HIT:
        return snprintf(buffer, room, "ma %.*s N%lld J%lld D%lld v t c\r\n", len, name,
                        (long long)seconds, cost, cost);
    case WEIR_MEMCACHED_PEEK:
        return snprintf(buffer, room, "mg %.*s v t c\r\n", len, name);
    case WEIR_MEMCACHED_REFUND:
        return snprintf(buffer, room, "ma %.*s MD D%lld v t c\r\n", len, name, cost);
    case WEIR_MEMCACHED_UNDO:
        return snprintf(buffer, room, "ma %.*s MD D%lld C%llu v t c\r\n", len, name, cost,
                        (unsigned long long)cas);
    default:
        return WEIR_EINVAL;
    }
}

struct cursor {
    const char *at;
    const char *end;
};

/* Reads a line, without its end. Returns 1, 0 if more bytes are needed, or WEIR_EFORMAT. */
static int take_line(struct cursor *input, struct cursor *line) {
    size_t there = (size_t)(input->end - input->at);
    const char *end = there ? memchr(input->at, '\n', there) : NULL;
    if (!end)
        return there > 2048 ? WEIR_EFORMAT : 0;
    if (end == input->at || end[-1] != '\r')
        return WEIR_EFORMAT;
    *line = (struct cursor){input->at, end - 1};
    input->at = end + 1;
    return 1;
}

static bool take_number(struct cursor *text, uint64_t *value) {
    const char *start = text->at;
    for (*value = 0; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        uint64_t digit = (uint64_t)(*text->at - '0');
        if (*value > (UINT64_MAX - digit) / 10)
            return false;
        *value = *value * 10 + digit;
    }
    return text->at > start;
}

static void skip_blanks(struct cursor *text) {
    while (text->at < text->end && *text->at == ' ')
        text->at++;
}

/* "VA 2 t59 c17", then the number on a separate line. A number that was lowered ends in blanks. */
static int read_value(struct cursor *line, struct cursor *input,
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
    struct cursor text = {input->at, input->at + size};
    if (!take_number(&text, &reply->count))
        return WEIR_EFORMAT;
    skip_blanks(&text);
    if (text.at != text.end || memcmp(text.end, "\r\n", 2))
        return WEIR_EFORMAT;
    input->at += size + 2;
    reply->kind = WEIR_MEMCACHED_COUNT;
    return 1;
}

static bool is(const struct cursor *line, const char *word) {
    size_t len = strlen(word);
    return (size_t)(line->end - line->at) >= len && !memcmp(line->at, word, len);
}

int weir_memcached_read(const char *bytes, size_t len, struct weir_memcached_reply *reply) {
    if (!bytes || !reply)
        return WEIR_EINVAL;
    struct cursor input = {bytes, bytes + len}, line;
    *reply = (struct weir_memcached_reply){0};
    int rc = take_line(&input, &line);
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
    int64_t left_ns = there ? reply->left_s * NS_PER_S : 0;
    if (left_ns > check->limit->period_ns) /* an item lives up to a second longer */
        left_ns = check->limit->period_ns;
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

/* ---------------------------------------------------------------------- what the server only keeps */

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
    *expires_s = expires_ns > now_ns ? (expires_ns - now_ns - 1) / NS_PER_S + 2 : 1;
    *changed = mode != WEIR_TEST && (*next_len != (value ? len : 0) ||
                                     (*next_len > 0 && memcmp(next, value, *next_len) != 0));
    return 0;
}
