/*
 * Common parts of the tests of rules about clients.
 */
#ifndef WEIR_TESTS_RULES_SUPPORT_H
#define WEIR_TESTS_RULES_SUPPORT_H

#include "support.h"

#include "rules/rules.h"

static inline void set(struct weir_table *table, const char *client, int kind, int64_t now_ns,
                       int64_t until_ns) {
    struct weir_error error = {.message = "?"};
    if (weir_rules_set(table, client, strlen(client), kind, now_ns, until_ns, &error) < 0)
        fail_msg("WEIR_SEED=%" PRIu64 ": \"%s\": %s", seed, client, error.message);
}

static inline struct weir_check check_by(const struct weir_limit *limit, const char *client) {
    struct weir_check check = check_of(limit, client, 1);
    check.client = check.key;
    check.client_len = check.key_len;
    return check;
}

#endif
