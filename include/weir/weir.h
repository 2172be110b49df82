/*
 * libweir decides rate limits.
 *
 * A program describes limits ("10 per minute; 100 per hour"), identifies the client by a key (any
 * bytes), and calls weir_decide() to find out whether the request is allowed. Counters are in a
 * table: in the memory of one process, in memory that all processes of a host share, or in a file.
 *
 *     struct weir_table *table;
 *     struct weir_limit limit;
 *     struct weir_verdict verdict;
 *     struct weir_error error;
 *
 *     weir_table_open("shm://shop", &table, &error);
 *     weir_limit_parse("10 per minute", 13, &limit, &error);
 *
 *     struct weir_check check = {.limit = &limit, .key = "10.1.2.3", .key_len = 8, .cost = 1};
 *     if (weir_decide(table, &check, 1, now_ns, WEIR_HIT, &verdict, NULL) == 0 && !verdict.allowed)
 *         refuse(verdict.retry_after_ns);
 *
 * A program that decides often prepares its checks once (weir_prepare()). Each decision then takes
 * only what varies: the client, the time, and costs. This is faster, and it offers roles: limits
 * that are peeked at, charged later, or not enforced.
 *
 *     struct weir_part part = {.limit = &limit, .before = {"api/", 4}, .cost = 1};
 *     struct weir_prepared *prepared;
 *     weir_prepare(&part, 1, &prepared, &error);
 *
 *     struct weir_request request = {.now_ns = now_ns, .client = {"10.1.2.3", 8}};
 *     if (weir_decide_prepared(table, prepared, &request, &verdict, NULL) == 0 && !verdict.allowed)
 *         refuse(verdict.retry_after_ns);
 *
 * Caveats first
 * -------------
 *  - Time is an argument, in nanoseconds since the Unix epoch, from 0 to WEIR_NOW_MAX. libweir
 *    reads no clock to decide. All processes that use one table should read the same clock.
 *  - If the clock steps back, no quota is granted twice, and no key is blocked for longer than its
 *    period. If the clock steps forward, the skipped time counts as time that passed.
 *  - "Denied" is a verdict, never an error. A negative result means that nothing was decided and
 *    nothing was charged.
 *  - A table has room for a fixed number of keys. If the buckets of a new key are full, another key
 *    is evicted and its counter is lost. weir_table_info() counts evictions.
 *  - If a process is killed, at any instruction, the next caller repairs the table. If a process is
 *    *stopped* (SIGSTOP, a debugger) while it holds a lock, others wait up to one second, then
 *    return WEIR_EBUSY.
 *  - Shared and file tables rely on process ids: do not share one between PID namespaces.
 *  - A file table outlives all processes. It is not flushed after each decision, so it may be
 *    damaged by a power failure.
 *  - fork() is safe at any time. The child of a process with a memory:// table gets its own copy;
 *    shm:// and file:// tables stay shared.
 *  - All functions are thread-safe, except that weir_table_close() must be the last call with its
 *    handle.
 *
 * All functions exist since version 0.1, unless the comment of one says "Since version 0.2.", or
 * another. The shared libraries have these versions in their symbols.
 *
 * Results are 0 or a negative WEIR_E... value. Functions that take `struct weir_error *` accept
 * NULL. libweir writes nothing to standard streams and never aborts. A decision allocates no
 * memory.
 */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include <stddef.h>
#include <stdint.h>

#include "weir/base.h"
#include "weir/strategies.h" /* enum weir_strategy */
#include "weir/table.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --------------------------------------------------------------------------------------- limits */

enum weir_unit {
    WEIR_SECOND,
    WEIR_MINUTE,
    WEIR_HOUR,
    WEIR_DAY,
    WEIR_MONTH, /* 30 days */
    WEIR_YEAR,  /* 360 days */
};

/*
 * The offsets of a time zone from UTC, for the midnights of calendar windows. Each offset is valid
 * from its moment on; moments ascend. Before the first moment, the first offset is valid. The
 * program fills it, from the system's tz database or with one fixed offset. Limits and prepared
 * checks borrow it: it must outlive them.
 */
