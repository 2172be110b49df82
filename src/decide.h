/* The parts of a decision: by rules about clients (rules_decide.c), and by limits (decide.c). */
#ifndef WEIR_DECIDE_INTERNAL_H
#define WEIR_DECIDE_INTERNAL_H

#include "table/layout.h"

/* Whether the checks may be decided: 0 or the error of weir_decide(). */
int weir_checks_validate(const struct weir_table *table, const struct weir_check *checks, size_t n);

/* Internal flag of a check: if it denies, nothing is charged, in WEIR_EACH too. */
#define WEIR_CHECK_VETO 0x100

/* weir_decide() of valid arguments. */
int weir_decide_checked(struct weir_table *table, const struct weir_check *checks, size_t n,
                        int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts,
                        struct weir_decision *decision);

/* weir_decide() of valid arguments as if there were no rules. */
int weir_decide_by_limits(struct weir_table *table, const struct weir_check *checks, size_t n,
                          int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts,
                          struct weir_decision *decision);

/* weir_decide() of valid arguments, in any mode but WEIR_REFUND, when there may be rules. */
int weir_decide_ruled(struct weir_table *table, const struct weir_check *checks, size_t n,
                      int64_t now_ns, enum weir_mode mode, struct weir_verdict *verdicts,
                      struct weir_decision *decision);

/* Sets `allowed` and `deciding` by the verdicts. */
void weir_decide_choose(const struct weir_check *checks, const struct weir_verdict *verdicts,
                        uint32_t n, struct weir_decision *decision);

#endif
