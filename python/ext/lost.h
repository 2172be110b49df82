/* Borrowing an open table, and opening one again whose file was removed or truncated. */
#ifndef WEIR_EXT_LOST_H
#define WEIR_EXT_LOST_H

#include "table.h"

#define CORE_CHECK_LOST_NS UINT64_C(1000000000)

/*
 * Checks, once a second or now, that the table's file exists and is not truncated. Returns the open
 * table, or NULL with an exception set.
 */
struct weir_table *core_table_check_lost(struct core_table *table, bool now);

/*
 * The open table, or NULL with an exception set. Borrowed while the GIL is held. Once a second by
 * the clock, its file is checked. Other threads run while a lost table is opened again, so the
 * caller needs a reference to `table`.
 */
static inline struct weir_table *core_table_borrow(struct core_table *table) {
    if (!table->table ||
        (table->has_file &&
         (uint64_t)(table->state->clock.latest - table->lost_checked_ns) >= CORE_CHECK_LOST_NS))
        return core_table_check_lost(table, false);
    return table->table;
}

/* Begins a call without the GIL: the table for core_table_leave(); NULL with an exception set. */
struct weir_table *core_table_enter(struct core_table *table);

#endif
