/*
 * Common functions of the C benchmarks: medians of rounds, ratios to a peer in the same round,
 * tables, limits.
 */
#ifndef WEIR_BENCH_SERIES_H
#define WEIR_BENCH_SERIES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "weir/weir.h"

#define ROUNDS 7
#define START_NS INT64_C(1800000000000000000)

static inline double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct series {
    double value[ROUNDS];
    int n;
};

static inline void add(struct series *series, double value) {
    series->value[series->n++] = value;
}

static inline double median(const struct series *series) {
    double sorted[ROUNDS];
    memcpy(sorted, series->value, sizeof sorted);
    qsort(sorted, (size_t)series->n, sizeof sorted[0], by_value);
    return sorted[series->n / 2];
}

static inline double low(const struct series *series) {
    double sorted[ROUNDS];
    memcpy(sorted, series->value, sizeof sorted);
    qsort(sorted, (size_t)series->n, sizeof sorted[0], by_value);
    return sorted[0];
}

static inline double high(const struct series *series) {
    double sorted[ROUNDS];
    memcpy(sorted, series->value, sizeof sorted);
    qsort(sorted, (size_t)series->n, sizeof sorted[0], by_value);
    return sorted[series->n - 1];
}

static inline void print(const char *name, const struct series *series, const char *unit,
                         const char *peer, const struct series *against) {
    printf("  %-38s %9.1f %-10s (%.1f to %.1f)", name, median(series), unit, low(series),
           high(series));
    if (against) {
        struct series ratio = {.n = 0};
        for (int i = 0; i < series->n; i++)
            add(&ratio, series->value[i] / against->value[i]);
        printf("   %.2f x %s", median(&ratio), peer);
    }
    printf("\n");
}

static inline void must(int rc, const struct weir_error *error) {
    if (rc == 0)
        return;
    fprintf(stderr, "bench: %s: %s\n", weir_strerror(rc), error ? error->message : "");
    exit(1);
}

static inline struct weir_table *open_table(const char *uri) {
    struct weir_table *table;
    struct weir_error error;
    must(weir_table_open(uri, &table, &error), &error);
    return table;
}

static inline struct weir_limit limit_of(int strategy, int64_t amount) {
    struct weir_limit limit;
    struct weir_error error;
    must(weir_limit_init(&limit, amount, 1, WEIR_MINUTE, &error), &error);
    limit.strategy = strategy;
    return limit;
}

#endif
