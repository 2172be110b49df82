/*
 * Counters by label, and decisions of other stores. Each stripe has its own counters, so a decision
 * is counted under the lock that it already holds. Readers add up all stripes.
 */
#include "checks.h"
#include "stats/stats.h"
#include "table/cell.h"
#include "table/hash.h"

#include <string.h>

#include "error.h"

size_t weir_stats_bytes(uint32_t stripes, uint32_t registered) {
    return sizeof(struct weir_stats) + stripes * sizeof(struct weir_stats_stripe) +
           registered * sizeof(struct weir_registered_limit);
}

void weir_stats_init(struct weir_table *table) {
    memcpy(table->stats->label[WEIR_LABELS_NAMED], "other", 6);
}

/* ---------------------------------------------------------------------------- counters by label */

static int sum_up(struct weir_table *table, uint64_t sum[WEIR_STATS_LABELS][4]) {
    for (uint32_t stripe = 0; stripe <= table->stripe_mask; stripe++) {
        int rc = weir_lock_take(table, stripe);
        if (rc < 0)
            return rc;
        const struct weir_stats_stripe *stats = &table->stats->stripe[stripe];
        for (uint32_t i = 0; i < WEIR_STATS_LABELS; i++)
            for (int j = 0; j < 4; j++)
                sum[i][j] += stats->count[i][j];
        weir_lock_release(table, stripe);
    }
    return 0;
}

int weir_stats_counts(struct weir_table *table, struct weir_stats_counts *counts, size_t *n) {
    if (!table || !n || (!counts && *n > 0))
        return WEIR_EINVAL;
    uint64_t sum[WEIR_STATS_LABELS][4] = {{0}};
    uint32_t labels = weir_stats_number(&table->stats->labels, WEIR_LABELS_NAMED);
    int rc = weir_stats_ready(table);
    if (rc == 0)
        rc = sum_up(table, sum);
    if (rc < 0)
        return rc;
    const uint64_t *others = sum[WEIR_LABELS_NAMED];
    uint32_t total = labels + ((others[0] | others[1] | others[2] | others[3]) != 0);
    if (total > *n)
        return WEIR_ETOOMANY;
    for (uint32_t i = 0; i < total; i++) {
        uint32_t from = i < labels ? i : WEIR_LABELS_NAMED;
        weir_label_copy(table, from + 1, counts[i].label);
        counts[i].allowed = sum[from][WEIR_COUNT_ALLOWED];
        counts[i].denied = sum[from][WEIR_COUNT_DENIED];
        counts[i].near_limit = sum[from][WEIR_COUNT_NEAR];
        counts[i].shadow = sum[from][WEIR_COUNT_SHADOW];
    }
    *n = total;
    return weir_result(table, 0);
}

/* -------------------------------------------------------------------- decisions of other stores */

int weir_stats_record_one(struct weir_table *table, struct weir_stats_hit *hit,
                          const struct weir_verdict *verdict) {
    int rc = weir_lock_take(table, hit->stripe);
    if (rc < 0)
        return rc;
    uint64_t *count = table->stats->stripe[hit->stripe].count[hit->label - 1];
    /* The key may have no cell with the number of its entry, so each call searches the list. */
    hit->cell = weir_cell_find(table, hit->fingerprint);
    count[hit->allowed ? WEIR_COUNT_ALLOWED : WEIR_COUNT_DENIED]++;
    count[WEIR_COUNT_NEAR] += hit->allowed && weir_stats_is_near(verdict);
    if (hit->client_len > 0)
        weir_hitters_find(table, hit);
    weir_lock_release(table, hit->stripe);
    return 0;
}

static int note_shadow(struct weir_table *table, uint32_t stripe, int32_t label) {
    int rc = weir_lock_take(table, stripe);
    if (rc < 0)
        return rc;
    table->stats->stripe[stripe].count[label - 1][WEIR_COUNT_SHADOW]++;
    weir_lock_release(table, stripe);
    return 0;
}

static int note(struct weir_table *table, const struct weir_check *check,
                const struct weir_verdict *verdict, int64_t now_ns, bool shadow) {
    uint64_t fingerprint[2];
    weir_fingerprint(table, check->key, check->key_len, check->limit, fingerprint);
    uint32_t stripe = weir_cell_stripe(table, fingerprint);
    struct weir_stats_hit hit = {.client = check->client,
                                 .client_len = check->client_len,
                                 .label = (uint32_t)check->label,
                                 .fingerprint = fingerprint,
                                 .stripe = stripe,
                                 .allowed = verdict->allowed,
                                 .now_ns = now_ns};
    return shadow ? note_shadow(table, stripe, check->label)
                  : weir_stats_record_one(table, &hit, verdict);
}

int weir_stats_record_from(struct weir_table *table, const struct weir_check *checks, size_t n,
                           int64_t now_ns, const struct weir_verdict *verdicts, int shadow,
                           size_t *done) {
    int rc = table ? weir_checks_validate(checks, n) : WEIR_EINVAL;
    if (rc == 0 && (!verdicts || now_ns < 0 || now_ns > WEIR_NOW_MAX))
        rc = WEIR_EINVAL;
    if (rc == 0)
        rc = weir_stats_ready(table);
    bool denied = shadow;
    for (size_t i = 0; i < n && rc == 0; i++)
        denied |= !verdicts[i].allowed;
    for (; *done < n && rc == 0; *done += rc == 0)
        if (checks[*done].label != 0 &&
            !(verdicts[*done].allowed && (denied || checks[*done].flags & WEIR_CHECK_PEEK)))
            rc = note(table, &checks[*done], &verdicts[*done], now_ns, shadow);
    return rc;
}

int weir_stats_record(struct weir_table *table, const struct weir_check *checks, size_t n,
                      int64_t now_ns, const struct weir_verdict *verdicts, int shadow) {
    size_t done = 0;
    return weir_stats_record_from(table, checks, n, now_ns, verdicts, shadow, &done);
}

/* ------------------------------------------------------------------------------------ integrity */

static int corrupt(struct weir_error *error, const char *what, uint64_t where) {
    return weir_fail(error, WEIR_ECORRUPT, 0, "%s (at %llu)", what, (unsigned long long)where);
}

int weir_stats_check(struct weir_table *table, struct weir_error *error) {
    const struct weir_stats *stats = table->stats;
    uint32_t labels = atomic_load(&stats->labels), registered = atomic_load(&stats->registered);
    if (labels > WEIR_LABELS_NAMED || registered > table->header->registry_room)
        return corrupt(error, "the statistics have more entries than fit", labels);
    for (uint32_t i = 0; i < WEIR_STATS_LABELS; i++)
        if ((i < labels || i == WEIR_LABELS_NAMED) &&
            !memchr(stats->label[i], '\0', sizeof stats->label[i]))
            return corrupt(error, "a label has no end", i);
    for (uint32_t i = 0; i < registered; i++)
        if (!weir_registered_valid(&weir_stats_registered(table)[i]))
            return corrupt(error, "the registry contains an invalid limit", i);
    for (uint32_t stripe = 0; stripe <= table->stripe_mask; stripe++) {
        int rc = weir_hitters_check(table, stripe, error);
        if (rc < 0)
            return rc;
    }
    return 0;
}
