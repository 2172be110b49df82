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
 *    it has expired, the next enclosing one holds. One client or range has one rule: the last that was set.
 *  - A text that is an IP address is that address, however it is written; an IPv4 address mapped into IPv6 is
 *    the IPv4 address; a zone ("fe80::1%eth0") is ignored. 10.0.0.1 and 10.0.0.1/32 are the same. Ranges of
 *    IPv6, even ::/0, hold no IPv4 address.
 *  - A range must have no bits set behind its prefix: 10.1.2.3/8 is refused, since it may have been meant as
 *    10.0.0.0/8 or as 10.1.2.3. So is what looks like an address and is none. Any other text is a name.
 *  - Names are told apart by 64 bits of SipHash under the table's secret. With a million rules, the chance that
 *    a client is taken for another is 1 in 10^13.
 *  - "#" and 16 hexadecimal digits name the client that weir_stats_client_name() shows so.
 *  - weir_decide() asks for the rule of each check's `client`. A blocked client is denied and charged nothing
 *    (remaining 0, retry_after_ns until the rule ends, or WEIR_NEVER); one that is let through is allowed and
 *    charged nothing (remaining: the whole limit). weir_decision.rule says so. If the checks of one decision are
 *    about several clients, one that is blocked has all denied, and those that are let through are left out
 *    while the limits decide about the others. Refunds ask for no rule; weir_table_reset() leaves the rules.
 *  - A table holds as many rules as it was made for: ?rules=N, default 1024, at most 1,000,000.
 *    Names longer than 32 bytes on average may fill a table for more than 1024 rules before. Expired rules give
 *    their room to new ones when it is needed.
 *  - Readers take no lock. Writers wait for each other; one that is killed leaves a list that holds either
 *    all or nothing of its change. Each change writes the list anew: some milliseconds with 100,000 rules, so
 *    set many at once by weir_rules_load().
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
    char client[WEIR_RULE_CLIENT_MAX +
                1]; /* any bytes; addresses and ranges in their usual form; NUL after */
};

/*
 * Sets the rule of one client or range, replacing the one it may have.
 *
 * client: `len` bytes, 1 to WEIR_RULE_CLIENT_MAX: an IP address, a range ("10.0.0.0/8", "2001:db8::/32"), "#" and
 * 16 hexadecimal digits, or else a client as it stands. since_ns: now. until_ns: after now, or WEIR_NEVER.
 * Errors: WEIR_EINVAL (the message says which argument), WEIR_ESYNTAX (no address or range; the message says
 * why), WEIR_ENOSPC (the table's rules are full), WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_rules_set(struct weir_table *table, const void *client, size_t len, int kind,
                            int64_t since_ns, int64_t until_ns, struct weir_error *error);

/*
 * Sets many rules at once: all, or, on an error, none. Of `rules`, `kind`, `client`, `client_len` and
 * `until_ns` are read; later ones replace earlier ones of the same client. One that is there already, of the
 * same kind and end, keeps its beginning; one that has ended by now_ns is passed over.
 * Errors: as weir_rules_set(), the message says which rule; WEIR_ENOMEM.
 */
WEIR_API int weir_rules_load(struct weir_table *table, const struct weir_rule *rules, size_t count,
                             int64_t now_ns, struct weir_error *error);

/* The same, and removes all rules that are not among them. If nothing changes, the version does not either. */
WEIR_API int weir_rules_replace(struct weir_table *table, const struct weir_rule *rules,
                                size_t count, int64_t now_ns, struct weir_error *error);

/* Removes the rule of exactly this client or range. Returns 1, or 0 if there was none. Errors: as above. */
WEIR_API int weir_rules_remove(struct weir_table *table, const void *client, size_t len,
                               struct weir_error *error);

/*
 * The rule that holds for `client` at `now_ns`, into *rule (may be NULL). Returns its kind, or
 * WEIR_RULE_NONE. Waits for writers, unlike weir_decide(). Errors: WEIR_EINVAL, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_rules_find(struct weir_table *table, const void *client, size_t len,
                             int64_t now_ns, struct weir_rule *rule);

/*
 * Writes all rules into `rules[0..*n)`, expired ones included: IPv4 by address, IPv6 by address, then names
 * in no order that means anything. `*n` holds the room on entry, and the number of rules there are on return,
 * which may be more than were written. rules may be NULL if the room is 0.
 * Errors: WEIR_EINVAL, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_rules_list(struct weir_table *table, struct weir_rule *rules, size_t *n);

/* A number that changes with every change of the rules; 0: there never was one. */
WEIR_API uint64_t weir_rules_version(struct weir_table *table);

/*
 * For a store that decides elsewhere: whether a rule decides these checks. Returns 1 and fills in verdicts and
 * decision as weir_decide() does, or 0 if the limits have to decide: if no rule holds, or if only some of the
 * checks' clients are let through. Counts nothing. Errors: as weir_decide().
 */
WEIR_API int weir_rules_match(struct weir_table *table, const struct weir_check *checks, size_t n,
                              int64_t now_ns, struct weir_verdict *verdicts,
                              struct weir_decision *decision);

#define weir_rules_judge weir_rules_match /* deprecated: the earlier name */

#ifdef __cplusplus
}
#endif
#endif
