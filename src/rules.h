/* The rules about clients in a table's mapping: src/rules.c. */
#ifndef WEIR_RULES_INTERNAL_H
#define WEIR_RULES_INTERNAL_H

#include "layout.h"
#include "weir/rules.h"

/* Size of the section for so many rules. */
size_t weir_rules_bytes(uint32_t capacity);

/* Makes an empty list of zeroed memory. */
void weir_rules_init(void *section, uint32_t capacity);

/*
 * Makes the section's lock anew and undoes what a crash left: at creation, after weir_rules_init(); when
 * alone with an old table; and in a forked child with a private one. 0 or WEIR_E….
 */
int weir_rules_repair(struct weir_table *table);

/* Verifies the section. All of the table's own locks are held. 0, or WEIR_ECORRUPT with a message. */
int weir_rules_check(struct weir_table *table, struct weir_error *error);

/* Whether there is any rule: one relaxed load. */
static inline bool weir_rules_any(const struct weir_table *table) {
    (void)table;
    return false;
}

#endif
