/*
 * The board: counters by label, and the catalogue of limits. Its third part, the heaviest clients, is heavy.c.
 *
 * Counters. Each stripe has its own, so a decision counts under the lock that it holds anyway; who reads adds
 * up all stripes.
 *
 * Labels and the catalogue only ever grow, under the first stripe's lock: text first, then the number of how
 * many there are, so that who finds a label or a limit there takes no lock.
 */
#include "checks.h"
#include "stats/stats_layout.h"

#include <string.h>

#include "error.h"

#define NAMED (WEIR_BOARD_LABELS - 1u)

size_t weir_board_bytes(uint32_t stripes, uint32_t described) {
    return sizeof(struct weir_board) + stripes * sizeof(struct weir_board_stripe) +
           described * sizeof(struct weir_described);
}

void weir_board_init(struct weir_table *table) {
    memcpy(table->board->label[NAMED], "other", 6);
}

/* How many are there, and no more than there can be, should the number be damaged. */
static uint32_t count_of(const _Atomic uint32_t *count, uint32_t max) {
    uint32_t number = atomic_load_explicit(count, memory_order_acquire);
    return number < max ? number : max;
}

/* ------------------------------------------------------------------------------- counters by label */

static uint32_t find_label(const struct weir_board *board, uint32_t labels, const char *text,
                           size_t len) {
    uint32_t i = 0;
    while (i < labels && (memcmp(board->label[i], text, len) != 0 || board->label[i][len] != '\0'))
        i++;
    return i;
}

int weir_board_label(struct weir_table *table, const char *text, size_t len) {
    if (!table || !text || len == 0 || len > WEIR_LABEL_MAX || memchr(text, '\0', len))
        return WEIR_EINVAL;
    struct weir_board *board = table->board;
    uint32_t labels = count_of(&board->labels, NAMED);
    uint32_t found = find_label(board, labels, text, len);
    if (found < labels || labels == NAMED || (len == 5 && !memcmp(text, "other", 5)))
        return found < labels ? (int)found + 1 : (int)WEIR_BOARD_LABELS;
    int rc = weir_board_ready(table);
    if (rc == 0)
        rc = weir_lock_take(table, 0);
    if (rc < 0)
        return rc;
    labels = count_of(&board->labels, NAMED); /* others may have been faster */
    found = find_label(board, labels, text, len);
    if (found == labels && labels < NAMED) {
        memset(board->label[labels], 0, sizeof board->label[labels]);
        memcpy(board->label[labels], text, len);
        atomic_store_explicit(&board->labels, labels + 1, memory_order_release);
    }
    weir_lock_release(table, 0);
    return (int)found + 1; /* NAMED + 1 is "other" */
}

/* The text of a label by its number; "" for none. */
void weir_label_copy(const struct weir_table *table, uint32_t label,
                     char text[WEIR_LABEL_MAX + 1]) {
    text[0] = '\0';
    if (label - 1 < WEIR_BOARD_LABELS)
        memcpy(text, table->board->label[label - 1], WEIR_LABEL_MAX + 1);
    text[WEIR_LABEL_MAX] = '\0';
}

static int sum_up(struct weir_table *table, uint64_t sum[WEIR_BOARD_LABELS][4]) {
    for (uint32_t stripe = 0; stripe <= table->stripe_mask; stripe++) {
        int rc = weir_lock_take(table, stripe);
        if (rc < 0)
            return rc;
        const struct weir_board_stripe *board = &table->board->stripe[stripe];
        for (uint32_t i = 0; i < WEIR_BOARD_LABELS; i++)
            for (int j = 0; j < 4; j++)
                sum[i][j] += board->count[i][j];
        weir_lock_release(table, stripe);
    }
    return 0;
}

