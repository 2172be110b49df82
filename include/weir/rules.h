/*
 * Rules block or allow clients regardless of limits. A rule is about one client or a range of IP
 * addresses, and is valid until a given time or forever. Rules are part of the table's mapping, so
 * a rule takes effect in all processes of the table at once.
 *
 *     weir_rules_set(table, "203.0.113.0/24", 14, WEIR_RULE_BLOCK, now_ns, now_ns + HOUR_NS,
 *                    &error);
 *
 * Caveats first
 * -------------
 *  - The most specific rule wins: an exact client before ranges, a longer prefix before a shorter
 *    one. When it expires, the next wider rule applies. Each client or range has one rule: the last
 *    that was set.
 *  - All spellings of an IP address are the same address. A mapped IPv4 address is the IPv4
 *    address; a zone ("fe80::1%eth0") is ignored. 10.0.0.1 and 10.0.0.1/32 are the same. IPv6
 *    ranges, even ::/0, contain no IPv4 address.
 *  - A range must have no bits set after its prefix: 10.1.2.3/8 is refused, because it is unclear
 *    whether 10.0.0.0/8 or 10.1.2.3 is meant. A text that resembles an address but is invalid is
 *    refused too. Any other text is a name.
 *  - Names are compared by 64 bits of SipHash under the table's secret. With a million rules, the
 *    probability that one client matches the rule of another is 1 in 10^13.
 *  - "#" and 16 hexadecimal digits are the client that weir_stats_client_name() shows in this form.
 *  - weir_decide() looks up the rule of each check's `client`. A blocked client is denied and not
 *    charged (remaining 0; retry_after_ns until the rule expires, or WEIR_NEVER). An allowed client
 *    passes and is not charged (remaining: the whole limit). weir_decision.rule is set. If the
 *    checks of one decision have several clients, one blocked client denies all of them, and checks
 *    of allowed clients are left out of the decision. Refunds ignore rules; weir_table_reset()
 *    keeps them.
 *  - The number of rules is fixed when the table is created: ?rules=N, default 1024, at most
 *    1,000,000. In a table for more than 1024 rules, names longer than 32 bytes on average can use
 *    up the space earlier. Expired rules are removed when their space is needed.
 *  - Readers take no lock. Writers wait for each other. If a writer is killed, either all or
 *    nothing of its change is visible. Each change rewrites the whole list, which takes some
 *    milliseconds with 100,000 rules: set many rules at once by weir_rules_load().
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
    int64_t until_ns;    /* when it expires; WEIR_NEVER: never */
    char client[WEIR_RULE_CLIENT_MAX +
                1]; /* any bytes; addresses and ranges in canonical form; then NUL */
};

/*
 * Sets the rule of one client or range, and replaces the rule it has.
 *
 * client: `len` bytes, 1 to WEIR_RULE_CLIENT_MAX: an IP address, a range ("10.0.0.0/8",
 * "2001:db8::/32"), "#" and 16 hexadecimal digits, or any other client. since_ns: now. until_ns:
 * after now, or WEIR_NEVER.
 * Errors: WEIR_EINVAL (the message names the argument), WEIR_ESYNTAX (an invalid address or range;
 * the message says why), WEIR_ENOSPC (there is no room for another rule), WEIR_EBUSY,
 * WEIR_ECORRUPT.
 */
WEIR_API int weir_rules_set(struct weir_table *table, const void *client, size_t len, int kind,
                            int64_t since_ns, int64_t until_ns, struct weir_error *error);

/*
 * Sets many rules at once: all, or, on an error, none. `kind`, `client`, `client_len` and
 * `until_ns` of `rules` are read; later ones replace earlier ones of the same client. If a rule
 * exists with the same kind and end, its since_ns stays. Rules that have expired at now_ns are
 * skipped.
 * Errors: as weir_rules_set(), the message names the rule; WEIR_ENOMEM.
 */
WEIR_API int weir_rules_load(struct weir_table *table, const struct weir_rule *rules, size_t count,
                             int64_t now_ns, struct weir_error *error);

/*
 * The same, and removes all other rules. If nothing changes, weir_rules_version() stays the same.
 */
WEIR_API int weir_rules_replace(struct weir_table *table, const struct weir_rule *rules,
                                size_t count, int64_t now_ns, struct weir_error *error);

/*
 * Removes the rule of exactly this client or range. Returns 1, or 0 if there was none.
 * Errors: as above.
 */
WEIR_API int weir_rules_remove(struct weir_table *table, const void *client, size_t len,
                               struct weir_error *error);

/*
 * Writes the rule that applies to `client` at `now_ns` into *rule (may be NULL). Returns its kind,
 * or WEIR_RULE_NONE. Waits for writers, unlike weir_decide().
 * Errors: WEIR_EINVAL, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_rules_find(struct weir_table *table, const void *client, size_t len,
                             int64_t now_ns, struct weir_rule *rule);

/*
 * Writes all rules into `rules[0..*n)`, expired ones included: IPv4 by address, IPv6 by address,
 * then names in an undefined order. On entry, `*n` is the number of elements of the array; on
 * return, the number of all rules, which may be more than were written. rules may be NULL if `*n`
 * is 0.
 * Errors: WEIR_EINVAL, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_rules_list(struct weir_table *table, struct weir_rule *rules, size_t *n);

/* A number that changes with every change of the rules; 0: there has never been a rule. */
WEIR_API uint64_t weir_rules_version(struct weir_table *table);

/*
 * For programs that decide on another store: matches the clients of the checks with the rules.
 * Returns 1 and fills in verdicts and decision as weir_decide() does, or 0 if the limits have to
 * decide, because no rule applies, or because only some of the clients are allowed. Counts nothing.
 * Errors: as weir_decide().
 */
WEIR_API int weir_rules_match(struct weir_table *table, const struct weir_check *checks, size_t n,
                              int64_t now_ns, struct weir_verdict *verdicts,
                              struct weir_decision *decision);

#define weir_rules_judge weir_rules_match /* deprecated: the earlier name */

#ifdef __cplusplus
}
#endif
#endif
