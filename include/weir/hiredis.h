/*
 * libweir-hiredis: decisions on a Redis or Valkey server over hiredis' connections. weir/redis.h says what is
 * sent and what the answer means; here it is sent and read.
 *
 *     struct weir_hiredis_options options = {.host = "127.0.0.1", .port = 6379};
 *     struct weir_hiredis *redis;
 *     weir_hiredis_open(&options, &redis, &error);
 *
 *     if (weir_hiredis_decide(redis, checks, n, WEIR_HIT, verdicts, &decision, &error) < 0)
 *         fprintf(stderr, "%s\n", error.message); // nothing is known: let the request pass, or not
 *     else if (!decision.allowed)
 *         refuse(verdicts[decision.deciding].retry_after_ns);
 *
 * Caveats first
 * -------------
 *  - A decision is one round trip. Only a server that does not know the script yet costs a second one.
 *  - A call that fails has lost its connection: the next one connects anew. After an error the server may have
 *    charged the request or not; it is not asked again.
 *  - The deadline covers the whole call: connecting, signing in, every byte of the answer, signals that come
 *    between. Names are looked up by weir_hiredis_open() alone, which waits for them.
 *  - A connection that the server closed while it was idle is noticed before anything is sent on it.
 *  - No SIGPIPE, no thread, no lock: one handle serves one thread at a time, so give each thread its own. After
 *    fork(), a handle belongs to one of the two processes.
 *  - In a Cluster, send checks to the node of their slot: weir_redis_slot() and a Cluster library say which.
 *    A MOVED answer is an error here.
 *  - Every kind of TLS and Sentinel is left to hiredis: connect by its asynchronous API.
 */
#ifndef WEIR_HIREDIS_H
#define WEIR_HIREDIS_H

#include "weir/redis.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How to connect. Set what is needed, leave the rest 0. Copied. */
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
 * Makes a handle; connects at its first use. `*redis` is owned by the caller, who passes it to
 * weir_hiredis_close().
 * Errors: WEIR_EINVAL (the message says which option), WEIR_ENOENT (no such host), WEIR_ENOMEM.
 */
WEIR_API int weir_hiredis_open(const struct weir_hiredis_options *options,
                               struct weir_hiredis **redis, struct weir_error *error);

/*
 * Decides `n` checks at the server's time, all or nothing. Arguments and results as weir_decide(); calendar
 * windows go by this machine's clock.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY (a check is out of its range); WEIR_ESYSTEM (the server is away, late, or
 * answered an error; the message says which); WEIR_EFORMAT (what answers is no Redis); WEIR_ENOMEM.
 */
WEIR_API int weir_hiredis_decide(struct weir_hiredis *redis, const struct weir_check *checks,
                                 size_t n, enum weir_mode mode, struct weir_verdict *verdicts,
                                 struct weir_decision *decision, struct weir_error *error);

/* Forgets the counters of the checks. Errors: as weir_hiredis_decide(). */
WEIR_API int weir_hiredis_clear(struct weir_hiredis *redis, const struct weir_check *checks,
                                size_t n, struct weir_error *error);

/* Ends the connection and frees the handle. NULL is ignored. */
WEIR_API void weir_hiredis_close(struct weir_hiredis *redis);

/* ----------------------------------------------------------------------------------- event loops */

struct redisAsyncContext;
struct weir_hiredis_pending;

/*
 * The same over a connection of hiredis' asynchronous API, which any event loop may drive, with TLS or without:
 * asks, and returns at once. The checks and their keys are copied. prefix: NULL for "weir".
 * decided: called once, with `data`: with 0, the verdicts, and the decision; or with an error as of
 * weir_hiredis_decide(), NULL and NULL. What they point to is gone after the call.
 * Returns what weir_hiredis_forget() takes, or NULL with *error filled in: then `decided` is not called.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY, WEIR_ENOMEM, WEIR_ESYSTEM (the connection is ending).
 */
WEIR_API struct weir_hiredis_pending *weir_hiredis_decide_async(
    struct redisAsyncContext *context, const char *prefix, const struct weir_check *checks,
    size_t n, enum weir_mode mode,
    void (*decided)(void *data, int result, const struct weir_verdict *verdicts,
                    const struct weir_decision *decision),
    void *data, struct weir_error *error);

/*
 * For a timer of the loop, at the deadline: `decided` will not be called. The server may still charge the
 * request. Only before `decided` was called.
 */
WEIR_API void weir_hiredis_forget(struct weir_hiredis_pending *pending);

#ifdef __cplusplus
}
#endif
#endif
