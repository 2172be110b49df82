/*
 * Common parts of the tests of statistics: checks with a label and a client, and the counters of
 * one label or client.
 */
#ifndef WEIR_TESTS_STATS_SUPPORT_H
#define WEIR_TESTS_STATS_SUPPORT_H

#include "support.h"

#include "stats/stats.h"

static const char *const labels[] = {"10 per 1 minute", "5 per 1 second", "100 per 1 hour"};

/* A check of cost 1 whose key is the client alone. */
static inline struct weir_check labelled(struct weir_table *table, const struct weir_limit *limit,
                                         const char *key, const char *label) {
    struct weir_check check = check_of(limit, key, 1);
    check.client = key;
    check.client_len = strlen(key);
    check.label = weir_stats_label(table, label, strlen(label));
    assert_true(check.label > 0);
    return check;
}

static inline struct weir_verdict decide_check(struct weir_table *table,
                                               const struct weir_check *check, int64_t now_ns,
                                               enum weir_mode mode) {
    struct weir_verdict verdict;
    assert_int_equal(weir_decide(table, check, 1, now_ns, mode, &verdict, NULL), 0);
    return verdict;
}

/* The counters of a label; all 0 if the label does not exist. */
static inline struct weir_stats_counts counts_of(struct weir_table *table, const char *label) {
    struct weir_stats_counts counts[WEIR_STATS_LABELS], none = {.label = ""};
    size_t n = WEIR_STATS_LABELS;
    assert_int_equal(weir_stats_counts(table, counts, &n), 0);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(counts[i].label, label))
            return counts[i];
    return none;
}

#define assert_counts(table, text, allowed_, denied_, near_, shadow_)                              \
    do {                                                                                           \
        struct weir_stats_counts counts_ = counts_of(table, text);                                 \
        assert_int_equal(counts_.allowed, allowed_);                                               \
        assert_int_equal(counts_.denied, denied_);                                                 \
        assert_int_equal(counts_.near_limit, near_);                                               \
        assert_int_equal(counts_.shadow, shadow_);                                                 \
    } while (0)

/* The entry of a client; all 0 if the client is not listed. */
static inline struct weir_top_client top_client_of(struct weir_table *table, enum weir_top_by by,
                                                   const char *client) {
    static struct weir_top_client list[8192];
    struct weir_top_client none = {.client = ""};
    size_t n = 8192;
    assert_int_equal(weir_stats_top_clients(table, by, 0, list, &n), 0);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i].client, client))
            return list[i];
    return none;
}

#endif
