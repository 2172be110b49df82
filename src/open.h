/* Opening tables. */
#ifndef WEIR_OPEN_H
#define WEIR_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "table/table.h"
#include "weir/weir.h"

/* How long an opener waits for a flock() that another process holds; tests shorten it. */
extern int64_t weir_open_wait_ns;
/* weir_table_open(). make: or else a table that is not there is WEIR_ENOENT. */
int weir_table_open_within(const char *text, int64_t wait_ns, bool make, struct weir_table **out,
                           struct weir_error *error);
/*
 * Opens a lost table again, by its URI, as another handle. NULL with 0: it is not lost. Other
 * threads may use `table` meanwhile, and the caller closes it afterwards. It waits for locks, see
 * weir_must_not_sleep.
 */
int weir_table_replacement(struct weir_table *table, const char *uri, int64_t now_ns,
                           struct weir_table **replacement, struct weir_error *error);

/*
 * Maps and initializes private memory for a table of the plan's size. `table` has its backing and
 * name.
 */
int weir_open_memory(struct weir_table *table, const struct weir_header *plan,
                     struct weir_error *error);
/* 0 if the header was written by this library on such a machine and is undamaged; else an error. */
int weir_open_check_header(const struct weir_table *table, const struct weir_header *header,
                           uint64_t size, struct weir_error *error);
/*
 * Repairs and verifies a table that was not made by this process, and that no other process has
 * open.
 */
int weir_open_recover(struct weir_table *table, struct weir_error *error);

#endif
