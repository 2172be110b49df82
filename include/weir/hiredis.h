/*
 * libweir-hiredis: decisions on a Redis or Valkey server over connections of hiredis. It sends the
 * commands of weir/redis.h and reads the replies.
 *
 *     struct weir_hiredis_options options = {.host = "127.0.0.1", .port = 6379};
 *     struct weir_hiredis *redis;
 *     weir_hiredis_open(&options, &redis, &error);
 *
 *     if (weir_hiredis_decide(redis, checks, n, WEIR_HIT, verdicts, &decision, &error) < 0)
 *         fprintf(stderr, "%s\n", error.message); // undecided: allow the request, or deny it
 *     else if (!decision.allowed)
 *         refuse(verdicts[decision.deciding].retry_after_ns);
 *
 * Caveats first
 * -------------
 *  - A decision is one round trip. If the server does not have the script yet, it takes a second
 *    one.
 *  - A call that fails closes its connection, and the next call reconnects. After an error it is
 *    unknown whether the server charged the request; it is not sent again.
 *  - The deadline covers the whole call: connecting, authenticating, every byte of the reply,
 *    interruptions by signals. Only weir_hiredis_open() resolves host names, and it waits for the
 *    resolver.
 *  - If the server closed an idle connection, this is noticed before anything is sent.
 *  - No SIGPIPE, no threads, no locks: only one thread at a time may use a handle, so give each
 *    thread its own. After fork(), only one of the two processes may use it.
 *  - In a Cluster, send checks to the node of their slot (weir_redis_slot(), and a Cluster
 *    library). A MOVED reply is an error here.
 *  - TLS and Sentinel are not supported here: use a connection of hiredis' asynchronous API.
 */
#ifndef WEIR_HIREDIS_H
#define WEIR_HIREDIS_H

#include "weir/redis.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Connection options. Set the members that are needed and leave the others 0. Copied. */
struct weir_hiredis_options {
    const char *host;     /* name or address; NULL: "127.0.0.1" */
    int32_t port;         /* 1 to 65535; 0: 6379 */
    int32_t database;     /* 0 or more */
    const char *path;     /* of a Unix socket, instead of host and port */
    const char *user;     /* NULL: none */
    const char *password; /* NULL: none */
    int64_t deadline_ms;  /* of each call, 1 to 60000; 0: 250 */
    const char *prefix;   /* the names' first part; NULL: "weir" */
};

struct weir_hiredis;

/*
 * Creates a handle, which connects at its first use. The caller owns `*redis` and frees it by
 * weir_hiredis_close().
 * Errors: WEIR_EINVAL (the message names the option), WEIR_ENOENT (no such host), WEIR_ENOMEM.
 */
WEIR_API int weir_hiredis_open(const struct weir_hiredis_options *options,
                               struct weir_hiredis **redis, struct weir_error *error);

/*
 * Decides `n` checks at the server's time, all or nothing. Arguments and results as weir_decide().
 * Calendar windows use this machine's clock.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY (a check is out of its range); WEIR_ESYSTEM (the server is
 * unreachable, too slow, or replied with an error; the message says which); WEIR_EFORMAT (not a
 * Redis server); WEIR_ENOMEM.
 */
WEIR_API int weir_hiredis_decide(struct weir_hiredis *redis, const struct weir_check *checks,
                                 size_t n, enum weir_mode mode, struct weir_verdict *verdicts,
                                 struct weir_decision *decision, struct weir_error *error);

/* Deletes the counters of the checks. Errors: as weir_hiredis_decide(). */
WEIR_API int weir_hiredis_clear(struct weir_hiredis *redis, const struct weir_check *checks,
                                size_t n, struct weir_error *error);

/* Closes the connection and frees the handle. NULL is ignored. */
WEIR_API void weir_hiredis_close(struct weir_hiredis *redis);

/* ---------------------------------------------------------------------------------- event loops */

struct redisAsyncContext;
struct weir_hiredis_pending;

/*
 * The same over a connection of hiredis' asynchronous API, in any event loop, with or without TLS:
 * sends the command and returns at once. The checks and their keys are copied. prefix: NULL for
 * "weir".
 * decided: called once, with `data` and either 0, the verdicts and the decision, or an error of
 * weir_hiredis_decide(), NULL and NULL. The pointers are valid during that call only.
 * Returns a handle for weir_hiredis_cancel(), or NULL with *error filled in: then `decided` is not
 * called.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY, WEIR_ENOMEM, WEIR_ESYSTEM (the connection is ending).
 */
WEIR_API struct weir_hiredis_pending *weir_hiredis_decide_async(
    struct redisAsyncContext *context, const char *prefix, const struct weir_check *checks,
    size_t n, enum weir_mode mode,
    void (*decided)(void *data, int result, const struct weir_verdict *verdicts,
                    const struct weir_decision *decision),
    void *data, struct weir_error *error);

/*
 * Cancels a decision, for a timer at the deadline: `decided` will not be called. The server may
 * still charge the request. Call it only before `decided` was called.
 */
WEIR_API void weir_hiredis_cancel(struct weir_hiredis_pending *pending);

/* Deprecated: the earlier name, until version 1.0. */
#define weir_hiredis_forget weir_hiredis_cancel

#ifdef __cplusplus
}
#endif
#endif
