/*
 * The board of a table: what it tells beside its counters. How often each limit allowed and denied, which
 * clients are the heaviest, which limits there are. It lies in the table's own mapping, so that one process
 * answers for all that share the table.
 *
 *     int label = weir_board_label(table, "10 per 1 minute", 15);
 *     struct weir_check check = {.limit = &limit, .key = key, .key_len = key_len, .cost = 1,
 *                                .client = "10.1.2.3", .client_len = 8, .label = label};
 *     weir_decide(table, &check, 1, now_ns, WEIR_HIT, &verdict, &decision);
 *
 * Caveats first
 * -------------
 *  - What is counted is what weir_decide() said to a check with a label, in the modes WEIR_HIT and WEIR_EACH,
 *    and what weir_board_note() was told. A process killed at any instruction loses at most the counts of its
 *    own last decision.
 *  - The counters are since the table was made; weir_table_reset() leaves them.
 *  - A client's text is kept in clear only if it is an IP address, or if this process has asked for it by
 *    weir_board_reveal(). Else it is kept as "#" and 16 hexadecimal digits: a keyed hash of it, always the same
 *    one for a client and a table, of which the client cannot be computed. weir/rules.h takes such a name for
 *    the client.
 *  - Every list is bounded. What does not fit is counted under the label "other", or not listed.
 */
#ifndef WEIR_BOARD_H
#define WEIR_BOARD_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_BOARD_LABELS 64   /* labels of a table; the last is "other" */
#define WEIR_LABEL_MAX 95      /* bytes of a label */
#define WEIR_NAME_OF_CLIENT 64 /* bytes of a client as the board shows it, its NUL included */
#define WEIR_DESCRIBED_MAX 192 /* bytes before and after the client in a described key, together */

/* ------------------------------------------------------------------------------- counters by label */

/*
 * The number of the label `text` (`len` bytes, 1 to WEIR_LABEL_MAX), which is given out at its first use:
 * for weir_check.label. When WEIR_BOARD_LABELS - 1 labels are given out, every other text gets the number of
 * "other". Never use a text that a client can choose.
 * Errors: WEIR_EINVAL, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_board_label(struct weir_table *table, const char *text, size_t len);

/* What became of the requests that one limit was asked about. */
struct weir_board_counts {
    char label[WEIR_LABEL_MAX + 1];
    uint64_t allowed;
    uint64_t
        denied; /* by this limit; of several limits only those that denied count anything then */
    uint64_t near_limit; /* of the allowed: those after which at least 80 % of the limit was used */
    uint64_t shadow;     /* would have been denied, were the limit enforced */
};

/*
 * Writes the counters of every label into `counts[0..*n)`. `*n` holds the room on entry and the number
 * written on success; WEIR_BOARD_LABELS is always enough. Not one instant over all of the table.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY (more than the room), WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_board_counts(struct weir_table *table, struct weir_board_counts *counts,
                               size_t *n);

/* --------------------------------------------------------------------------------- heaviest clients */

enum weir_heavy_by { WEIR_BY_DENIED, WEIR_BY_ALLOWED };

/*
 * One client under one label. `allowed` and `denied` have happened. At most `error` more of what was asked
 * for may have happened before the client took its place in the list.
 */
struct weir_heavy {
    char client[WEIR_NAME_OF_CLIENT];
    char label[WEIR_LABEL_MAX + 1];
    uint64_t allowed;
    uint64_t denied;
    uint64_t error;
    int64_t last_ns; /* its latest hit, in nanoseconds since the epoch */
};

/*
 * Writes the clients with most denied (or allowed) hits into `heavy[0..*n)`, heaviest first; `*n` as in
 * weir_board_counts(), at most 4096. label: of this one alone; 0: of all.
 *
 * Space-Saving (Metwally, Agrawal, El Abbadi, 2005) in each stripe of the table: of all the hits that fell
 * into a stripe, a client with more than 1/32 of them is listed, a denied hit weighing 16. The weight of what a
 * client did is halved every ten minutes, so that old heavy hitters age out. Hits that were denied are each
 * looked at; of those allowed to clients that are not listed, one in 64 on average, once the list is full.
 * Errors: WEIR_EINVAL, WEIR_ENOMEM, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_board_heaviest(struct weir_table *table, enum weir_heavy_by by, int label,
                                 struct weir_heavy *heavy, size_t *n);

/*
 * Whether this handle writes clients into the list in clear (1) or, unless they are IP addresses, by their
 * hashes (0, the default). Returns what it was before. Other processes decide for themselves.
 */
WEIR_API int weir_board_reveal(struct weir_table *table, int reveal);

/*
 * The name under which the list shows a client: its text, if that is an IP address, or if the handle
 * reveals and it fits; else "#" and 16 hexadecimal digits. Always NUL-terminated.
 * Errors: WEIR_EINVAL.
 */
WEIR_API int weir_board_name(struct weir_table *table, const void *client, size_t client_len,
                             char name[WEIR_NAME_OF_CLIENT]);

/* ---------------------------------------------------------------------------------------- catalogue */

/* A limit that is in use. The key of a client's counter is `before`, the client, `after`. */
struct weir_described {
    struct weir_limit limit;
    uint32_t before_len;
    uint32_t after_len;
    char text[248 - sizeof(struct weir_limit)]; /* `before`, then `after`; any bytes */
};

/*
 * Makes a limit known to those who look at the table, so that they can ask for a client's counters. Saying
 * so again changes nothing. A limit with a zone is left out: the zone is this process's.
 * Errors: WEIR_EINVAL (also: longer than WEIR_DESCRIBED_MAX), WEIR_ETOOMANY (the catalogue is full),
 * WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_board_describe(struct weir_table *table, const struct weir_limit *limit,
                                 const void *before, size_t before_len, const void *after,
                                 size_t after_len);

/*
 * Writes the catalogue into `described[0..*n)`, in the order of arrival; `*n` holds the room on entry, and
 * the number written on return. described may be NULL if the room is 0: then *n becomes what there is.
 * Errors: WEIR_EINVAL.
 */
WEIR_API int weir_board_catalogue(struct weir_table *table, struct weir_described *described,
                                  size_t *n);

/* ----------------------------------------------------------------------- decisions made elsewhere */

/*
 * Counts a decision that another store made (or, with `shadow`, one that a shadow limit would have made: its
 * denials count as shadow, and nothing else). checks, n, now_ns: as they would have been given to
 * weir_decide(); verdicts: what the store said, of which `allowed`, `limit` and `remaining` are looked at.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_board_note(struct weir_table *table, const struct weir_check *checks, size_t n,
                             int64_t now_ns, const struct weir_verdict *verdicts, int shadow);

#ifdef __cplusplus
}
#endif
#endif
