/*
 * A small table file whose bytes the including program damages. The file is then opened and used:
 * it must be refused with a message, or be safe to use. For a given layout of the library, the file
 * is the same in every run: its secret is not random.
 */
#ifndef WEIR_DAMAGED_H
#define WEIR_DAMAGED_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "saved.h"
#include "table/cell.h"
#include "table/hash.h"
#include "weir/stats.h"
#include "weir/weir.h"

#define DAMAGED_MUST(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define DAMAGED_NOW INT64_C(1700000000000000000)
#define DAMAGED_SECOND INT64_C(1000000000)
#define DAMAGED_DAY (86400 * DAMAGED_SECOND)
#define DAMAGED_LIMITS 6

struct damaged {
    char uri[80];
    char path[64];
    unsigned char *base; /* the undamaged file */
    size_t size;
    struct weir_limit limit[DAMAGED_LIMITS];
};

static inline struct weir_check damaged_check(const struct damaged *damaged, int i, int64_t cost) {
    return (struct weir_check){.limit = &damaged->limit[i],
                               .key = "key",
                               .key_len = 3,
                               .cost = cost,
                               .client = "key",
                               .client_len = 3,
                               .label = i / 2 + 1};
}

/*
 * Undo records for stripe 0, its neighbour and the pool, as after a process is killed in a commit.
 */
static inline void damaged_leave_records(struct weir_table *table) {
    uint32_t pool = table->stripe_mask + 1;
    struct weir_lock *coordinator = weir_lock_at(table, 0);
    coordinator->last_seq = 1000;
    coordinator->participants = 2;
    coordinator->participant[0] = 1;
    coordinator->participant[1] = (uint16_t)pool;
    for (uint32_t i = 0; i <= pool; i++) {
        struct weir_lock *lock = weir_lock_at(table, i);
        lock->coordinator = 0;
        lock->seq = 1000;
        lock->undo_ready = 2;
        if (i < pool)
            table->stripe[i].undo[0] = (struct weir_undo){
                .cell = i * WEIR_BUCKET_CELLS, .was = table->cell[i * WEIR_BUCKET_CELLS]};
    }
    table->pool->was_head = table->pool->free_head;
    table->pool->was_count = table->pool->free_count;
    table->pool->was[0] = (struct weir_link){5, table->line[5].next};
    coordinator->txn = 1000;
}

static inline void damaged_make(struct damaged *damaged) {
    struct weir_table *table;
    struct weir_verdict verdict;
    snprintf(damaged->path, sizeof damaged->path, "/dev/shm/weir-damaged-%d", (int)getpid());
    snprintf(damaged->uri, sizeof damaged->uri, "file://%s", damaged->path);
    unlink(damaged->path);
    char uri[120];
    snprintf(uri, sizeof uri, "%s?keys=64&hits=200&rules=4", damaged->uri);
    DAMAGED_MUST(weir_table_open(uri, &table, NULL) == 0);
    memset(table->header->secret, 7, sizeof table->header->secret);
    for (size_t i = 0; i < sizeof table->header->mix / sizeof table->header->mix[0]; i++)
        table->header->mix[i] = UINT64_C(0x9E3779B97F4A7C15) * (2 * i + 1);
    table->header->checksum = weir_checksum(table->header);
    for (int i = 0; i < DAMAGED_LIMITS / 2; i++)
        DAMAGED_MUST(weir_stats_label(table, &"label"[i], 5 - (size_t)i) == i + 1);
    for (int i = 0; i < DAMAGED_LIMITS; i++) {
        damaged->limit[i] = (struct weir_limit){.amount = i == 5 ? 450 : 40,
                                                .period_ns = DAMAGED_DAY,
                                                .multiples = 1,
                                                .unit = WEIR_DAY,
                                                .strategy = i == 5 ? WEIR_MOVING_WINDOW : i};
        DAMAGED_MUST(weir_stats_register(table, &damaged->limit[i], "before", 6, "after", 5) == 0);
        struct weir_check check = damaged_check(damaged, i, 1);
        for (int hits = 0; hits < (i == 5 ? 400 : 45); hits++)
            DAMAGED_MUST(weir_decide(table, &check, 1, DAMAGED_NOW + hits * DAMAGED_SECOND,
                                     WEIR_HIT, &verdict, NULL) == 0);
    }
    DAMAGED_MUST(weir_table_check(table, NULL) == 0);
    damaged_leave_records(table);
    damaged->size = table->bytes;
    damaged->base = malloc(damaged->size);
    DAMAGED_MUST(damaged->base);
    memcpy(damaged->base, table->header, damaged->size);
    weir_table_close(table);
    unlink(damaged->path);
}

static inline void damaged_free(struct damaged *damaged) {
    unlink(damaged->path);
    free(damaged->base);
}

