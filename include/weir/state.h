/*
 * libweir on any store that keeps bytes by name: read the packed states of a decision's counters,
 * step them (all or nothing), and write back those that changed. Sockets and transactions are the
 * program's part.
 *
 *     struct weir_counter counters[WEIR_CHECKS_MAX];
 *     size_t count;
 *     weir_state_counters(checks, n, counters, &count);
 *     BEGIN
 *     for each counter i:                               lock and read, in one order for all callers
 *         weir_state_name(&checks[counters[i].check], "weir", 4, name)
 *         counters[i].was, counters[i].was_len          the stored value, if any
 *     char *buffer = malloc(weir_state_room(counters, count, n));
 *     weir_state_decide(checks, n, counters, count, now_ns, WEIR_HIT, buffer, verdicts, &decision);
 *     for each counter i that `changed`:
 *         next_len > 0: write next, until expires_ns;   else: delete
 *     COMMIT
 *
 * Caveats first
 * -------------
 *  - No other process may change a counter between reading and writing. Use a transaction that
 *    locks it, or a store that writes only if the stored value is still `was`.
 *  - All programs that use one store should use one clock, preferably that of the store.
 *  - From expires_ns on, a state has no effect: the store may delete it then, or later.
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
    const void *was;    /* in: the stored value; NULL: none */
    size_t was_len;     /* in: 0 to WEIR_STATE_PACKED_MAX */
    const void *next;   /* out: the value to store, in the caller's buffer */
    size_t next_len;    /* out: 0: delete it */
    int64_t expires_ns; /* out: keep it at least until then */
    int32_t changed;    /* out: 0: leave it as it is */
    int32_t reserved;
};

/*
 * Writes the name of a check's counter into `name`, which has room for WEIR_STATE_NAME_MAX bytes;
 * not NUL-terminated. Printable ASCII without blanks, as weir_memcached_name() says.
 * Returns its length, or WEIR_EINVAL (a check or prefix out of its range).
 */
WEIR_API int weir_state_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                             char *name);

/*
 * Lists the counters of a decision, each once: fills in `check` of counters[0..*count) and clears
 * the other members. counters: room for n.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY.
 */
WEIR_API int weir_state_counters(const struct weir_check *checks, size_t n,
                                 struct weir_counter *counters, size_t *count);

/* Bytes of the buffer that weir_state_decide() needs, for counters that have been read. */
WEIR_API size_t weir_state_room(const struct weir_counter *counters, size_t count, size_t n);

/*
 * Decides n checks on the counters from weir_state_counters(), all or nothing, as weir_decide()
 * does on a table.
 * buffer: weir_state_room() bytes, borrowed by `next` of the counters. decision: may be NULL.
 * Errors, after which nothing must be written: WEIR_EINVAL; WEIR_EFORMAT (a stored value is not a
 * state of its limit; *bad, if not NULL, is the index of the counter).
 */
WEIR_API int weir_state_decide(const struct weir_check *checks, size_t n,
                               struct weir_counter *counters, size_t count, int64_t now_ns,
                               enum weir_mode mode, void *buffer, struct weir_verdict *verdicts,
                               struct weir_decision *decision, size_t *bad);

#ifdef __cplusplus
}
#endif
#endif
