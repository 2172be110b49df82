/* The labels under which a table counts the decisions of its limits. */
#ifndef WEIR_EXT_LABEL_H
#define WEIR_EXT_LABEL_H

#include "limit.h"
#include "table.h"

/*
 * The number of a limit's label in a table; some are cached. 0: none now, because a stopped process
 * holds the lock; the next check tries again.
 */
int32_t core_label_find(struct core_table *table, const struct core_limit *limit);

/* The slot in which a table caches the label of a limit. */
static inline struct core_known_label *core_label_slot(struct core_table *table,
                                                       const struct weir_limit *limit) {
    uint64_t mixed = (uint64_t)limit->amount * UINT64_C(0x9E3779B97F4A7C15) ^
                     (uint64_t)limit->period_ns * UINT64_C(0xC2B2AE3D27D4EB4F);
    return &table->label[mixed >> 59];
}
_Static_assert(CORE_KNOWN_LABELS == 32, "five bits choose a slot");

/* The label under which an open table counts checks of this limit. 0: not counted. */
static inline int32_t core_label(struct core_table *table, const struct core_limit *limit) {
    const struct weir_limit *a = &limit->limit;
    const struct core_known_label *known = core_label_slot(table, a);
    const struct weir_limit *b = &known->limit;
    return known->number > 0 && a->amount == b->amount && a->multiples == b->multiples &&
                   a->unit == b->unit && a->burst == b->burst && a->strategy == b->strategy &&
                   a->period_ns == b->period_ns && a->max_delay_ns == b->max_delay_ns &&
                   a->zone == b->zone && !core_limit_is_own(limit)
               ? known->number
               : core_label_find(table, limit);
}

#endif
