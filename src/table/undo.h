/*
 * Undo records: they restore data that a dead process left half changed under one lock.
 */
#ifndef WEIR_UNDO_H
#define WEIR_UNDO_H

#include "table/table.h"

/* Restores the bytes in the undo record of lock `index`, which the caller holds. */
void weir_undo_apply(struct weir_table *table, uint32_t index);

#endif
