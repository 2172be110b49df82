/*
 * Rules about clients.
 */
#include "rules.h"

#include <string.h>

#include "error.h"

size_t weir_rules_bytes(uint32_t capacity) {
    return (size_t)capacity * 320;
}

void weir_rules_init(void *section, uint32_t capacity) {
    (void)section;
    (void)capacity;
}

int weir_rules_repair(struct weir_table *table) {
    (void)table;
    return 0;
}

int weir_rules_check(struct weir_table *table, struct weir_error *error) {
    (void)table;
    (void)error;
    return 0;
}

int weir_rules_set(struct weir_table *table, const void *client, size_t len, int kind,
                   int64_t since_ns, int64_t until_ns, struct weir_error *error) {
    (void)client;
    (void)len;
    (void)kind;
    (void)since_ns;
    (void)until_ns;
    return weir_fail(error, table ? WEIR_ENOSPC : WEIR_EINVAL, 0, "no rules yet");
}

int weir_rules_load(struct weir_table *table, const struct weir_rule *rules, size_t count,
                    int64_t now_ns, struct weir_error *error) {
    (void)rules;
    (void)count;
    (void)now_ns;
    return weir_fail(error, table ? WEIR_ENOSPC : WEIR_EINVAL, 0, "no rules yet");
}

int weir_rules_remove(struct weir_table *table, const void *client, size_t len,
                      struct weir_error *error) {
    (void)client;
    (void)len;
    (void)error;
    return table ? 0 : WEIR_EINVAL;
}

int weir_rules_find(struct weir_table *table, const void *client, size_t len, int64_t now_ns,
                    struct weir_rule *rule) {
    (void)client;
    (void)len;
    (void)now_ns;
    (void)rule;
    return table ? WEIR_RULE_NONE : WEIR_EINVAL;
}

int weir_rules_list(struct weir_table *table, struct weir_rule *rules, size_t *n) {
    (void)rules;
    if (!table || !n)
        return WEIR_EINVAL;
    *n = 0;
    return 0;
}

uint64_t weir_rules_version(struct weir_table *table) {
    (void)table;
    return 0;
}

int weir_rules_judge(struct weir_table *table, const struct weir_check *checks, size_t n,
                     int64_t now_ns, struct weir_verdict *verdicts,
                     struct weir_decision *decision) {
    (void)n;
    (void)now_ns;
    (void)decision;
    return table && checks && verdicts ? 0 : WEIR_EINVAL;
}
