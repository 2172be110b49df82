/*
 * Validates checks and chooses the deciding one, for the table and for the codecs of remote stores.
 */
#include "checks.h"

#include "limit.h"

static bool is_sound(const struct weir_check *check) {
    return check->limit && check->key_len <= WEIR_KEY_MAX && (check->key || !check->key_len) &&
           check->client_len <= WEIR_KEY_MAX && (check->client || !check->client_len) &&
           weir_is_label(check->label) && (check->flags & ~WEIR_CHECK_PEEK) == 0 &&
           check->cost >= 0 && weir_limit_fault(check->limit) == WEIR_LIMIT_VALID;
}

int weir_checks_validate(const struct weir_check *checks, size_t n) {
    if (!checks || n == 0)
        return WEIR_EINVAL;
    if (n > WEIR_CHECKS_MAX)
        return WEIR_ETOOMANY;
    for (size_t i = 0; i < n; i++)
        if (!is_sound(&checks[i]))
            return WEIR_EINVAL;
    return 0;
}

/* Checks with their verdicts. */
struct checked {
    const struct weir_check *checks;
    const struct weir_verdict *verdicts;
};

static struct weir_outcome outcome_of(const void *all, uint32_t i) {
    const struct checked *checked = all;
    return (struct weir_outcome){checked->checks[i].limit, &checked->verdicts[i]};
}

void weir_checks_choose(const struct weir_check *checks, const struct weir_verdict *verdicts,
                        size_t n, struct weir_decision *decision) {
    uint32_t deciding = weir_deciding(&(struct checked){checks, verdicts}, (uint32_t)n, outcome_of);
    *decision = (struct weir_decision){.allowed = verdicts[deciding].allowed,
                                       .deciding = (int32_t)deciding};
}