static inline void damaged_see(int rc, const struct weir_verdict *verdict,
                               const struct weir_limit *limit) {
    DAMAGED_MUST(rc == 0 || rc == WEIR_EFULL || rc == WEIR_ECORRUPT);
    if (rc < 0)
        return;
    DAMAGED_MUST(verdict->allowed == 0 || verdict->allowed == 1);
    DAMAGED_MUST(verdict->limit == limit->amount);
    DAMAGED_MUST(verdict->remaining >= 0 && verdict->remaining <= limit->amount);
    DAMAGED_MUST(verdict->reset_at_ns >= 0);
    DAMAGED_MUST(verdict->retry_after_ns >= 0 &&
                 (verdict->allowed == (verdict->retry_after_ns == 0)));
    DAMAGED_MUST(verdict->delay_ns >= 0);
}

static inline int damaged_ends(const char *text, size_t size) {
    return memchr(text, '\0', size) != NULL;
}

/* Reads the statistics, and writes to them. */
static inline void damaged_read(const struct damaged *damaged, struct weir_table *table) {
    static struct weir_stats_counts counts[WEIR_STATS_LABELS];
    static struct weir_top_client top[64];
    static struct weir_registered_limit registered[64];
    size_t n = WEIR_STATS_LABELS;
    DAMAGED_MUST(weir_stats_counts(table, counts, &n) == 0);
    for (size_t i = 0; i < n; i++)
        DAMAGED_MUST(damaged_ends(counts[i].label, sizeof counts[i].label));
    for (int by = WEIR_BY_DENIED; by <= WEIR_BY_ALLOWED; by++) {
        n = 64;
        DAMAGED_MUST(weir_stats_top_clients(table, (enum weir_top_by)by, 0, top, &n) == 0);
        for (size_t i = 0; i < n; i++)
            DAMAGED_MUST(damaged_ends(top[i].client, sizeof top[i].client) &&
                         damaged_ends(top[i].label, sizeof top[i].label));
    }
    n = 64;
    DAMAGED_MUST(weir_stats_registry(table, registered, &n) == 0 && n <= 64);
    for (size_t i = 0; i < n; i++)
        DAMAGED_MUST(registered[i].before_len + registered[i].after_len <= WEIR_REGISTERED_MAX &&
                     weir_limit_validate(&registered[i].limit, NULL) == 0);
    int label = weir_stats_label(table, "new", 3);
    DAMAGED_MUST(label > 0 && label <= WEIR_STATS_LABELS);
    int rc = weir_stats_register(table, &damaged->limit[0], "new", 3, NULL, 0);
    DAMAGED_MUST(rc == 0 || rc == WEIR_ETOOMANY);
}

/* Calls all functions for all limits and clients. */
static inline void damaged_use(const struct damaged *damaged, struct weir_table *table) {
    static const int64_t times[] = {DAMAGED_NOW + 400 * DAMAGED_SECOND,
                                    DAMAGED_NOW + 401 * DAMAGED_SECOND,
                                    DAMAGED_NOW + 200 * DAMAGED_SECOND, /* the clock steps back */
                                    0,
                                    DAMAGED_NOW + DAMAGED_DAY + 300 * DAMAGED_SECOND,
                                    WEIR_NOW_MAX};
    static const int64_t costs[] = {1, 0, 40, INT64_MAX};
    static const enum weir_mode modes[] = {WEIR_TEST, WEIR_HIT, WEIR_EACH, WEIR_REFUND};
    struct weir_check checks[DAMAGED_LIMITS];
    struct weir_verdict verdicts[DAMAGED_LIMITS];
    struct weir_table_info info;
    for (size_t t = 0; t < sizeof times / sizeof times[0]; t++) {
        for (int i = 0; i < DAMAGED_LIMITS; i++) {
            enum weir_mode mode = modes[(t + (size_t)i) % 4];
            checks[i] = damaged_check(damaged, i, costs[t % 4]);
            damaged_see(weir_decide(table, &checks[i], 1, times[t], WEIR_TEST, verdicts, NULL),
                        verdicts, checks[i].limit);
            damaged_see(weir_decide(table, &checks[i], 1, times[t], mode, verdicts, NULL), verdicts,
                        checks[i].limit);
            checks[i].cost = 1;
        }
        int rc = weir_decide(table, checks, DAMAGED_LIMITS, times[t], modes[t % 4], verdicts, NULL);
        DAMAGED_MUST(rc == 0 || rc == WEIR_EFULL || rc == WEIR_ECORRUPT);
        DAMAGED_MUST(weir_table_info(table, times[t], &info) == 0);
    }
    damaged_read(damaged, table);
    for (int i = 0; i < 100; i++) { /* new clients, which evict others and are listed */
        char key[8];
        int len = snprintf(key, sizeof key, "%d", i);
        struct weir_check check = {.limit = &damaged->limit[i % DAMAGED_LIMITS],
                                   .key = key,
                                   .key_len = (size_t)len,
                                   .cost = 1,
                                   .client = key,
                                   .client_len = (size_t)len,
                                   .label = i % WEIR_STATS_LABELS + 1};
        damaged_see(weir_decide(table, &check, 1, DAMAGED_NOW, WEIR_HIT, verdicts, NULL), verdicts,
                    check.limit);
    }
}

