/*
 * Two lists of rules. A mixture of them is always detected: each client's rule ends at different
 * times in the two lists, and the lists have different rules, so that numbers, segments and slots
 * of one do not match the other.
 */
#ifndef WEIR_TESTS_RULE_LISTS_H
#define WEIR_TESTS_RULE_LISTS_H

#include "support.h"

#include "rules/rules.h"

#define LIST_RULES 300
#define LIST_PROBES 40

struct rule_list {
    struct weir_rule rule[LIST_RULES];
    size_t count;
};

static inline void list_add(struct rule_list *list, int kind, int64_t until_ns, const char *format,
                            unsigned number) {
    struct weir_rule *rule = &list->rule[list->count++];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    rule->client_len = (uint32_t)snprintf(rule->client, sizeof rule->client, format, number);
#pragma GCC diagnostic pop
    rule->kind = kind;
    rule->until_ns = until_ns;
}

/* List 0 blocks all tested clients, list 1 allows them. */
static inline void make_list(struct rule_list *list, int which) {
    int kind = which ? WEIR_RULE_ALLOW : WEIR_RULE_BLOCK;
    list->count = 0;
    for (unsigned i = 0; i < LIST_PROBES; i++) {
        int64_t until_ns = NOW + DAY * (which + 1) + i;
        list_add(list, kind, until_ns,
                 i % 3 == 0   ? "10.%u.0.0/16"
                 : i % 3 == 1 ? "2001:db8:%x::/48"
                              : "user-%u",
                 i);
    }
    /* before, between and after them */
    for (unsigned i = 0; which && i < LIST_RULES - LIST_PROBES; i++)
        list_add(list, WEIR_RULE_BLOCK, WEIR_NEVER, i % 2 ? "9.0.%u.0/24" : "2001:db7:%x::/48",
                 i % 256);
}

/* A client that has a rule in both lists. */
static inline size_t probe_text(unsigned i, char *text, size_t size) {
    return (size_t)(i % 3 == 0   ? snprintf(text, size, "10.%u.7.9", i)
                    : i % 3 == 1 ? snprintf(text, size, "2001:db8:%x::1", i)
                                 : snprintf(text, size, "user-%u", i));
}

/* Which list a reader finds, from the rule of one client: 0 or 1; -1: neither. */
static inline int list_found(struct weir_table *table, unsigned probe) {
    char text[64];
    size_t len = probe_text(probe, text, sizeof text);
    struct weir_rule_match match = weir_rules_match_client(table, text, len, NOW);
    if (match.kind == WEIR_RULE_BLOCK && match.until_ns == NOW + DAY + probe)
        return 0;
    return match.kind == WEIR_RULE_ALLOW && match.until_ns == NOW + 2 * DAY + probe ? 1 : -1;
}

/* The list that a table has; fails unless it is exactly one of the two. */
static inline int list_held(struct weir_table *table) {
    int which = list_found(table, 0);
    size_t n = 0;
    check_sound(table);
    assert_int_equal(weir_rules_list(table, NULL, &n), 0);
    for (unsigned i = 0; i < LIST_PROBES; i++)
        if (list_found(table, i) != which || which < 0)
            fail_msg("WEIR_SEED=%" PRIu64 ": client %u is from list %d, the first from list %d",
                     seed, i, list_found(table, i), which);
    struct rule_list list;
    make_list(&list, which);
    size_t distinct = which ? LIST_PROBES + 256 : LIST_PROBES;
    if (n != distinct)
        fail_msg("WEIR_SEED=%" PRIu64 ": list %d has %zu rules", seed, which, n);
    return which;
}

#endif
