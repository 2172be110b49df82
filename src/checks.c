/*
 * Validates checks and chooses the deciding one, for the table and for the codecs of remote stores.
 */
#include "checks.h"

#include "calendar.h"
#include "strategy/strategy.h"
#include "units.h"
#include "weir/stats.h"

/*
 * Whether decisions can compute with a limit. It is tested for each check of each decision, so it
 * covers only the bounds that prevent undefined behaviour; weir_limit_validate() tests all members
 * and explains what is wrong.
 */
static bool is_sound_limit(const struct weir_limit *limit) {
    if ((limit->amount | limit->burst | limit->max_delay_ns) < 0 || limit->period_ns <= 0 ||
        limit->period_ns > WEIR_PERIOD_MAX_NS || limit->max_delay_ns > limit->period_ns ||
        (uint32_t)limit->strategy >= WEIR_STRATEGIES || !weir_unit_name(limit->unit))
        return false;
    return !limit->zone || (weir_takes((uint32_t)limit->strategy, WEIR_TAKES_ZONE) &&
                            weir_zone_validate(limit->zone, NULL) == 0);
}

static bool is_sound(const struct weir_check *check) {
    return check->limit && check->key_len <= WEIR_KEY_MAX && (check->key || !check->key_len) &&
           check->client_len <= WEIR_KEY_MAX && (check->client || !check->client_len) &&
           (uint32_t)check->label <= WEIR_STATS_LABELS && (check->flags & ~WEIR_CHECK_PEEK) == 0 &&
           check->cost >= 0 && is_sound_limit(check->limit);
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
