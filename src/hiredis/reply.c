/*
 * The codec reads the bytes of the protocol, but hiredis returns parsed replies. A decision is a
 * small flat array, so it is serialized again: the same reader validates the replies of every
 * transport.
 */
#include "reply.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DEPTH_MAX 4

struct out {
    char *bytes;
    size_t len, room;
};

static bool put(struct out *out, const char *bytes, size_t len) {
    if (len > out->room - out->len)
        return false;
    memcpy(out->bytes + out->len, bytes, len);
    out->len += len;
    return true;
}

static bool put_number(struct out *out, char kind, long long number) {
    char text[32];
    int len = snprintf(text, sizeof text, "%c%lld\r\n", kind, number);
    return put(out, text, (size_t)len);
}

static bool put_reply(struct out *out, const redisReply *reply, int depth) {
    switch (reply->type) {
    case REDIS_REPLY_INTEGER:
        return put_number(out, ':', reply->integer);
    case REDIS_REPLY_STRING:
        return put_number(out, '$', (long long)reply->len) &&
               put(out, reply->str, (size_t)reply->len) && put(out, "\r\n", 2);
    case REDIS_REPLY_NIL:
        return put(out, "$-1\r\n", 5);
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
        return put(out, reply->type == REDIS_REPLY_ERROR ? "-" : "+", 1) &&
               put(out, reply->str, (size_t)reply->len) && put(out, "\r\n", 2);
    case REDIS_REPLY_ARRAY:
        if (depth == 0 || !put_number(out, '*', (long long)reply->elements))
            return false;
        for (size_t i = 0; i < reply->elements; i++)
            if (!put_reply(out, reply->element[i], depth - 1))
                return false;
        return true;
    default:
        return false;
    }
}

int64_t weir_hiredis_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int weir_hiredis_read(const redisReply *reply, const struct weir_redis_request *request,
                      struct weir_verdict *verdicts, struct weir_redis_reply *out, char *text,
                      size_t text_size) {
    char bytes[8192];
    struct out written = {.bytes = bytes, .room = sizeof bytes};
    if (!put_reply(&written, reply, DEPTH_MAX) ||
        weir_redis_read(bytes, written.len, request, verdicts, out) != 1)
        return WEIR_EFORMAT;
    if (out->kind == WEIR_REDIS_ERROR || out->kind == WEIR_REDIS_NOSCRIPT)
        snprintf(text, text_size, "%.*s", (int)out->error_len, out->error);
    return 0;
}

int weir_hiredis_fail(struct weir_error *error, int code, const char *format, ...) {
    if (!error)
        return code;
    va_list arguments;
    error->code = code;
    error->column = 0;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    for (char *c = error->message; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return code;
}
