/*
 * Encodes checks as one EVALSHA command, and decodes its reply into verdicts.
 *
 *     EVALSHA <sha1> <counters> <name>… <packed>    decide; src/remote/decide.lua describes the
 *                                                   packed part
 *     EVAL    <script> <counters> <name>… <packed>  the same, for a server that does not have the
 *                                                   script
 *     DEL     <name>…                               clear
 *
 * The script counts in doubles; src/strategy/numbers.h decides which limits fit. Costs far above
 * what a limit can hold are lowered to just above it, which changes no verdict.
 *
 * Two checks of the same counter share a name in KEYS. The names of logs come last.
 */
#include "weir/redis.h"

#include <stdbool.h>
#include <string.h>

#include "decide.lua.h"
#include "checks.h"
#include "remote/names.h"
#include "remote/resp.h"
#include "strategy/numbers.h"
#include "strategy/strategy.h"

#define WIDE 16
#define PEEK 32
#define LATEST_US INT64_C(9007199254740991) /* the largest time that the script returns */
#define PACKED_CHECK (2 + 5 * 8 + 5 * 9)    /* bytes, at most */

#define FIRST 17 /* bytes of a verdict in the reply */
#define SECOND 16

const char *weir_redis_script(size_t *len) {
    if (len)
        *len = sizeof weir_decide_lua - 1;
    return weir_decide_lua;
}

const char *weir_redis_sha1(void) {
    return WEIR_DECIDE_SHA1;
}

/* ---------------------------------------------------------------------------- one check, packed */

/* A check as numbers for the script: the cost and four numbers of its strategy. */
struct numbers {
    bool wide;
    int64_t number[5];
};

static struct numbers numbers_of(const struct weir_check *check, int32_t mode, int64_t now_ns) {
    const struct weir_limit *limit = check->limit;
    struct weir_numbers own = {.wide = limit->amount > WEIR_DOUBLE_COUNT_MAX,
                               .number = {limit->amount, weir_period_us(limit)},
                               .most = {(uint64_t)limit->amount + 1}};
    weir_strategies[limit->strategy]->numbers(limit, now_ns, &own);
    struct numbers numbers = {.wide = own.wide};
    weir_u128 most = (weir_u128)own.most[1] << 64 | own.most[0];
    if (mode ==
        WEIR_REFUND) /* two full windows, or a bucket and what a clock that stepped back adds */
        most = 2 * (most + (uint64_t)limit->amount);
    numbers.number[0] = (weir_u128)(uint64_t)check->cost > most ? (int64_t)most : check->cost;
    if (mode == WEIR_REFUND && (check->flags & WEIR_CHECK_PEEK))
        numbers.number[0] = 0;
    memcpy(numbers.number + 1, own.number, sizeof own.number);
    return numbers;
}

static char *put_bytes(char *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        *to++ = (char)(value >> (8 * i) & 0xFF);
    return to;
}

static char *put_double(char *to, int64_t value) {
    double number = (double)value;
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return put_bytes(to, bits, 8);
}

static char *put_check(char *to, const struct weir_check *check, int32_t mode, int64_t now_ns,
                       int slot) {
    struct numbers numbers = numbers_of(check, mode, now_ns);
    *to++ = (char)(check->limit->strategy + (numbers.wide ? WIDE : 0) +
                   (check->flags & WEIR_CHECK_PEEK ? PEEK : 0));
    *to++ = (char)slot;
    for (int i = 0; i < 5; i++)
        to = put_double(to, numbers.number[i]);
    for (int i = 0; i < 5 && numbers.wide; i++)
        to = put_bytes(put_bytes(to, (uint64_t)numbers.number[i], 8), 0, 1);
    return to;
}

/* ---------------------------------------------------------------------------------- the command */

/* The counters of a request, in the order of their names in the command. */
struct slots {
    int count;
    int plain;                      /* how many are not logs; these come first */
    uint8_t check[WEIR_CHECKS_MAX]; /* the first check of each counter */
    uint8_t of[WEIR_CHECKS_MAX];    /* the counter of each check */
};

static void find_slots(const struct weir_redis_request *request, struct slots *slots) {
    const struct weir_check *checks = request->checks;
    slots->count = slots->plain = 0;
    for (int logs = 0; logs < 2; logs++) {
        for (size_t i = 0; i < request->n; i++) {
            if ((weir_strategies[checks[i].limit->strategy]->packing == WEIR_PACK_LOG) != logs)
                continue;
            int same = 0;
            while (same < slots->count &&
                   !weir_remote_same(&checks[slots->check[same]], &checks[i]))
                same++;
            slots->of[i] = (uint8_t)same;
            if (same == slots->count)
                slots->check[slots->count++] = (uint8_t)i;
        }
        if (!logs)
            slots->plain = slots->count;
    }
}