/*
 * Whether the logs end at the same times as before. A log's newest time is its expires_ns less the
 * period. The table does not contain the period, so verification cannot check it, and a hit after a
 * wrong end breaks the log.
 */
static inline int damaged_keeps_ends(const struct damaged *damaged, struct weir_table *table) {
    const struct weir_header *header = table->header;
    const unsigned char *base = damaged->base + header->cells_at;
    for (uint64_t i = 0; i < header->keys; i++) {
        struct weir_cell was;
        memcpy(&was, base + i * sizeof was, sizeof was);
        const struct weir_cell *is = &table->cell[i];
        if (weir_owns_lines(&is->state) && is->state.expires_ns != was.state.expires_ns)
            return 0;
    }
    return 1;
}

/*
 * Loads the bytes as a private table (saved.h): it is refused, or passes verification. Returns
 * whether it was loaded.
 */
static inline int damaged_load(const struct damaged *damaged, const unsigned char *bytes) {
    struct weir_table *table;
    struct weir_error error = {.message = ""};
    int rc = weir_table_load(bytes, damaged->size, &table, &error);
    if (rc < 0) {
        DAMAGED_MUST(rc == WEIR_EFORMAT || rc == WEIR_EVERSION);
        DAMAGED_MUST(strstr(error.message, "saved table") && !table);
        return 0;
    }
    DAMAGED_MUST(weir_table_check(table, &error) == 0);
    struct weir_check check = damaged_check(damaged, 0, 1);
    struct weir_verdict verdict;
    damaged_see(weir_decide(table, &check, 1, DAMAGED_NOW, WEIR_HIT, &verdict, NULL), &verdict,
                check.limit);
    weir_table_close(table);
    return 1;
}

/*
 * Writes `bytes` into the file, opens it and uses it. With `live`, these are written over the table
 * while it is open, so they are not verified. Returns whether the table was opened.
 */
static inline int damaged_try(const struct damaged *damaged, const unsigned char *bytes, int live) {
    struct weir_table *table;
    struct weir_error error = {.message = ""};
    int fd = open(damaged->path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    DAMAGED_MUST(fd >= 0);
    DAMAGED_MUST(write(fd, live ? damaged->base : bytes, damaged->size) == (ssize_t)damaged->size);
    close(fd);
    int rc = weir_table_open(damaged->uri, &table, &error);
    DAMAGED_MUST(live || damaged_load(damaged, bytes) == (rc == 0));
    if (rc < 0) {
        DAMAGED_MUST(!live);
        DAMAGED_MUST(rc == WEIR_EFORMAT || rc == WEIR_EVERSION);
        DAMAGED_MUST(strstr(error.message, damaged->uri));
        return 0;
    }
    if (live) /* but for the rules, whose lock is between the two */
        memcpy(table->stats, bytes + table->header->stats_at,
               table->header->rules_at - table->header->stats_at);
    if (live)
        memcpy(table->cell, bytes + table->header->cells_at,
               damaged->size - table->header->cells_at);
    int verified = weir_table_check(table, &error);
    DAMAGED_MUST(verified == 0 || (live && verified == WEIR_ECORRUPT));
    if (verified == 0 && !damaged_keeps_ends(damaged, table))
        verified = WEIR_ECORRUPT;
    damaged_use(damaged, table);
    rc = weir_table_check(table, &error);
    if (rc < 0 && verified == 0)
        fprintf(stderr, "%s\n", error.message);
    DAMAGED_MUST(rc == 0 || verified < 0); /* a table that passed verification still does */
    struct weir_check checks[DAMAGED_LIMITS];
    for (int i = 0; i < DAMAGED_LIMITS; i++)
        checks[i] = damaged_check(damaged, i, 1);
    rc = weir_clear(table, checks, DAMAGED_LIMITS);
    DAMAGED_MUST(rc == 0 || (verified < 0 && (rc == WEIR_ECORRUPT || rc == WEIR_EFULL)));
    rc = weir_table_reset(table);
    DAMAGED_MUST(rc == 0 || (verified < 0 && (rc == WEIR_ECORRUPT || rc == WEIR_EFULL)));
    rc = weir_table_check(table, &error);
    DAMAGED_MUST(rc == 0 || verified < 0);
    weir_table_close(table);
    return 1;
}

#endif
