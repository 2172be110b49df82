/*
 * The heavy hitters of a table: the clients with the most requests.
 *
 * Each stripe runs Space-Saving (Metwally, Agrawal, El Abbadi, 2005) on the fingerprints of
 * counters: a client that is not listed replaces the entry with the lowest score, and starts with
 * that score plus its own. Three differences:
 *
 *  - the replaced score is kept separately (`error`), so the counts of a client are true hits;
 *  - a denied hit has the weight 16, and scores are halved every ten minutes, so clients that are
 *    being denied replace clients that are within their limits, and old ones;
 *  - once the list is full, allowed hits of clients that are not listed are sampled: one in 64 on
 *    average, with the weight 64. Denied hits are never sampled.
 *
 * Cost: the cell of a listed client has the number of its entry, so a hit needs one more cache
 * line. For other clients, an allowed hit decrements a counter; a sampled or denied hit searches 32
 * tags and, if it gets an entry, 32 scores.
 *
 * Invariants: a fingerprint occurs once, in the list of its stripe; a tag is the low half of the
 * fingerprint of its entry. If a process is killed while it writes an entry, that entry has no
 * fingerprint and counts as empty.
 */
#include <stdlib.h>
#include <string.h>

#include "rules/address.h"
#include "stats/stats.h"
#include "table/cell.h"
#include "table/hash.h"
#include "error.h"

#define HALF_LIFE_NS INT64_C(600000000000)
#define HALVINGS 8
#define SAMPLE 64u /* one in SAMPLE allowed hits of unlisted clients is sampled, on average */

/* ----------------------------------------------------------------------------- names of clients */

/* Writes an address or a network in its usual form; false if the client is neither. */
static bool print_address(const char *client, size_t len, char text[WEIR_CLIENT_NAME_SIZE]) {
    _Static_assert(WEIR_CLIENT_NAME_SIZE >= WEIR_RANGE_TEXT, "room for a network");
    struct weir_range range;
    if (weir_client_range(client, len, &range) == WEIR_FAMILY_NONE)
        return false;
    weir_range_print(&range, text, WEIR_CLIENT_NAME_SIZE);
    return true;
}

static void name_client(const struct weir_table *table, const char *client, size_t len,
                        char name[WEIR_CLIENT_NAME_SIZE]) {
    static const char digits[] = "0123456789abcdef";
    if (print_address(client, len, name))
        return;
    bool reveal = atomic_load_explicit(&table->reveal, memory_order_relaxed) &&
                  len < WEIR_CLIENT_NAME_SIZE && !memchr(client, '\0', len);
    if (reveal) {
        memcpy(name, client, len);
        name[len] = '\0';
        return;
    }
    uint64_t hash = weir_client_hash(table, client, len);
    name[0] = '#';
    for (int i = 0; i < 16; i++)
        name[1 + i] = digits[hash >> (60 - 4 * i) & 15];
    name[17] = '\0';
}

int weir_stats_reveal(struct weir_table *table, int reveal) {
    return table ? atomic_exchange(&table->reveal, reveal != 0) : WEIR_EINVAL;
}

int weir_stats_client_name(struct weir_table *table, const void *client, size_t client_len,
                           char name[WEIR_CLIENT_NAME_SIZE]) {
    if (!table || !client || client_len == 0 || client_len > WEIR_KEY_MAX || !name)
        return WEIR_EINVAL;
    name_client(table, client, client_len, name);
    return 0;
}

/* ---------------------------------------------------------------------------------- top clients */

/*
 * Scores decay, so old heavy hitters age out. Scores are halved at most HALVINGS times at once,
 * because a listed client may have made its hits recently.
 */
static void halve(struct weir_stats_stripe *stats, int64_t now_ns) {
    if (now_ns < stats->halve_ns && stats->halve_ns - now_ns <= HALF_LIFE_NS)
        return;
    uint64_t late_ns =
        (uint64_t)now_ns - (uint64_t)stats->halve_ns; /* halve_ns may be damaged, even negative */
    uint64_t times = now_ns < stats->halve_ns ? 0 : late_ns / HALF_LIFE_NS + 1;
    for (uint32_t i = 0; i < WEIR_HITTERS; i++)
        stats->score[i] >>= times < HALVINGS ? times : HALVINGS;
    stats->halve_ns = now_ns + HALF_LIFE_NS;
}

