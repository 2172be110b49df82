/* Converts replies of hiredis for the codec of weir/redis.h. */
#ifndef WEIR_HIREDIS_REPLY_H
#define WEIR_HIREDIS_REPLY_H

#include <hiredis/hiredis.h>

#include "weir/redis.h"

/* The caller's clock, for calendar windows. */
int64_t weir_hiredis_now(void);

/*
 * Reads a reply that hiredis has parsed. Returns 0 with *out and verdicts filled in, or
 * WEIR_EFORMAT. The text of an error is copied into `text`.
 */
int weir_hiredis_read(const redisReply *reply, const struct weir_redis_request *request,
                      struct weir_verdict *verdicts, struct weir_redis_reply *out, char *text,
                      size_t text_size);

/*
 * Fills *error. Bytes of the message that are not printable ASCII become "?", since it may quote a
 * server.
 */
int weir_hiredis_fail(struct weir_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
