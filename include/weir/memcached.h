/*
 * libweir on Memcached: what to send, and how to read what comes back. No sockets.
 *
 * Memcached runs no programs, so there are two ways. A fixed window is one number that the server itself
 * counts, by one meta command (Memcached 1.6): create, count and time left in one trip. Everything else is
 * a state that is fetched (gets), stepped by weir_memcached_step(), and stored if nobody else was faster
 * (cas).
 *
 * Caveats first
 * -------------
 *  - Memcached counts time in whole seconds. A window that it counts lasts its period or up to a second
 *    longer, never less; how long yet is said in whole seconds, rounded up.
 *  - What is stepped goes by the caller's clock: those of all callers should agree.
 *  - The server counts first and is asked to take back what was too much. Between the two, others may be
 *    denied what would fit. Nobody is ever admitted beyond the limit.
 *  - The log of a moving window is one value. Beyond some 30,000 hits, hits within a 16384th of the period
 *    are kept as one, which leaves with the last of them; so it stays below WEIR_MEMCACHED_VALUE_MAX bytes.
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

/*
 * Writes the name of a check's counter into `name`, which has room for WEIR_MEMCACHED_NAME_MAX bytes; not
 * NUL-terminated. `weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute`, as on Redis; where that is too long or
 * has bytes that Memcached does not take, `weir:fw:` and the BLAKE2b of it in hex.
 * Returns its length, WEIR_EINVAL (a check or prefix out of its range) or WEIR_ENOMEM.
 */
WEIR_API int weir_memcached_name(const struct weir_check *check, const char *prefix,
                                 size_t prefix_len, char *name);

/* Whether the server itself can count this limit: 1 or 0. */
WEIR_API int weir_memcached_counts(const struct weir_limit *limit);

enum weir_memcached_what {
    WEIR_MEMCACHED_HIT,    /* charge the cost */
    WEIR_MEMCACHED_PEEK,   /* charge nothing */
    WEIR_MEMCACHED_REFUND, /* give the cost back */
    WEIR_MEMCACHED_UNDO,   /* the same, unless anybody counted since (`cas`) */
};

/*
 * Writes the meta command for a check that the server counts: at most WEIR_MEMCACHED_COMMAND_MAX bytes.
 * cas: of the reply to be undone, else 0. now_ns: the true time, for periods of a month and more, which
 * Memcached wants to end at a moment.
 * Returns its length or WEIR_EINVAL.
 */
WEIR_API int weir_memcached_command(const struct weir_check *check, const char *name,
                                    size_t name_len, int what, uint64_t cas, int64_t now_ns,
                                    char *buffer);

enum weir_memcached_kind {
    WEIR_MEMCACHED_COUNT, /* `count`, `left_s` and `cas` are filled in */
    WEIR_MEMCACHED_NONE,  /* there is no such counter, or it has changed (UNDO) */
    WEIR_MEMCACHED_END,   /* the answer to "mn" */
    WEIR_MEMCACHED_ERROR, /* `error` */
};

struct weir_memcached_reply {
    int32_t kind;
    int32_t reserved;
    size_t used; /* bytes of the input */
    uint64_t count;
    int64_t left_s; /* seconds, rounded up, that the window lasts yet */
    uint64_t cas;
    const char *error; /* in the input */
    size_t error_len;
};

/*
 * Reads one reply from the first `len` bytes that came. Returns 1: it is complete; 0: more bytes are
 * needed; WEIR_EFORMAT: this is no reply to such a command.
 */
WEIR_API int weir_memcached_read(const char *bytes, size_t len, struct weir_memcached_reply *reply);

/*
 * The verdict of a check that the server counts, from the reply to `what` (HIT, PEEK or REFUND). A HIT that
 * is denied has counted and must be undone.
 */
WEIR_API void weir_memcached_evaluate(const struct weir_check *check,
                                      const struct weir_memcached_reply *reply, int what,
                                      int64_t now_ns, struct weir_verdict *verdict);

/*
 * Steps a stored state: value (len bytes; NULL: there is none) to `next`, which has room for
 * WEIR_MEMCACHED_VALUE_MAX bytes.
 *
 * mode: WEIR_HIT, WEIR_EACH (the same), WEIR_TEST or WEIR_REFUND. *next_len: 0 if nothing is to be kept.
 * *expires_s: seconds from now after which Memcached may forget it; more than WEIR_MEMCACHED_MONTH_S of them
 * must be sent as seconds since the epoch. *changed: 0 if value stands as it is.
 * Errors: WEIR_EINVAL; WEIR_EFORMAT (value is no state of this limit); WEIR_EFULL (a moving window
 * with too many hits). Nothing is to be stored then.
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
