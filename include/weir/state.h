/*
 * libweir on any store that keeps bytes by name: read the packed states of a decision's counters, step them all
 * or nothing, write back what has changed. No sockets and no transactions: those are the store's.
 *
 *     struct weir_counter counters[WEIR_CHECKS_MAX];
 *     size_t count;
 *     weir_state_counters(checks, n, counters, &count);
 *     BEGIN
 *     for each counter i:                               lock and read, in one order for all callers
 *         weir_state_name(&checks[counters[i].check], "weir", 4, name)
 *         counters[i].was, counters[i].was_len          what the store has under that name
 *     char *buffer = malloc(weir_state_room(counters, count, n));
 *     weir_state_decide(checks, n, counters, count, now_ns, WEIR_HIT, buffer, verdicts, &decision);
 *     for each counter i that `changed`:
 *         next_len > 0: write next, until expires_ns;   else: delete
 *     COMMIT
 *
 * Caveats first
 * -------------
 *  - Between reading and writing nobody else may change a counter: a transaction that locks it, or a store that
 *    writes only if what it has is still `was`.
 *  - All callers of one store should go by one clock, best the store's.
 *  - From expires_ns on, a state says the same as none: the store may drop it then, or later.
 *  - The log of a moving window grows with the hits in the window, by about 4 bytes each.
 *  - Nothing here allocates, and every function may be called by any thread.
 */
#ifndef WEIR_STATE_H
#define WEIR_STATE_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_STATE_NAME_MAX 250
#define WEIR_STATE_PREFIX_MAX 64
#define WEIR_STATE_PACKED_MAX 16000000 /* bytes of one packed state that is read */

/* A counter of a decision. */
struct weir_counter {
    size_t check;       /* in: of the checks that have this counter, the first */
    const void *was;    /* in: what the store has; NULL: nothing */
    size_t was_len;     /* in: 0 to WEIR_STATE_PACKED_MAX */
    const void *next;   /* out: what it shall have, in the caller's buffer */
    size_t next_len;    /* out: 0: nothing */
    int64_t expires_ns; /* out: until when it shall have it at least */
    int32_t changed;    /* out: 0: leave it as it is */
    int32_t reserved;
};

/*
 * Writes the name of a check's counter into `name`, which has room for WEIR_STATE_NAME_MAX bytes; not
 * NUL-terminated. Printable ASCII without blanks, as weir_memcached_name() says.
 * Returns its length, or WEIR_EINVAL (a check or prefix out of its range).
 */
WEIR_API int weir_state_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                             char *name);

/*
 * The counters of a decision, each once: fills `check` of counters[0..*count), which has room for n, and clears
 * the rest.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY.
 */
WEIR_API int weir_state_counters(const struct weir_check *checks, size_t n,
                                 struct weir_counter *counters, size_t *count);

/* Bytes of the buffer that weir_state_decide() needs, for counters that have been read. */
WEIR_API size_t weir_state_room(const struct weir_counter *counters, size_t count, size_t n);

/*
 * Decides n checks of the counters that weir_state_counters() has named, all or nothing, as weir_decide() does
 * on a table. buffer: weir_state_room() bytes, borrowed by `next` of the counters. decision: may be NULL.
 * Errors, after which nothing is to be written: WEIR_EINVAL; WEIR_EFORMAT (what the store has is no state of that
 * limit; *bad, if not NULL, is the counter's place).
 */
WEIR_API int weir_state_decide(const struct weir_check *checks, size_t n,
                               struct weir_counter *counters, size_t count, int64_t now_ns,
                               enum weir_mode mode, void *buffer, struct weir_verdict *verdicts,
                               struct weir_decision *decision, size_t *bad);

#ifdef __cplusplus
}
#endif
#endif