struct weir_zone_offset {
    int64_t from_ns;
    int64_t offset_ns; /* local time minus UTC, below one day either way */
};

#define WEIR_ZONE_NAME_MAX 63
#define WEIR_ZONE_OFFSETS_MAX 4096

struct weir_zone {
    const char *name; /* "Europe/Berlin", "+05:30": sets its counters apart from another zone's; 1
                         to WEIR_ZONE_NAME_MAX letters, digits, "+", "-", "_", ":" and "/" */
    const struct weir_zone_offset *offset;
    size_t offsets; /* 1 to WEIR_ZONE_OFFSETS_MAX */
};

/*
 * One limit: `amount` hits per `multiples` units. Fill it by weir_limit_parse() or
 * weir_limit_init(), then set `strategy`, `burst`, `max_delay_ns` and `zone` as needed; every other
 * member is read-only. It owns nothing and may be copied.
 */
struct weir_limit {
    int64_t amount;       /* hits per period, 0 to 2^63-1; 0 denies every hit */
    int64_t period_ns;    /* multiples x unit, 1 s to WEIR_PERIOD_MAX_NS */
    int64_t burst;        /* token bucket: its size in tokens, 1 to 2^63-1; 0: `amount` */
    int64_t max_delay_ns; /* leaky bucket: longest wait of an admitted request, 0 to period_ns */
    int64_t multiples;    /* units per period, at least 1 */
    int32_t unit;         /* enum weir_unit */
    int32_t strategy;     /* enum weir_strategy */
    const struct weir_zone *zone; /* calendar window: its time zone; NULL: UTC. Borrowed */
};

/* Default of max_delay_ns: half a second. */
#define WEIR_MAX_DELAY_DEFAULT_NS INT64_C(500000000)

/*
 * Fills `*limit` with `amount` per `multiples` units, fixed window, no burst, the default max
 * delay.
 * Errors: WEIR_EINVAL (a value out of its range; the message says which).
 */
WEIR_API int weir_limit_init(struct weir_limit *limit, int64_t amount, int64_t multiples, int unit,
                             struct weir_error *error);

/*
 * Reads exactly one limit from `text` (`len` bytes, need not be NUL-terminated):
 *
 *     limit = count ("per" | "/") [multiples] unit ["s"] ["burst" count]
 *     unit  = "second" | "minute" | "hour" | "day" | "month" | "year"
 *
 * Case is ignored, and blanks between words are allowed. The strategy is a fixed window, or a token
 * bucket if there is a burst.
 * Errors: WEIR_ESYNTAX (with message and column), WEIR_ETOOMANY (more than one limit).
 */
WEIR_API int weir_limit_parse(const char *text, size_t len, struct weir_limit *limit,
                              struct weir_error *error);

/*
 * Reads one or more limits joined by ";", "," or "|" into `limits[0..*count)`. On entry, `*count`
 * is the number of elements of the array; on success, the number of limits. After an error, both
 * are undefined.
 * Errors: WEIR_ESYNTAX; WEIR_ETOOMANY (more limits than elements, or than WEIR_CHECKS_MAX).
 */
WEIR_API int weir_limit_parse_many(const char *text, size_t len, struct weir_limit *limits,
                                   size_t *count, struct weir_error *error);

/*
 * The same; limits without a burst get this strategy. For WEIR_CALENDAR_WINDOW, "week" is a unit
 * too: 7 days that start on Monday.
 * Errors: as above; WEIR_EINVAL (no such strategy).
 */
WEIR_API int weir_limit_parse_as(const char *text, size_t len, int strategy,
                                 struct weir_limit *limits, size_t *count,
                                 struct weir_error *error);

/*
 * The window of a calendar-window limit at `now_ns`: from *start_ns to *end_ns, exclusive. The next
 * window is from *end_ns to *next_ns.
 * Errors: WEIR_EINVAL (another strategy; now_ns out of its range).
 */
