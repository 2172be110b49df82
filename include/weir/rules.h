/*
 * Rules about clients: who is blocked and who is let through, whatever the limits say. Exact clients and
 * ranges of IP addresses, until a moment or for good. They lie in the table's own mapping: a rule holds in
 * every process of the table at once.
 *
 *     weir_rules_set(table, "203.0.113.0/24", 14, WEIR_RULE_BLOCK, now_ns, now_ns + HOUR_NS, &error);
 *
 * Caveats first
 * -------------
 *  - The most specific rule wins: an exact client before ranges, a longer prefix before a shorter one. When
 *    it has expired, the next enclosing one holds.
 *  - A text that is an IP address is that address, however it is written; an IPv4 address mapped into IPv6 is
 *    the IPv4 address. 10.0.0.1 and 10.0.0.1/32 are the same.
 *  - "#" and 16 hexadecimal digits name the client that weir_board_name() shows so.
 *  - weir_decide() asks for the rule of each check's `client`. A blocked client is denied and charged nothing
 *    (remaining 0, retry_after_ns until the rule ends, or WEIR_NEVER); one that is let through is allowed and
 *    charged nothing (remaining: the whole limit). weir_decision.rule says so.
 *  - A table holds as many rules as it was made for: ?rules=N, default 1024, at most 1,000,000.
 *  - Readers take no lock. Writers wait for each other; one that is killed leaves a list that holds either
 *    all or nothing of its change.
 */
#ifndef WEIR_RULES_H
#define WEIR_RULES_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_RULES_MAX UINT32_C(1000000) /* rules of a table */
#define WEIR_RULE_CLIENT_MAX 256         /* bytes of a rule's client */

struct weir_rule {
    int32_t kind;        /* WEIR_RULE_BLOCK or WEIR_RULE_ALLOW */
    uint32_t client_len; /* 1 to WEIR_RULE_CLIENT_MAX */
    int64_t since_ns;    /* when it was set */
    int64_t until_ns;    /* from then on it does not hold; WEIR_NEVER: for good */
    char client[WEIR_RULE_CLIENT_MAX + 1]; /* any bytes; addresses and ranges in their usual form; NUL after */
};

/*
 * Sets the rule of one client or range, replacing the one it may have.
 *
 * client: `len` bytes, 1 to WEIR_RULE_CLIENT_MAX: an IP address, a range ("10.0.0.0/8", "2001:db8::/32"), "#" and
 * 16 hexadecimal digits, or else a client as it stands. since_ns: now. until_ns: after now, or WEIR_NEVER.
 * Errors: WEIR_EINVAL (the message says which argument, e.g. a range with bits set behind its prefix),
 * WEIR_ENOSPC (the table's rules are full), WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_rules_set(struct weir_table *table, const void *client, size_t len, int kind,
                            int64_t since_ns, int64_t until_ns, struct weir_error *error);

/*
 * Sets many rules at once: all, or, on an error, none. Of `rules`, `kind`, `client`, `client_len` and
 * `until_ns` are read; later ones replace earlier ones of the same client.
 * Errors: as weir_rules_set(); WEIR_ENOMEM.
 */
WEIR_API int weir_rules_load(struct weir_table *table, const struct weir_rule *rules, size_t count,
                             int64_t now_ns, struct weir_error *error);

/* Removes the rule of exactly this client or range. Returns 1, or 0 if there was none. Errors: as above. */
WEIR_API int weir_rules_remove(struct weir_table *table, const void *client, size_t len,
                               struct weir_error *error);

/*
 * The rule that holds for `client` at `now_ns`, into *rule (may be NULL). Returns its kind, or
 * WEIR_RULE_NONE. Errors: WEIR_EINVAL.
 */
WEIR_API int weir_rules_find(struct weir_table *table, const void *client, size_t len, int64_t now_ns,
                             struct weir_rule *rule);

/*
 * Writes all rules into `rules[0..*n)`, expired ones included, ordered by client; `*n` holds the room on
 * entry, and the number of rules there are on return, which may be more than were written.
 * Errors: WEIR_EINVAL, WEIR_EBUSY.
 */
WEIR_API int weir_rules_list(struct weir_table *table, struct weir_rule *rules, size_t *n);

/* A number that changes with every change of the rules; 0: there never was one. */
WEIR_API uint64_t weir_rules_version(struct weir_table *table);

/*
 * For a store that decides elsewhere: whether a rule decides these checks. Returns 1 and fills in verdicts and
 * decision as weir_decide() does, or 0 if no rule holds. Counts nothing. Errors: as weir_decide().
 */
WEIR_API int weir_rules_judge(struct weir_table *table, const struct weir_check *checks, size_t n,
                              int64_t now_ns, struct weir_verdict *verdicts,
                              struct weir_decision *decision);

#ifdef __cplusplus
}
#endif
#endif
