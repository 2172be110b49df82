/*
 * The cost of rules about clients.
 *
 * First without rules: the same decision (fixed window, hot key) of a check with a client and of
 * one without, in turn. Then only the look-up, from the client's text to its rule: 10, 1,000 and
 * 100,000 rules; ranges of IPv4 and IPv6 with random prefixes (12 to 32 and 32 to 128) in 2000::/3,
 * or names; clients with a rule ("hit") and random ones ("miss"; some IPv4 addresses hit by
 * chance). 16,384 different texts are used in turn, so that caches are as cold as on a busy server.
 *
 * Numbers are medians over chunks of 1,024, followed by the lowest decile; the machine may be
 * shared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rules/rules.h"

#define NOW_NS INT64_C(1800000000000000000)
#define TEXTS 16384
#define CHUNK 1024
#define ROUNDS 12
#define CHUNKS (TEXTS / CHUNK * ROUNDS)
#define DECISIONS 200000
#define PAIRS 15

enum kind { IPV4, IPV6, NAMES };

static const char *const kind_names[] = {"IPv4", "IPv6", "names"};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static uint64_t next_random(void) {
    static uint64_t state = UINT64_C(88172645463325252);
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct weir_table *open_table(void) {
    struct weir_table *table;
    struct weir_error error;
    if (weir_table_open("memory://?keys=4096&rules=100000", &table, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    return table;
}

/* ------------------------------------------------------------------------------------ look-ups */

struct text {
    char bytes[60];
    uint32_t len;
};

static struct weir_range random_range(enum kind kind, uint32_t prefix) {
    struct weir_range range = {.family = kind == IPV4 ? WEIR_FAMILY_4 : WEIR_FAMILY_6,
                               .prefix = (uint8_t)prefix};
    uint32_t bits = kind == IPV4 ? 32 : 128;
    unsigned __int128 value = (unsigned __int128)next_random() << 64 | next_random();
    value = kind == IPV4 ? (uint32_t)value : (value >> 3) | (unsigned __int128)1 << 125;
    value = value >> (bits - prefix) << (bits - prefix);
    range.first = (struct weir_address){(uint64_t)(value >> 64), (uint64_t)value};
    return range;
}

static void random_rule(enum kind kind, struct weir_rule *rule) {
    uint32_t least = kind == IPV4 ? 12 : 32, most = kind == IPV4 ? 32 : 128;
    struct weir_range range =
        random_range(kind, least + (uint32_t)(next_random() % (most - least + 1)));
    rule->kind = WEIR_RULE_BLOCK;
    rule->client_len = kind == NAMES
                           ? (uint32_t)snprintf(rule->client, sizeof rule->client, "user-%016llx",
                                                (unsigned long long)next_random())
                           : (uint32_t)weir_range_print(&range, rule->client, sizeof rule->client);
}

/* A client to which the rule applies, or (NULL) any client. */
static void random_text(enum kind kind, const struct weir_rule *rule, struct text *text) {
    struct weir_range range = random_range(kind, kind == IPV4 ? 32 : 128);
    if (kind == NAMES) {
        text->len = rule ? rule->client_len
                         : (uint32_t)snprintf(text->bytes, sizeof text->bytes, "user-%016llx",
                                              (unsigned long long)next_random());
        if (rule)
            memcpy(text->bytes, rule->client, rule->client_len);
        return;
    }
    if (rule) {
        struct weir_range of;
        weir_range_parse(rule->client, rule->client_len, &of, NULL);
        struct weir_address last = weir_range_last(&of);
        range.first.high = of.first.high | (range.first.high & (last.high ^ of.first.high));
        range.first.low = of.first.low | (range.first.low & (last.low ^ of.first.low));
    }
    text->len = (uint32_t)weir_range_print(&range, text->bytes, sizeof text->bytes);
}