static uint32_t find_hitter(const struct weir_stats_stripe *stats, const uint64_t fingerprint[2]) {
    for (uint32_t i = 0; i < WEIR_HITTERS; i++)
        if (stats->tag[i] == (uint32_t)fingerprint[0] &&
            stats->entry[i].fingerprint[0] == fingerprint[0] &&
            stats->entry[i].fingerprint[1] == fingerprint[1])
            return i;
    return WEIR_HITTERS;
}

static uint32_t lowest(const struct weir_stats_stripe *stats) {
    uint32_t place = 0;
    for (uint32_t i = 1; i < WEIR_HITTERS; i++)
        if (stats->score[i] < stats->score[place])
            place = i;
    return place;
}

/* How many hits to skip before the next is sampled: SAMPLE - 1 on average. */
static uint32_t pass_over(struct weir_stats_stripe *stats) {
    stats->random = stats->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(stats->random >> 33) % (2 * SAMPLE - 1);
}

/* Gives the client an entry: a free one, or the one with the lowest score. */
static uint32_t enter(struct weir_table *table, struct weir_stats_stripe *stats,
                      const struct weir_stats_hit *hit) {
    bool full = stats->used >= WEIR_HITTERS;
    uint32_t place = full ? lowest(stats) : stats->used;
    struct weir_hitter *entry = &stats->entry[place];
    uint64_t score = full ? stats->score[place] : 0;
    volatile uint64_t *mark = &entry->fingerprint[0];
    *mark = 0;
    WEIR_ORDER();
    entry->fingerprint[1] = hit->fingerprint[1];
    entry->allowed = entry->denied = 0;
    entry->error = score;
    entry->label = hit->label;
    name_client(table, hit->client, hit->client_len, entry->name);
    stats->tag[place] = (uint32_t)hit->fingerprint[0];
    WEIR_ORDER();
    *mark = hit->fingerprint[0];
    stats->score[place] = score;
    if (full && hit->allowed) {
        stats->score[place] += SAMPLE - 1;
        stats->skip = pass_over(stats);
    } else if (!full) {
        stats->used++;
    }
    return place;
}

void weir_hitters_find(struct weir_table *table, const struct weir_stats_hit *hit) {
    struct weir_stats_stripe *stats = &table->stats->stripe[hit->stripe];
    if (hit->fingerprint[0] == 0)
        return; /* 0 marks an empty entry */
    halve(stats, hit->now_ns);
    uint32_t place = find_hitter(stats, hit->fingerprint);
    if (place == WEIR_HITTERS) {
        if (hit->allowed && stats->skip > 0) {
            stats->skip--;
            return;
        }
        place = enter(table, stats, hit);
    }
    weir_hitters_add(stats, place, hit->allowed, hit->now_ns);
    if (hit->cell != WEIR_CELL_NONE) {
        struct weir_cell *cell = &table->cell[hit->cell];
        if (cell->fingerprint[0] == hit->fingerprint[0] &&
            cell->fingerprint[1] == hit->fingerprint[1])
            cell->state.hitter = (uint8_t)(place + 1);
    }
}

/* Appends the entries of one stripe to list[count..]; returns the new count. */
static size_t gather(const struct weir_table *table, uint32_t stripe, enum weir_top_by by,
                     int label, struct weir_top_client *list, size_t count) {
    const struct weir_stats_stripe *stats = &table->stats->stripe[stripe];
    for (uint32_t i = 0; i < WEIR_HITTERS; i++) {
        const struct weir_hitter *entry = &stats->entry[i];
        if (entry->fingerprint[0] == 0 || (label != 0 && entry->label != (uint32_t)label) ||
            (by == WEIR_BY_DENIED ? entry->denied : entry->allowed) == 0)
            continue;
        struct weir_top_client *top = &list[count++];
        weir_label_copy(table, entry->label, top->label);
        memcpy(top->client, entry->name, sizeof top->client);
        top->client[sizeof top->client - 1] = '\0';
        top->allowed = entry->allowed;
        top->denied = entry->denied;
        top->error = by == WEIR_BY_DENIED ? entry->error / WEIR_HITTERS_DENIED +
                                                (entry->error % WEIR_HITTERS_DENIED > 0)
                                          : entry->error;
        top->last_ns = entry->last_ns;
    }
    return count;
}