int weir_board_counts(struct weir_table *table, struct weir_board_counts *counts, size_t *n) {
    if (!table || !n || (!counts && *n > 0))
        return WEIR_EINVAL;
    uint64_t sum[WEIR_BOARD_LABELS][4] = {{0}};
    uint32_t labels = count_of(&table->board->labels, NAMED);
    int rc = weir_board_ready(table);
    if (rc == 0)
        rc = sum_up(table, sum);
    if (rc < 0)
        return rc;
    const uint64_t *others = sum[NAMED];
    uint32_t total = labels + ((others[0] | others[1] | others[2] | others[3]) != 0);
    if (total > *n)
        return WEIR_ETOOMANY;
    for (uint32_t i = 0; i < total; i++) {
        uint32_t from = i < labels ? i : NAMED;
        weir_label_copy(table, from + 1, counts[i].label);
        counts[i].allowed = sum[from][WEIR_COUNT_ALLOWED];
        counts[i].denied = sum[from][WEIR_COUNT_DENIED];
        counts[i].near_limit = sum[from][WEIR_COUNT_NEAR];
        counts[i].shadow = sum[from][WEIR_COUNT_SHADOW];
    }
    *n = total;
    return 0;
}

/* ---------------------------------------------------------------------------------------- catalogue */

static uint32_t find_described(const struct weir_described *there, uint32_t count,
                               const struct weir_described *wanted) {
    uint32_t i = 0;
    while (i < count && memcmp(&there[i], wanted, sizeof *wanted) != 0)
        i++;
    return i;
}

int weir_board_describe(struct weir_table *table, const struct weir_limit *limit,
                        const void *before, size_t before_len, const void *after,
                        size_t after_len) {
    if (!table || !limit || weir_limit_validate(limit, NULL) < 0 || (!before && before_len > 0) ||
        (!after && after_len > 0) || before_len > WEIR_DESCRIBED_MAX ||
        after_len > WEIR_DESCRIBED_MAX - before_len)
        return WEIR_EINVAL;
    if (limit->zone) /* borrowed from this process: another could not say what it is */
        return 0;
    struct weir_described wanted = {
        .limit = *limit, .before_len = (uint32_t)before_len, .after_len = (uint32_t)after_len};
    if (before_len > 0)
        memcpy(wanted.text, before, before_len);
    if (after_len > 0)
        memcpy(wanted.text + before_len, after, after_len);
    struct weir_described *there = weir_board_described(table);
    _Atomic uint32_t *described = &table->board->described;
    uint32_t count = count_of(described, table->header->described);
    if (find_described(there, count, &wanted) < count)
        return 0;
    int rc = weir_board_ready(table);
    if (rc == 0)
        rc = weir_lock_take(table, 0);
    if (rc < 0)
        return rc;
    count = count_of(described, table->header->described);
    if (find_described(there, count, &wanted) < count) {
        rc = 0;
    } else if (count == table->header->described) {
        rc = WEIR_ETOOMANY;
    } else {
        there[count] = wanted;
        atomic_store_explicit(described, count + 1, memory_order_release);
    }
    weir_lock_release(table, 0);
    return rc;
}

/* Whether a part of the catalogue can be what it says. */
static bool is_sound(const struct weir_described *described) {
    return described->before_len <= WEIR_DESCRIBED_MAX &&
           described->after_len <= WEIR_DESCRIBED_MAX - described->before_len &&
           !described->limit.zone && weir_limit_validate(&described->limit, NULL) == 0;
}

int weir_board_catalogue(struct weir_table *table, struct weir_described *described, size_t *n) {
    if (!table || !n || (!described && *n > 0))
        return WEIR_EINVAL;
    const struct weir_described *there = weir_board_described(table);
    uint32_t count = count_of(&table->board->described, table->header->described);
    size_t room = *n, written = 0;
    for (uint32_t i = 0; i < count && written < room; i++) {
        described[written] = there[i];
        written += is_sound(&described[written]);
    }
    *n = described ? written : count;
    return 0;
}

/* ----------------------------------------------------------------------- decisions made elsewhere */