WEIR_API int weir_limit_window(const struct weir_limit *limit, int64_t now_ns, int64_t *start_ns,
                               int64_t *end_ns, int64_t *next_ns);

/*
 * Writes "10 per 1 minute" (and " burst 20") into `buffer`, always NUL-terminated when `size` > 0.
 * Returns the length of the whole text, as snprintf does; 96 bytes are always enough.
 * weir_limit_parse() can read the text.
 */
WEIR_API int weir_limit_print(const struct weir_limit *limit, char *buffer, size_t size);

/*
 * Checks every member of a limit, e.g. after setting `strategy` by hand.
 * Errors: WEIR_EINVAL (the message says which member and its range; also a burst or zone that the
 * strategy does not take).
 */
WEIR_API int weir_limit_validate(const struct weir_limit *limit, struct weir_error *error);

/* "fixed-window", …; NULL if there is no such strategy. Static storage. */
WEIR_API const char *weir_strategy_name(int strategy);

/* The strategy of that name, or WEIR_EINVAL. */
WEIR_API int weir_strategy_parse(const char *name, size_t len);

/* Whether a strategy takes an option (enum weir_takes): 1 or 0. */
WEIR_API int weir_strategy_takes(int strategy, int option);

/* The first strategy that takes an option, or WEIR_EINVAL. */
WEIR_API int weir_strategy_taking(int option);

/* ------------------------------------------------------------------------------------ decisions */

enum weir_mode {
    WEIR_HIT,    /* charge all limits, or none if any denies */
    WEIR_TEST,   /* charge nothing, change nothing */
    WEIR_EACH,   /* charge every limit that has room, even if another denies */
    WEIR_REFUND, /* give `cost` back to each limit, never above full; always allowed */
};

enum weir_check_flags {
    WEIR_CHECK_PEEK = 1, /* not charged in any mode; if it denies, WEIR_HIT charges nothing */
};

#define WEIR_CHECK_LOOK WEIR_CHECK_PEEK /* deprecated: the earlier name */

/* One limit to decide: the key, the limit, the cost. Borrowed for the call only. */
struct weir_check {
    const struct weir_limit *limit;
    const void *key; /* any bytes; may be NULL if key_len is 0 */
    size_t key_len;  /* 0 to WEIR_KEY_MAX */
    int64_t cost; /* 0 to 2^63-1; more than the limit: denied; 0: always allowed, charges nothing */
    const void *client; /* the client, usually a part of `key`, for weir/rules.h and weir/stats.h;
                           NULL: none */
    size_t client_len;  /* 0 to WEIR_KEY_MAX; 0: no client */
    int32_t label;      /* of the counters, from weir_stats_label(); 0: not counted */
    int32_t flags;      /* of enum weir_check_flags; 0: none */
};

/* Which kind of rule about the client decided (weir/rules.h). */
enum weir_rule_kind {
    WEIR_RULE_NONE,  /* none: the limits decided */
    WEIR_RULE_BLOCK, /* denied, nothing charged */
    WEIR_RULE_ALLOW, /* allowed, nothing charged */
};

/* The result of one limit. */
struct weir_verdict {
    int32_t allowed;        /* 1 or 0, of this limit alone */
    int32_t reserved;       /* 0 */
    int64_t limit;          /* the limit's amount (token bucket: its burst) */
    int64_t remaining;      /* hits of cost 1 that would still pass now, after this request */
    int64_t reset_at_ns;    /* fixed window: its end; moving window: when its oldest hit leaves;
                               sliding counter: when `remaining` next grows; buckets: when full
                               again; `now` when nothing is used */
    int64_t retry_after_ns; /* from `now` to the earliest moment at which the same request could
                               pass; 0 when allowed; WEIR_NEVER when it cannot */
    int64_t delay_ns;       /* leaky bucket: how long the admitted request must wait; else 0 */
};