static int by_name(const void *a, const void *b) {
    const struct weir_top_client *x = a, *y = b;
    int rc = strcmp(x->client, y->client);
    return rc ? rc : strcmp(x->label, y->label);
}

/* Higher counts first, then later hits, then by name, so that the order is deterministic. */
static int compare(uint64_t a, uint64_t b, const struct weir_top_client *x,
                   const struct weir_top_client *y) {
    if (a != b)
        return a < b ? 1 : -1;
    if (x->last_ns != y->last_ns)
        return x->last_ns < y->last_ns ? 1 : -1;
    return by_name(x, y);
}

static int by_denied(const void *a, const void *b) {
    const struct weir_top_client *x = a, *y = b;
    return compare(x->denied, y->denied, x, y);
}

static int by_allowed(const void *a, const void *b) {
    const struct weir_top_client *x = a, *y = b;
    return compare(x->allowed, y->allowed, x, y);
}

/* Merges the entries of a client that have the same label: it has one for each counter. */
static size_t merge(struct weir_top_client *list, size_t count) {
    size_t kept = 0;
    qsort(list, count, sizeof *list, by_name);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || by_name(&list[kept - 1], &list[i]) != 0) {
            list[kept++] = list[i];
            continue;
        }
        struct weir_top_client *into = &list[kept - 1];
        into->allowed += list[i].allowed;
        into->denied += list[i].denied;
        into->error += list[i].error;
        if (list[i].last_ns > into->last_ns)
            into->last_ns = list[i].last_ns;
    }
    return kept;
}

int weir_stats_top_clients(struct weir_table *table, enum weir_top_by by, int label,
                           struct weir_top_client *top, size_t *n) {
    if (!table || !n || (!top && *n > 0) || (unsigned)by > WEIR_BY_ALLOWED || label < 0 ||
        label > WEIR_STATS_LABELS)
        return WEIR_EINVAL;
    size_t room = ((size_t)table->stripe_mask + 1) * WEIR_HITTERS, count = 0;
    int rc = weir_stats_ready(table);
    struct weir_top_client *list = malloc(room * sizeof *list);
    if (!list)
        return WEIR_ENOMEM;
    for (uint32_t stripe = 0; stripe <= table->stripe_mask && rc == 0; stripe++) {
        rc = weir_lock_take(table, stripe);
        if (rc == 0) {
            count = gather(table, stripe, by, label, list, count);
            weir_lock_release(table, stripe);
        }
    }
    if (rc == 0) {
        count = merge(list, count);
        qsort(list, count, sizeof *list, by == WEIR_BY_DENIED ? by_denied : by_allowed);
        *n = count < *n ? count : *n;
        if (*n > 0)
            memcpy(top, list, *n * sizeof *list);
    }
    free(list);
    return weir_result(table, rc);
}

/* ------------------------------------------------------------------------------------ integrity */

static int corrupt(struct weir_error *error, const char *what, uint64_t where) {
    return weir_fail(error, WEIR_ECORRUPT, 0, "%s (at %llu)", what, (unsigned long long)where);
}

int weir_hitters_check(const struct weir_table *table, uint32_t stripe, struct weir_error *error) {
    const struct weir_stats_stripe *stats = &table->stats->stripe[stripe];
    if (stats->used > WEIR_HITTERS)
        return corrupt(error, "a list of clients is too long", stripe);
    for (uint32_t i = 0; i < WEIR_HITTERS; i++) {
        const struct weir_hitter *entry = &stats->entry[i];
        if (entry->fingerprint[0] == 0)
            continue;
        if (weir_cell_stripe(table, entry->fingerprint) != stripe ||
            find_hitter(stats, entry->fingerprint) != i)
            return corrupt(error, "a client is listed twice, or where it does not belong", stripe);
        if (entry->label - 1 >= WEIR_STATS_LABELS || !memchr(entry->name, '\0', sizeof entry->name))
            return corrupt(error, "a client is listed without label or name", stripe);
    }
    return 0;
}
