/* The plan of a table: how many stripes and lines it has, and where each section lies. */
#ifndef WEIR_SRC_PLAN_H
#define WEIR_SRC_PLAN_H

#include <stdatomic.h>
#include <stdint.h>

#include "table/table.h"

#define WEIR_RULES_DEFAULT 1024u

/* A hash of everything about this machine and build that the meaning of the mapping depends on. */
uint64_t weir_plan_signature(void);

/* Fills in the header of a table for these numbers of keys, hits of moving windows, and rules. */
void weir_plan(struct weir_header *header, uint64_t keys, uint64_t hits, uint32_t rules);

/* Sets the members of *table that point into its mapping, which begins with a header. */
void weir_plan_attach(struct weir_table *table, void *base);

/* The end mark of the mapping of a table that is attached. */
_Atomic uint64_t *weir_plan_end(const struct weir_table *table);

#endif
