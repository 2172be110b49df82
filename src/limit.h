/* What makes a limit valid. */
#ifndef WEIR_SRC_LIMIT_H
#define WEIR_SRC_LIMIT_H

#include "calendar.h"
#include "strategy/strategy.h"
#include "units.h"

/* The first fault of a limit, in this order. */
enum weir_limit_fault {
    WEIR_LIMIT_VALID,
    WEIR_LIMIT_AMOUNT,
    WEIR_LIMIT_UNIT,
    WEIR_LIMIT_MULTIPLES,
    WEIR_LIMIT_PERIOD, /* not that of multiples and unit */
    WEIR_LIMIT_STRATEGY,
    WEIR_LIMIT_BURST,
    WEIR_LIMIT_BURST_NOT_TAKEN,
    WEIR_LIMIT_MAX_DELAY,
    WEIR_LIMIT_ZONE_NOT_TAKEN,
    WEIR_LIMIT_ZONE,
};

/* weir_limit_validate() explains the fault. Inline, because each check of a decision is tested. */
static inline enum weir_limit_fault weir_limit_fault(const struct weir_limit *limit) {
    int64_t seconds = weir_unit_seconds(limit->unit), period_ns;
    if (limit->amount < 0)
        return WEIR_LIMIT_AMOUNT;
    if (seconds == 0)
        return WEIR_LIMIT_UNIT;
    if (limit->multiples < 1 ||
        __builtin_mul_overflow(limit->multiples, seconds * INT64_C(1000000000), &period_ns) ||
        period_ns > WEIR_PERIOD_MAX_NS)
        return WEIR_LIMIT_MULTIPLES;
    if (limit->period_ns != period_ns)
        return WEIR_LIMIT_PERIOD;
    if ((uint32_t)limit->strategy >= WEIR_STRATEGIES)
        return WEIR_LIMIT_STRATEGY;
    if (limit->burst < 0)
        return WEIR_LIMIT_BURST;
    if (limit->burst > 0 && !weir_takes((uint32_t)limit->strategy, WEIR_TAKES_BURST))
        return WEIR_LIMIT_BURST_NOT_TAKEN;
    if (limit->max_delay_ns < 0 || limit->max_delay_ns > period_ns)
        return WEIR_LIMIT_MAX_DELAY;
    if (limit->zone && !weir_takes((uint32_t)limit->strategy, WEIR_TAKES_ZONE))
        return WEIR_LIMIT_ZONE_NOT_TAKEN;
    return limit->zone && weir_zone_validate(limit->zone, NULL) < 0 ? WEIR_LIMIT_ZONE
                                                                    : WEIR_LIMIT_VALID;
}

#endif