static int validate(const struct weir_redis_request *request) {
    int rc = weir_checks_validate(request->checks, request->n);
    if (rc < 0)
        return rc;
    if (request->prefix_len > WEIR_REDIS_PREFIX_MAX || (uint32_t)request->mode > WEIR_REFUND ||
        request->clock_ns > WEIR_NOW_MAX || request->clock_ns < -WEIR_NOW_MAX ||
        request->now_ns < 0 || request->now_ns > WEIR_NOW_MAX)
        return WEIR_EINVAL;
    if (request->prefix && (memchr(request->prefix, '{', request->prefix_len) ||
                            memchr(request->prefix, '}', request->prefix_len)))
        return WEIR_EINVAL;
    return 0;
}

size_t weir_redis_room(const struct weir_redis_request *request) {
    if (!request || validate(request) < 0)
        return 0;
    size_t room =
        256 + 12 + request->n * PACKED_CHECK + (request->whole ? sizeof weir_decide_lua : 0);
    for (size_t i = 0; i < request->n; i++)
        room += request->checks[i].key_len + request->prefix_len + WEIR_NAME_REST;
    return room;
}

static char *put_decimal(char *to, uint64_t number) {
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count > 0)
        *to++ = digits[--count];
    return to;
}

static char *put_head(char *to, char type, uint64_t number) {
    *to++ = type;
    to = put_decimal(to, number);
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

#define HEAD_MAX 23

/* Turns the `len` bytes at to + HEAD_MAX into an argument. Returns its end. */
static char *close_argument(struct weir_redis_command *command, char *to, size_t len) {
    char *data = put_head(to, '$', len);
    memmove(data, to + HEAD_MAX, len);
    command->argv[command->argc] = data;
    command->argv_len[command->argc++] = len;
    data += len;
    *data++ = '\r';
    *data++ = '\n';
    return data;
}

static char *put_argument(struct weir_redis_command *command, char *to, const char *bytes,
                          size_t len) {
    memcpy(to + HEAD_MAX, bytes, len);
    return close_argument(command, to, len);
}

static char *put_names(const struct weir_redis_request *request, const struct slots *slots,
                       struct weir_redis_command *command, char *to) {
    const char *prefix = request->prefix ? request->prefix : "weir";
    size_t prefix_len = request->prefix ? request->prefix_len : 4;
    command->key_at = command->argc;
    command->keys = slots->count;
    for (int i = 0; i < slots->count; i++)
        to = close_argument(
            command, to,
            weir_remote_name(&request->checks[slots->check[i]], prefix, prefix_len, to + HEAD_MAX));
    return to;
}

/* The caller's time. */
static int64_t now_of(const struct weir_redis_request *request) {
    int64_t now_ns = request->clock_ns + (request->clock_given ? 0 : request->now_ns);
    return now_ns < 0 ? 0 : now_ns > WEIR_NOW_MAX ? WEIR_NOW_MAX : now_ns;
}

static char *put_packed(const struct weir_redis_request *request, const struct slots *slots,
                        struct weir_redis_command *command, char *to) {
    char *start = to + HEAD_MAX, *at = start;
    int64_t now_ns = now_of(request);
    *at++ = (char)request->mode;
    *at++ = (char)request->n;
    *at++ = (char)slots->plain;
    *at++ = (char)(request->clock_given != 0);
    at = put_double(at, request->clock_ns / WEIR_NS_PER_US);
    for (size_t i = 0; i < request->n; i++)
        at = put_check(at, &request->checks[i], request->mode, now_ns, slots->of[i] + 1);
    return close_argument(command, to, (size_t)(at - start));
}

int weir_redis_command(const struct weir_redis_request *request, char *buffer, size_t room,
                       struct weir_redis_command *command) {
    if (!request || !buffer || !command)
        return WEIR_EINVAL;
    int rc = validate(request);
    if (rc < 0)
        return rc;
    if (room < weir_redis_room(request))
        return WEIR_ENOSPC;
    struct slots slots;
    find_slots(request, &slots);
    command->argc = 0;
    command->reserved = 0;
    char *to = put_head(buffer, '*', (uint64_t)slots.count + (request->clear ? 1 : 4));
    if (request->clear) {
        to = put_argument(command, to, "DEL", 3);
        to = put_names(request, &slots, command, to);
    } else {
        if (request->whole) {
            to = put_argument(command, to, "EVAL", 4);
            to = put_argument(command, to, weir_decide_lua, sizeof weir_decide_lua - 1);
        } else {
            to = put_argument(command, to, "EVALSHA", 7);
            to = put_argument(command, to, WEIR_DECIDE_SHA1, 40);
        }
        char count[3];
        to = put_argument(command, to, count,
                          (size_t)(put_decimal(count, (uint64_t)slots.count) - count));
        to = put_names(request, &slots, command, to);
        to = put_packed(request, &slots, command, to);
    }
    command->bytes = buffer;
    command->len = (size_t)(to - buffer);
    return 0;
}

/* ------------------------------------------------------------------------------------- the slot */

/* CRC-16/XMODEM, as Redis Cluster uses it. */
static uint16_t crc16(const char *bytes, size_t len) {
    uint16_t crc = 0;
    for (size_t i = 0; i < len; i++) {
        crc ^= (uint16_t)((unsigned char)bytes[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

int weir_redis_slot(const char *name, size_t len) {
    if (!name)
        len = 0;
    const char *open = len ? memchr(name, '{', len) : NULL;
    if (open) {
        const char *tag = open + 1;
        const char *close = memchr(tag, '}', len - (size_t)(tag - name));
        if (close && close > tag)
            return crc16(tag, (size_t)(close - tag)) & 16383;
    }
    return crc16(name, len) & 16383;
}

/* ------------------------------------------------------------------------------------ the reply */

static uint64_t get_word(const char *bytes) {
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--)
        word = word << 8 | (unsigned char)bytes[i];
    return word;
}

/* Reads a time from a double that is a whole number of microseconds; -1 if it is not. */
static int64_t get_time(const char *bytes) {
    uint64_t bits = get_word(bytes);
    double us;
    memcpy(&us, &bits, sizeof us);
    if (!(us >= 0 && us <= (double)LATEST_US))
        return -1;
    return (int64_t)us == LATEST_US ? INT64_MAX : (int64_t)us * WEIR_NS_PER_US;
}

static int read_verdict(const char *first, const char *second, const struct weir_limit *limit,
                        struct weir_verdict *verdict) {
    static const char never[8] = {0, 0, 0, 0, 0, 0, (char)0xF0, (char)0xBF}; /* -1.0 */
    uint64_t remaining = get_word(second);
    verdict->allowed = first[0];
    verdict->reserved = 0;
    verdict->limit = weir_limit_size(limit);
    verdict->remaining = (int64_t)remaining;
    verdict->reset_at_ns = get_time(second + 8);
    verdict->retry_after_ns = memcmp(first + 1, never, 8) ? get_time(first + 1) : WEIR_NEVER;
    verdict->delay_ns = get_time(first + 9);
    return (first[0] & ~1) || remaining > (uint64_t)verdict->limit || verdict->reset_at_ns < 0 ||
                   verdict->retry_after_ns < 0 || verdict->delay_ns < 0
               ? WEIR_EFORMAT
               : 1;
}

static const char not_a_counter[] = "weir: a name holds something that is not a counter";

/* now; for each check allowed, retry_after, delay; for each check remaining, reset_at. */
static int read_decision(const struct weir_resp_value *value,
                         const struct weir_redis_request *request, struct weir_verdict *verdicts,
                         struct weir_redis_reply *reply) {
    size_t n = request->n;
    if (n > WEIR_CHECKS_MAX || value->len != 8 + n * (FIRST + SECOND))
        return WEIR_EFORMAT;
    const char *first = value->text + 8, *second = first + n * FIRST;
    reply->now_ns = get_time(value->text);
    if (reply->now_ns < 0)
        return WEIR_EFORMAT;
    for (size_t i = 0; i < n; i++)
        if (read_verdict(first + i * FIRST, second + i * SECOND, request->checks[i].limit,
                         &verdicts[i]) < 0) {
            /*
             * From the script: a value has the length of a counter but is not one. The server
             * works.
             */
            reply->kind = WEIR_REDIS_ERROR;
            reply->error = not_a_counter;
            reply->error_len = sizeof not_a_counter - 1;
            return 1;
        }
    reply->kind = WEIR_REDIS_DECIDED;
    weir_checks_choose(request->checks, verdicts, n, &reply->decision);
    return 1;
}

static void read_error(const struct weir_resp_value *value, struct weir_redis_reply *reply) {
    static const char noscript[] = "NOSCRIPT";
    bool unknown =
        value->len >= sizeof noscript - 1 && !memcmp(value->text, noscript, sizeof noscript - 1);
    reply->kind = unknown ? WEIR_REDIS_NOSCRIPT : WEIR_REDIS_ERROR;
    reply->error = value->text;
    reply->error_len = value->len;
}

int weir_redis_read(const char *bytes, size_t len, const struct weir_redis_request *request,
                    struct weir_verdict *verdicts, struct weir_redis_reply *reply) {
    if (!bytes || !request || !reply || (!verdicts && !request->clear))
        return WEIR_EINVAL;
    *reply = (struct weir_redis_reply){0};
    struct weir_resp resp = {.at = bytes, .end = bytes + len};
    struct weir_resp_value value;
    int rc = weir_resp_reply(&resp, &value);
    if (rc == 1) {
        if (value.type == '-' || value.type == '!')
            read_error(&value, reply);
        else if (request->clear && value.type == ':')
            reply->kind = WEIR_REDIS_CLEARED;
        else if (!request->clear && value.type == '$')
            rc = read_decision(&value, request, verdicts, reply);
        else
            rc = WEIR_EFORMAT;
    }
    if (rc == 0 && len > WEIR_REDIS_REPLY_MAX)
        rc = WEIR_EFORMAT;
    reply->used = (size_t)(resp.at - bytes);
    return rc;
}
