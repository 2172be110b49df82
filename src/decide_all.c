/*
 * A decision for which there are rules: weir_decide() comes here if there may be one that holds.
 *
 * A blocked client has the whole decision denied. Checks of clients that are let through are left out, and
 * the limits decide about the rest, if there is a rest: usually all checks are about one client.
 */
#include <string.h>

#include "stats/stats_layout.h"
#include "decide.h"
#include "rules/rules.h"

/* All checks told the same: a block, until the last of them ends; or each let through. */
static void tell_all(const struct weir_check *checks, size_t n, int64_t now_ns, int kind,
                     const struct weir_ruling *rulings, struct weir_verdict *verdicts,
                     struct weir_decision *decision) {
    struct weir_ruling ruling = {.kind = kind};
    for (size_t i = 0; i < n; i++)
        if (rulings[i].kind == kind && rulings[i].until_ns > ruling.until_ns)
            ruling.until_ns = rulings[i].until_ns;
    for (size_t i = 0; i < n; i++)
        weir_rules_verdict(&checks[i], now_ns, &ruling, &verdicts[i]);
    if (!decision)
        return;
    weir_decide_choose(checks, verdicts, (uint32_t)n, decision);
    decision->rule = kind;
}

/* The limits decide about the checks that no rule lets through. */
static int decide_rest(struct weir_table *table, const struct weir_check *checks, size_t n,
                       int64_t now_ns, enum weir_mode mode, const struct weir_ruling *rulings,
                       struct weir_verdict *verdicts, struct weir_decision *decision) {
    struct weir_check rest[WEIR_CHECKS_MAX];
    struct weir_verdict said[WEIR_CHECKS_MAX];
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        if (rulings[i].kind == WEIR_RULE_NONE)
            rest[left++] = checks[i];
    int rc = weir_decide_by_limits(table, rest, left, now_ns, mode, said, NULL);
    if (rc < 0)
        return rc;
    left = 0;
    for (size_t i = 0; i < n; i++)
        if (rulings[i].kind == WEIR_RULE_NONE)
            verdicts[i] = said[left++];
        else
            weir_rules_verdict(&checks[i], now_ns, &rulings[i], &verdicts[i]);
    if (decision)
        weir_decide_choose(checks, verdicts, (uint32_t)n, decision);
    return 0;
}

int weir_decide_ruled(struct weir_table *table, const struct weir_check *checks, size_t n,
                      int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts,
                      struct weir_decision *decision) {
    struct weir_ruling rulings[WEIR_CHECKS_MAX];
    size_t allowed;
    int kind = weir_rules_rule(table, checks, n, now_ns, rulings, &allowed);
    if (kind == WEIR_RULE_NONE)
        return allowed == 0
                   ? weir_decide_by_limits(table, checks, n, now_ns, mode, verdicts, decision)
                   : decide_rest(table, checks, n, now_ns, mode, rulings, verdicts, decision);
    tell_all(checks, n, now_ns, kind, rulings, verdicts, decision);
    if (mode != WEIR_TEST)
        (void)weir_board_note(table, checks, n, now_ns, verdicts, 0); /* decided, counted or not */
    return 0;
}

int weir_rules_judge(struct weir_table *table, const struct weir_check *checks, size_t n,
                     int64_t now_ns, struct weir_verdict *verdicts,
                     struct weir_decision *decision) {
    struct weir_ruling rulings[WEIR_CHECKS_MAX];
    size_t allowed;
    int rc = weir_checks_validate(table, checks, n);
    if (rc < 0)
        return rc;
    if (!verdicts || now_ns < 0 || now_ns > WEIR_NOW_MAX)
        return WEIR_EINVAL;
    if (!weir_rules_any(table, now_ns))
        return 0;
    int kind = weir_rules_rule(table, checks, n, now_ns, rulings, &allowed);
    if (kind == WEIR_RULE_NONE)
        return 0;
    tell_all(checks, n, now_ns, kind, rulings, verdicts, decision);
    return 1;
}