int weir_board_note_one(struct weir_table *table, struct weir_heavy_hit *hit,
                        const struct weir_verdict *verdict) {
    int rc = weir_lock_take(table, hit->stripe);
    if (rc < 0)
        return rc;
    uint64_t *count = table->board->stripe[hit->stripe].count[hit->label - 1];
    /* There may be no cell that knows its place in the list, so it is looked for each time. */
    hit->cell = weir_cell_find(table, hit->fingerprint);
    count[hit->allowed ? WEIR_COUNT_ALLOWED : WEIR_COUNT_DENIED]++;
    count[WEIR_COUNT_NEAR] +=
        hit->allowed && (uint64_t)verdict->remaining <= (uint64_t)verdict->limit / 5;
    if (hit->client_len > 0)
        weir_heavy_find(table, hit);
    weir_lock_release(table, hit->stripe);
    return 0;
}

static int note_shadow(struct weir_table *table, uint32_t stripe, int32_t label) {
    int rc = weir_lock_take(table, stripe);
    if (rc < 0)
        return rc;
    table->board->stripe[stripe].count[label - 1][WEIR_COUNT_SHADOW]++;
    weir_lock_release(table, stripe);
    return 0;
}

static int note(struct weir_table *table, const struct weir_check *check,
                const struct weir_verdict *verdict, int64_t now_ns, bool shadow) {
    uint64_t fingerprint[2];
    weir_fingerprint(table, check->key, check->key_len, check->limit, fingerprint);
    uint32_t stripe = weir_cell_stripe(table, fingerprint);
    struct weir_heavy_hit hit = {.client = check->client,
                                 .client_len = check->client_len,
                                 .label = (uint32_t)check->label,
                                 .fingerprint = fingerprint,
                                 .stripe = stripe,
                                 .allowed = verdict->allowed,
                                 .now_ns = now_ns};
    return shadow ? note_shadow(table, stripe, check->label)
                  : weir_board_note_one(table, &hit, verdict);
}

int weir_board_note(struct weir_table *table, const struct weir_check *checks, size_t n,
                    int64_t now_ns, const struct weir_verdict *verdicts, int shadow) {
    int rc = table ? weir_checks_validate(checks, n) : WEIR_EINVAL;
    if (rc == 0 && (!verdicts || now_ns < 0 || now_ns > WEIR_NOW_MAX))
        rc = WEIR_EINVAL;
    if (rc == 0)
        rc = weir_board_ready(table);
    bool denied = shadow;
    for (size_t i = 0; i < n && rc == 0; i++)
        denied |= !verdicts[i].allowed;
    for (size_t i = 0; i < n && rc == 0; i++)
        if (checks[i].label != 0 &&
            !(verdicts[i].allowed && (denied || checks[i].flags & WEIR_CHECK_LOOK)))
            rc = note(table, &checks[i], &verdicts[i], now_ns, shadow);
    return rc;
}

/* -------------------------------------------------------------------------------------- integrity */

static int corrupt(struct weir_error *error, const char *what, uint64_t where) {
    return weir_fail(error, WEIR_ECORRUPT, 0, "%s (at %llu)", what, (unsigned long long)where);
}

int weir_board_check(struct weir_table *table, struct weir_error *error) {
    const struct weir_board *board = table->board;
    uint32_t labels = atomic_load(&board->labels), described = atomic_load(&board->described);
    if (labels > NAMED || described > table->header->described)
        return corrupt(error, "the board has more than there is room for", labels);
    for (uint32_t i = 0; i < WEIR_BOARD_LABELS; i++)
        if ((i < labels || i == NAMED) && !memchr(board->label[i], '\0', sizeof board->label[i]))
            return corrupt(error, "a label has no end", i);
    for (uint32_t i = 0; i < described; i++)
        if (!is_sound(&weir_board_described(table)[i]))
            return corrupt(error, "a limit in the catalogue is none", i);
    for (uint32_t stripe = 0; stripe <= table->stripe_mask; stripe++) {
        int rc = weir_heavy_check(table, stripe, error);
        if (rc < 0)
            return rc;
    }
    return 0;
}
