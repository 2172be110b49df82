/*
 * libweir on a Redis or Valkey server: commands to send, and how to read the replies. No sockets:
 * the program sends the bytes by hiredis or another client. weir/hiredis.h does that for hiredis.
 *
 *     struct weir_redis_request request = {.checks = checks, .n = 3, .mode = WEIR_HIT};
 *     struct weir_redis_command command;
 *     struct weir_redis_reply reply;
 *
 *     size_t room = weir_redis_room(&request);
 *     char *buffer = malloc(room);
 *     weir_redis_command(&request, buffer, room, &command);
 *     write(fd, command.bytes, command.len);
 *     …read until weir_redis_read(bytes, len, &request, verdicts, &reply) returns 1…
 *     if (reply.kind == WEIR_REDIS_NOSCRIPT)
 *         repeat with request.whole = 1
 *     if (reply.kind == WEIR_REDIS_DECIDED && !reply.decision.allowed)
 *         refuse(verdicts[reply.decision.deciding].retry_after_ns);
 *
 * With hiredis: redisAppendCommandArgv(context, command.argc, command.argv, command.argv_len), or
 * redisAppendFormattedCommand(context, command.bytes, command.len).
 *
 * Caveats first
 * -------------
 *  - The script uses the server's clock, in whole microseconds. Times in verdicts are rounded up to
 *    the next microsecond, max_delay is rounded down. Times after the year 2255 and waits of more
 *    than 285 years are reported as INT64_MAX.
 *  - A decision is atomic on one server. In a Cluster, all its keys must share a slot: see
 *    weir_redis_slot().
 *  - A moving window has room for at most 2^24 hits at different times.
 *  - Needs Redis 5 or later, or Valkey.
 *  - Nothing here allocates, and every function may be called by any thread.
 */
#ifndef WEIR_REDIS_H
#define WEIR_REDIS_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_REDIS_ARGS_MAX (WEIR_CHECKS_MAX + 4)
#define WEIR_REDIS_PREFIX_MAX 1024
/* Bytes of one reply that are read; a decision has some 4000. */
#define WEIR_REDIS_REPLY_MAX (1 << 16)

/* A request. Set the members that are needed and leave the others 0. */
struct weir_redis_request {
    const struct weir_check *checks; /* borrowed until the reply is read */
    size_t n;                        /* 1 to WEIR_CHECKS_MAX */
    int32_t mode;                    /* enum weir_mode */
    int32_t whole;       /* 1: send the script itself instead of its hash, after NOSCRIPT */
    int32_t clear;       /* 1: delete the counters; mode and costs are ignored */
    int32_t clock_given; /* for tests. 1: clock_ns is the time; 0: it is added to the server's */
    int64_t clock_ns;    /* a multiple of 1000 */
    const char *prefix;  /* the names' first part, without "{" and "}"; NULL: "weir" */
    size_t prefix_len;   /* 0 to WEIR_REDIS_PREFIX_MAX */
    /*
     * The caller's time, for calendar windows. It may differ from the server's time plus clock_ns
     * by less than a window. Ignored if clock_given.
     */
    int64_t now_ns;
};

/* A command, as bytes of the protocol and as arguments. Points into the caller's buffer. */
struct weir_redis_command {
    const char *bytes;
    size_t len;
    int32_t argc;
    int32_t keys; /* names among the arguments; they begin at argv[key_at] */
    int32_t key_at;
    int32_t reserved;
    const char *argv[WEIR_REDIS_ARGS_MAX];
    size_t argv_len[WEIR_REDIS_ARGS_MAX];
};

enum weir_redis_kind {
    WEIR_REDIS_DECIDED,  /* verdicts and decision are filled in */
    WEIR_REDIS_CLEARED,  /* the reply to `clear` */
    WEIR_REDIS_NOSCRIPT, /* the server does not have the script: nothing was decided */
    WEIR_REDIS_ERROR,    /* nothing was decided; the reason is in `error` */
};

struct weir_redis_reply {
    int32_t kind; /* enum weir_redis_kind */
    int32_t reserved;
    size_t used;    /* bytes of the input that this reply and pushed messages before it take */
    int64_t now_ns; /* DECIDED: the time of the decision */
    /*
     * ERROR, NOSCRIPT: the server's text, e.g. "WRONGTYPE …", in the input; or a constant text that
     * begins with "weir: ", if the stored value yields no valid verdict.
     */
    const char *error;
    size_t error_len;
    struct weir_decision decision;
};

/* The most bytes that weir_redis_command() needs; 0 if the request is invalid or too long. */
WEIR_API size_t weir_redis_room(const struct weir_redis_request *request);

/*
 * Writes the command into `buffer`, of `room` bytes.
 * Errors: WEIR_EINVAL (a check, mode or prefix out of its range), WEIR_ETOOMANY, WEIR_ENOSPC
 * (room).
 */
WEIR_API int weir_redis_command(const struct weir_redis_request *request, char *buffer, size_t room,
                                struct weir_redis_command *command);

/*
 * Reads the reply to `request` from the first `len` bytes that were received; verdicts: room for
 * request->n. Understands RESP2 and RESP3; messages pushed before the reply are skipped.
 * Returns 1: it is complete; 0: more bytes are needed; WEIR_EFORMAT: this is not a reply to such a
 * request, or it is longer than WEIR_REDIS_REPLY_MAX. Close the connection then.
 */
WEIR_API int weir_redis_read(const char *bytes, size_t len,
                             const struct weir_redis_request *request,
                             struct weir_verdict *verdicts, struct weir_redis_reply *reply);

/*
 * The Cluster slot of a name, 0 to 16383. Names carry a hash tag, the key's first two parts:
 * "weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute". So all limits of one client share a slot and
 * can be decided together.
 */
WEIR_API int weir_redis_slot(const char *name, size_t len);

/* The script and its SHA-1 in hex, for SCRIPT LOAD. Static storage. */
WEIR_API const char *weir_redis_script(size_t *len);
WEIR_API const char *weir_redis_sha1(void);

#ifdef __cplusplus
}
#endif
#endif
