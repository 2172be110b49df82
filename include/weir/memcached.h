/*
 * libweir on Memcached: commands to send, and how to read the replies. No sockets.
 *
 * Memcached runs no programs, so there are two methods. A fixed window is a number that the server
 * counts, by one meta command (Memcached 1.6) that creates it, counts, and returns the time left.
 * Any other strategy has a state that is read (gets), stepped by weir_memcached_step(), and stored
 * if it has not changed in between (cas).
 *
 * Caveats first
 * -------------
 *  - A window that the server counts begins and ends by the callers' clocks. Its item outlives it
 *    by a few seconds, so the first hit after its end may need a second command
 *    (weir_memcached_opened()). A caller whose clock differs from the others' is corrected by the
 *    server's own clock, which has whole seconds: such a window ends at most about four seconds
 *    early or late.
 *  - Other states are stepped with the caller's clock alone: the clocks of all callers should
 *    agree.
 *  - The server counts first; if the count exceeds the limit, the caller takes the charge back.
 *    Between the two commands, other requests may be denied although they would fit. No request is
 *    admitted beyond the limit.
 *  - The log of a moving window is one value. Beyond some 30,000 hits, hits within a 16384th of the
 *    period are merged into one, which leaves with the last of them, so it stays below
 *    WEIR_MEMCACHED_VALUE_MAX bytes.
 *  - Nothing here allocates, and every function may be called by any thread.
 */
#ifndef WEIR_MEMCACHED_H
#define WEIR_MEMCACHED_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_MEMCACHED_NAME_MAX 250
#define WEIR_MEMCACHED_PREFIX_MAX 64
#define WEIR_MEMCACHED_COMMAND_MAX 400
#define WEIR_MEMCACHED_VALUE_MAX 1000000
#define WEIR_MEMCACHED_MONTH_S 2592000
/* Of a number, which has 63: the hits; the others are the start of the window. */
#define WEIR_MEMCACHED_COUNT_BITS 30

/*
 * Writes the name of a check's counter into `name`, which has room for WEIR_MEMCACHED_NAME_MAX
 * bytes; not NUL-terminated. It is `weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute`, as on Redis.
 * If that is too long or has bytes that Memcached does not accept, it is `weir:fw:` and the BLAKE2b
 * hash of it in hex.
 * Returns its length, WEIR_EINVAL (a check or prefix out of its range) or WEIR_ENOMEM.
 */
WEIR_API int weir_memcached_name(const struct weir_check *check, const char *prefix,
                                 size_t prefix_len, char *name);

/* Whether the server can count this limit: 1 or 0. */
WEIR_API int weir_memcached_counts(const struct weir_limit *limit);

enum weir_memcached_what {
    WEIR_MEMCACHED_HIT,    /* charge the cost */
    WEIR_MEMCACHED_PEEK,   /* charge nothing */
    WEIR_MEMCACHED_REFUND, /* for weir_memcached_evaluate(): peek, then UNDO at most the count */
    WEIR_MEMCACHED_UNDO,   /* take the cost back, unless the counter has changed since (`cas`) */
};

/*
 * Writes the meta command for a check that the server counts: at most WEIR_MEMCACHED_COMMAND_MAX
 * bytes.
 * cas: UNDO: that of the last reply, whose count must not be less than the cost; otherwise 0.
 * now_ns: the true time, at which a new window begins.
 * Returns its length or WEIR_EINVAL.
 */
WEIR_API int weir_memcached_command(const struct weir_check *check, const char *name,
                                    size_t name_len, int what, uint64_t cas, int64_t now_ns,
                                    char *buffer);

enum weir_memcached_kind {
    WEIR_MEMCACHED_COUNT, /* `count`, `left_s` and `cas` are filled in */
    WEIR_MEMCACHED_NONE,  /* the counter does not exist, or has changed (UNDO) */
    WEIR_MEMCACHED_END,   /* the answer to "mn" */
    WEIR_MEMCACHED_ERROR, /* `error` */
};

struct weir_memcached_reply {
    int32_t kind;
    int32_t reserved;
    size_t used; /* bytes of the input */
    /* As the server keeps it; after weir_memcached_window(), the hits of the window. */
    uint64_t count;
    int64_t left_s; /* seconds until the item expires, rounded up; -1: unknown */
    uint64_t cas;
    const char *error; /* points into the input */
    size_t error_len;
    uint64_t start;  /* by weir_memcached_window(): identifies the window */
    int64_t left_ns; /* by weir_memcached_window(): until the window ends; 0: it has ended */
};

/*
 * Reads one reply from the first `len` bytes that were received. Returns 1: it is complete; 0: more
 * bytes are needed; WEIR_EFORMAT: this is not a reply to such a command.
 */
WEIR_API int weir_memcached_read(const char *bytes, size_t len, struct weir_memcached_reply *reply);

/*
 * The number of a window that begins now with the cost of a check, to be stored by compare-and-swap
 * in place of one that has ended.
 * *expires_s: as of weir_memcached_step(). Returns 0 or WEIR_EINVAL.
 */
WEIR_API int weir_memcached_opened(const struct weir_check *check, int64_t now_ns, uint64_t *number,
                                   int64_t *expires_s);

/*
 * Splits the number of a reply of kind WEIR_MEMCACHED_COUNT, once: sets start, count and left_ns.
 * If left_ns is 0, the window has ended, and a HIT was charged to no window: store
 * weir_memcached_opened() by compare-and-swap. now_ns: the true time, at which the command was
 * written.
 */
WEIR_API void weir_memcached_window(const struct weir_limit *limit,
                                    struct weir_memcached_reply *reply, int64_t now_ns);

/*
 * Computes the verdict of a check that the server counts, from the reply to `what` (HIT, PEEK or
 * REFUND), which weir_memcached_window() has split. A HIT that is denied was counted and must be
 * undone.
 */
WEIR_API void weir_memcached_evaluate(const struct weir_check *check,
                                      const struct weir_memcached_reply *reply, int what,
                                      int64_t now_ns, struct weir_verdict *verdict);

/*
 * Steps a stored state: reads value (len bytes; NULL: none) and writes the new state into `next`,
 * which has room for WEIR_MEMCACHED_VALUE_MAX bytes.
 *
 * mode: WEIR_HIT, WEIR_EACH (the same), WEIR_TEST or WEIR_REFUND. *next_len: 0 if nothing is to be
 * stored.
 * *expires_s: seconds from now after which Memcached may delete it; more than
 * WEIR_MEMCACHED_MONTH_S must be sent as seconds since the epoch. *changed: 0 if value is
 * unchanged.
 * Errors, after which nothing must be stored: WEIR_EINVAL; WEIR_EFORMAT (value is not a state of
 * this limit); WEIR_EFULL (a moving window with too many hits).
 */
WEIR_API int weir_memcached_step(const struct weir_check *check, const char *value, size_t len,
                                 int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdict,
                                 char *next, size_t *next_len, int64_t *expires_s, int *changed);

/* Deprecated: the earlier names. */
#define WEIR_MEMCACHED_LOOK WEIR_MEMCACHED_PEEK
#define weir_memcached_judge weir_memcached_evaluate

#ifdef __cplusplus
}
#endif
#endif
