/*
 * Statistics of a table: how often each limit allowed and denied, which clients made most requests,
 * and which limits are in use. They are part of the table's mapping, so any process that opens the
 * table reads the numbers of all processes that use it. weir/meter.h has named counters for a
 * program's own numbers.
 *
 *     int label = weir_stats_label(table, "10 per 1 minute", 15);
 *     struct weir_check check = {.limit = &limit, .key = key, .key_len = key_len, .cost = 1,
 *                                .client = "10.1.2.3", .client_len = 8, .label = label};
 *     weir_decide(table, &check, 1, now_ns, WEIR_HIT, &verdict, &decision);
 *
 * Caveats first
 * -------------
 *  - Only checks with a label are counted, in the modes WEIR_HIT and WEIR_EACH, and what
 *    weir_stats_record() reports. A process that is killed loses at most the counts of its last
 *    decision.
 *  - Counters start at 0 when the table is created. weir_table_reset() does not reset them.
 *  - A client is stored in clear only if it is an IP address, or if this process called
 *    weir_stats_reveal(). Otherwise it is stored as "#" and 16 hexadecimal digits: a hash under the
 *    table's secret key, the same for each request of a client. Functions of weir/rules.h accept
 *    this form.
 *  - Every list is bounded. Requests that find no free label are counted under the label "other".
 */
#ifndef WEIR_STATS_H
#define WEIR_STATS_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_STATS_LABELS 64 /* labels of a table; the last is "other" */
#define WEIR_LABEL_MAX 95    /* bytes of a label */
/* Bytes of a client's name in the statistics, its NUL included. */
#define WEIR_CLIENT_NAME_SIZE 64
/* Bytes before and after the client in a key, and of a zone's name. */
#define WEIR_REGISTERED_MAX 192

/* ---------------------------------------------------------------------------- counters by label */

/*
 * Returns the number of the label `text` (`len` bytes, 1 to WEIR_LABEL_MAX), for weir_check.label.
 * A new text gets the next free number. When WEIR_STATS_LABELS - 1 numbers are taken, every new
 * text gets the number of "other". Do not use a text that a client can choose.
 * Errors: WEIR_EINVAL, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_stats_label(struct weir_table *table, const char *text, size_t len);

/* How often the limits with one label were checked, by result. */
struct weir_stats_counts {
    char label[WEIR_LABEL_MAX + 1];
    uint64_t allowed;
    uint64_t denied;     /* if a check is denied, only the limits that denied it count */
    uint64_t near_limit; /* of the allowed: those after which at least 80 % of the limit was used */
    uint64_t shadow;     /* denials of a limit that is not enforced */
};

/*
 * Writes the counters of every label into `counts[0..*n)`. On entry, `*n` is the number of elements
 * of the array; on success, the number written. WEIR_STATS_LABELS is always enough. The counters
 * are read one stripe after another, so they are not a snapshot of one moment.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY (the array is too small), WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_stats_counts(struct weir_table *table, struct weir_stats_counts *counts,
                               size_t *n);

/* ---------------------------------------------------------------------------------- top clients */

/* By which count weir_stats_top_clients() sorts. */
enum weir_top_by { WEIR_BY_DENIED, WEIR_BY_ALLOWED };

/*
 * One client under one label. `allowed` and `denied` are lower bounds. The true number, in the
 * order that was asked for, is at most `error` higher: requests before the client was listed are
 * not counted.
 */
struct weir_top_client {
    char client[WEIR_CLIENT_NAME_SIZE];
    char label[WEIR_LABEL_MAX + 1];
    uint64_t allowed;
    uint64_t denied;
    uint64_t error;
    int64_t last_ns; /* its latest hit, in nanoseconds since the epoch */
};

/*
 * Writes the clients with most denied (or allowed) hits into `top[0..*n)`, most first. `*n` as in
 * weir_stats_counts(), at most 4096. label: only clients under this label; 0: under any.
 *
 * Each stripe of the table runs Space-Saving (Metwally, Agrawal, El Abbadi, 2005): a client that
 * makes more than 1/32 of the hits of a stripe is listed. A denied hit has the weight 16. Weights
 * are halved every ten minutes, so old heavy hitters age out. Every denied hit is examined; of
 * allowed hits of clients that are not listed, one in 64 on average is examined once the list is
 * full.
 * Errors: WEIR_EINVAL, WEIR_ENOMEM, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_stats_top_clients(struct weir_table *table, enum weir_top_by by, int label,
                                    struct weir_top_client *top, size_t *n);

/*
 * Selects whether this handle stores clients that are not IP addresses in clear (1) or as hashes
 * (0, the default). Returns the previous setting. It affects this process only.
 * Errors: WEIR_EINVAL.
 */
WEIR_API int weir_stats_reveal(struct weir_table *table, int reveal);

/*
 * Writes the name of a client in the statistics, NUL-terminated: its text if it is an IP address,
 * or if the handle reveals clients and the text fits; otherwise "#" and 16 hexadecimal digits.
 * Errors: WEIR_EINVAL.
 */
WEIR_API int weir_stats_client_name(struct weir_table *table, const void *client, size_t client_len,
                                    char name[WEIR_CLIENT_NAME_SIZE]);

/* ------------------------------------------------------------------------------- limit registry */

/*
 * A limit in use. The key of a client's counter is `before`, the client, `after`. limit.zone is
 * NULL: a zone belongs to one process. If zone_len is not 0, the limit has the zone of that name;
 * set limit.zone to it before computing with the limit.
 */
struct weir_registered_limit {
    struct weir_limit limit;
    uint32_t before_len;
    uint16_t after_len;
    uint16_t zone_len;                          /* 0: none; else 1 to WEIR_ZONE_NAME_MAX */
    char text[248 - sizeof(struct weir_limit)]; /* `before`, `after`: any bytes; the zone's name */
};

/*
 * Adds a limit to the registry, so that programs that inspect the table can compute the keys of a
 * client's counters. A limit that is registered already is not added again. Of its zone, the name
 * is stored.
 * Errors: WEIR_EINVAL (also: longer than WEIR_REGISTERED_MAX), WEIR_ETOOMANY (the registry is
 * full), WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_stats_register(struct weir_table *table, const struct weir_limit *limit,
                                 const void *before, size_t before_len, const void *after,
                                 size_t after_len);

/*
 * Writes the registered limits into `registered[0..*n)`, oldest first. On entry, `*n` is the number
 * of elements of the array; on return, the number written. registered may be NULL if `*n` is 0:
 * then `*n` becomes the number of registered limits.
 * Errors: WEIR_EINVAL.
 */
WEIR_API int weir_stats_registry(struct weir_table *table, struct weir_registered_limit *registered,
                                 size_t *n);

/* -------------------------------------------------------------------- decisions of other stores */

/*
 * Counts a decision that another store made. checks, n, now_ns: as for weir_decide(). verdicts:
 * those of the other store; `allowed`, `limit` and `remaining` are read. With `shadow`, the limits
 * are not enforced: denials count as shadow, and nothing else is counted.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_stats_record(struct weir_table *table, const struct weir_check *checks, size_t n,
                               int64_t now_ns, const struct weir_verdict *verdicts, int shadow);

#ifdef __cplusplus
}
#endif
#endif