static void measure(struct weir_table *table, enum kind kind, size_t count, bool hit, bool ends,
                    const struct weir_rule *rules) {
    static struct text text[TEXTS];
    static double cost[CHUNKS];
    size_t found = 0, chunks = 0;
    for (int i = 0; i < TEXTS; i++)
        random_text(kind, hit ? &rules[next_random() % count] : NULL, &text[i]);
    for (int round = 0; round < ROUNDS; round++)
        for (int from = 0; from < TEXTS; from += CHUNK) {
            double began = now();
            for (int i = from; i < from + CHUNK; i++) {
                /* In a server, the text was just written and is in the cache. */
                __builtin_prefetch(&text[(i + 16) % TEXTS]);
                found +=
                    weir_rules_match_client(table, text[i].bytes, text[i].len, NOW_NS).kind != 0;
            }
            cost[chunks++] = (now() - began) / CHUNK;
        }
    qsort(cost, chunks, sizeof cost[0], by_value);
    printf("  %7zu %-5s %-12s %-5s %8.1f ns      (%.1f; %2.0f %% found)\n", count, kind_names[kind],
           ends ? "for an hour" : "forever", hit ? "hit" : "miss", cost[chunks / 2],
           cost[chunks / 10], 100.0 * (double)found / (TEXTS * ROUNDS));
}

static void bench_lookup(enum kind kind, size_t count, bool ends) {
    struct weir_table *table = open_table();
    struct weir_rule *rules = calloc(count, sizeof *rules);
    struct weir_error error;
    if (!rules)
        exit(1);
    for (size_t i = 0; i < count; i++) {
        random_rule(kind, &rules[i]);
        rules[i].until_ns = ends ? NOW_NS + INT64_C(3600000000000) : WEIR_NEVER;
    }
    double began = now();
    if (weir_rules_load(table, rules, count, NOW_NS, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    double loaded = now();
    weir_rules_set(table, "192.0.2.1", 9, WEIR_RULE_BLOCK, NOW_NS, WEIR_NEVER, NULL);
    double set = now();
    for (int hit = 1; hit >= 0; hit--)
        measure(table, kind, count, hit, ends, rules);
    if (count >= 100000)
        printf("          (all loaded in %.1f ms, one more set in %.1f ms)\n",
               (loaded - began) / 1e6, (set - loaded) / 1e6);
    free(rules);
    weir_table_close(table);
}

/* ----------------------------------------------------------------------------------- when empty */

static double decide(struct weir_table *table, const struct weir_check *check) {
    struct weir_verdict verdict;
    double began = now();
    for (int i = 0; i < DECISIONS; i++)
        if (weir_decide(table, check, 1, NOW_NS, WEIR_HIT, &verdict, NULL) < 0)
            exit(1);
    return (now() - began) / DECISIONS;
}

static void compare(struct weir_table *table, const char *what) {
    struct weir_limit limit;
    double with[PAIRS], without[PAIRS];
    weir_limit_init(&limit, INT64_MAX, 1, WEIR_MINUTE, NULL);
    struct weir_check without_client = {
        .limit = &limit, .key = "LIMITER/10.20.30.40/view/", .key_len = 25, .cost = 1};
    struct weir_check with_client = without_client;
    with_client.client = (const char *)with_client.key + 8;
    with_client.client_len = 11;
    for (int i = 0; i < PAIRS; i++) {
        without[i] = decide(table, &without_client);
        with[i] = decide(table, &with_client);
    }
    qsort(with, PAIRS, sizeof with[0], by_value);
    qsort(without, PAIRS, sizeof without[0], by_value);
    printf("  %-45s %6.1f ns without a client, %6.1f ns with one (lowest %.1f, %.1f)\n", what,
           without[PAIRS / 2], with[PAIRS / 2], without[0], with[0]);
}

int main(void) {
    struct weir_table *table = open_table();
    printf("a decision, one fixed window, hot key\n");
    compare(table, "no rule");
    weir_rules_set(table, "10.0.0.0/8", 10, WEIR_RULE_BLOCK, NOW_NS - 2, NOW_NS - 1, NULL);
    compare(table, "one rule, which has expired");
    weir_rules_set(table, "192.0.2.0/24", 12, WEIR_RULE_BLOCK, NOW_NS, WEIR_NEVER, NULL);
    compare(table, "one rule, about others");
    weir_table_close(table);
    printf("\nfrom a client's text to its rule: median (lowest decile)\n");
    static const size_t counts[] = {10, 1000, 100000};
    for (int kind = IPV4; kind <= NAMES; kind++)
        for (int i = 0; i < 3; i++)
            bench_lookup((enum kind)kind, counts[i], false);
    bench_lookup(IPV4, 100000, true);
    bench_lookup(IPV6, 100000, true);
    return 0;
}