/* The result of all limits together. */
struct weir_decision {
    int32_t allowed;  /* 1 if no limit denied */
    int32_t deciding; /* index of the check to report to the client: of those that denied, the one
                         with the longest retry_after_ns; otherwise the one with the shortest
                         period */
    int32_t rule;     /* enum weir_rule_kind: which rule decided instead of the limits */
    int32_t reserved; /* 0 */
};

/*
 * Decides `n` checks at once on `table`, at the time `now_ns`, all or nothing.
 *
 * checks: n of them, 1 to WEIR_CHECKS_MAX. Two checks of the same key and limit are charged one
 * after the other. now_ns: 0 to WEIR_NOW_MAX.
 * verdicts: room for n. decision: may be NULL.
 * Errors, after which nothing was charged: WEIR_EINVAL, WEIR_ETOOMANY, WEIR_EFULL, WEIR_EBUSY,
 * WEIR_ECORRUPT.
 */
WEIR_API int weir_decide(struct weir_table *table, const struct weir_check *checks, size_t n,
                         int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts,
                         struct weir_decision *decision);

/*
 * Deletes the counter of each check; costs are ignored. A counter that does not exist is no error.
 * Errors: as weir_decide().
 */
WEIR_API int weir_clear(struct weir_table *table, const struct weir_check *checks, size_t n);

/* ------------------------------------------------------------------------------ prepared checks */

/*
 * A program that decides often prepares its checks: limits, roles, fixed parts of keys and labels
 * are validated and joined once. Each decision then takes only what varies. The counters are those
 * of weir_decide() for the same limit and the whole key.
 */

/* Borrowed bytes. `bytes` may be NULL if `len` is 0. */
struct weir_bytes {
    const void *bytes;
    size_t len;
};

/* The role of a limit in a prepared check. */
enum weir_role {
    /* Decides, and is charged. */
    WEIR_ROLE_CHARGED,
    /* Decides, is not charged; if it denies, nothing is charged, in WEIR_EACH too. */
    WEIR_ROLE_PEEKED,
    /*
     * Decides, is not charged now but by weir_settle_prepared(); in WEIR_EACH its denial does not
     * keep the others from being charged.
     */
    WEIR_ROLE_DEFERRED,
    /*
     * Not enforced, and not affected by rules; charged by itself if the others allow the request,
     * or in WEIR_EACH. Its denials count as shadow denials of its label, and nothing else of it is
     * counted.
     */
    WEIR_ROLE_SHADOW,
};

/*
 * One limit of a prepared check. Borrowed during weir_prepare() only. The key is before + client +
 * after.
 */
struct weir_part {
    const struct weir_limit *limit;
    struct weir_bytes before; /* part of the key before the client */
    struct weir_bytes after;  /* part of the key after the client */
    int64_t cost;             /* 0 to 2^63-1; a request may replace it */
    int32_t label; /* from weir_stats_label() of the table that will be asked; 0: not counted */
    int32_t role;  /* enum weir_role */
};

/* The values that differ between requests. Borrowed during the call only. */
struct weir_request {
    int64_t now_ns;                   /* 0 to WEIR_NOW_MAX */
    int32_t mode;                     /* enum weir_mode */
    uint32_t parts;                   /* bit i: part i takes part; 0: all of them */
    struct weir_bytes client;         /* the client, for the key, rules and statistics */
    const struct weir_bytes *clients; /* NULL: `client` for every part; else one for each part */
    const struct weir_bytes *after;   /* NULL: as prepared; else one for each part: replaces `after`
                                         unless its `bytes` is NULL */
    const int64_t *costs;             /* NULL: as prepared; else one for each part */
};

struct weir_prepared;

/*
 * Prepares `n` parts (1 to WEIR_CHECKS_MAX). The caller owns `*prepared` and frees it by
 * weir_prepared_free(). Any number of threads may use it. Only its labels depend on a table
 * (weir_prepared_label()). Zones of limits stay borrowed until it is freed.
 * Errors: WEIR_EINVAL (the message names the part and the member), WEIR_ETOOMANY, WEIR_ENOMEM.
 */
WEIR_API int weir_prepare(const struct weir_part *parts, size_t n, struct weir_prepared **prepared,
                          struct weir_error *error);

/* Frees a prepared check. NULL is ignored. */
WEIR_API void weir_prepared_free(struct weir_prepared *prepared);

/*
 * Sets the label of part `i`, for a table that replaces a lost one (weir/lost.h): its labels may
 * have other numbers. The check must not be in use by other threads. Ignored if there is no such
 * part or label.
 */
WEIR_API void weir_prepared_label(struct weir_prepared *prepared, size_t i, int32_t label);

/* The number of parts of a prepared check; 0 for NULL. */
WEIR_API size_t weir_prepared_count(const struct weir_prepared *prepared);

/*
 * Decides a prepared check: one decision under one set of locks, all or nothing, whatever the
 * roles.
 * verdicts: room for one of each part; index i is always part i, and those of parts that take no
 * part are left as they are. decision: may be NULL; `deciding` is an index of parts, never that of
 * a shadow part unless there is no other; of shadow parts alone, `allowed` is 1. A bit of
 * request->parts beyond the parts is WEIR_EINVAL. Two parts of the same key and limit are charged
 * one after the other, shadow parts last. A key of more than 2,048 bytes takes an allocation
 * (WEIR_ENOMEM).
 * Errors: as weir_decide().
 */
WEIR_API int weir_decide_prepared(struct weir_table *table, const struct weir_prepared *prepared,
                                  const struct weir_request *request, struct weir_verdict *verdicts,
                                  struct weir_decision *decision);

/*
 * Charges (WEIR_EACH: each part that has room) or refunds (WEIR_REFUND) the parts in
 * request->parts, whatever their roles. It is meant for deferred parts, when the outcome of the
 * request is known. request->parts 0 means all deferred parts. WEIR_EINVAL if there is none, or in
 * another mode. Shadow parts stay unenforced. Charges and denials are counted in the statistics.
 * Errors: as weir_decide().
 */
WEIR_API int weir_settle_prepared(struct weir_table *table, const struct weir_prepared *prepared,
                                  const struct weir_request *request, struct weir_verdict *verdicts,
                                  struct weir_decision *decision);

/*
 * Writes the checks of a request in the order of their parts, for the codecs of remote stores: keys
 * into `buffer` (borrowed by the checks), the checks into `checks` (room for n), and the part of
 * each into `part` (room for n, may be NULL). Peeked and deferred parts get WEIR_CHECK_PEEK. Shadow
 * parts are left out; with `shadow`, only they are written. Returns the number of checks, 0 if
 * there is none, or an error: WEIR_EINVAL; WEIR_ENOSPC with `*need` set to the bytes that the keys
 * need. need: may be NULL.
 */
WEIR_API int weir_prepared_checks(const struct weir_prepared *prepared,
                                  const struct weir_request *request, int shadow, char *buffer,
                                  size_t size, struct weir_check *checks, uint8_t *part,
                                  size_t *need);

/* ----------------------------------------------------------------------------------------- keys */

#define WEIR_IDENTIFIER_MAX 768 /* bytes that weir_identifier() writes at most */

/*
 * Writes a part of a key in the form of weir.flask: "/" and "%" become "%2F" and "%25", bytes above
 * 127 that are not UTF-8 are escaped, and a part of more than 256 bytes is cut and ends in "%#" and
 * a hash of the whole. The key of a Flask limit is "LIMITER/", the prefix and "/" if there is one,
 * the client, "/", and the scope (the endpoint's name).
 *
 * bytes: `len` of them. buffer: room for WEIR_IDENTIFIER_MAX; no NUL is written. Returns the number
 * of bytes written.
 */
WEIR_API size_t weir_identifier(const void *bytes, size_t len, char *buffer);

#ifdef __cplusplus
}
#endif

#endif
