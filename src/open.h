/* Opening tables. */
#ifndef WEIR_OPEN_H
#define WEIR_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "weir/weir.h"

/* How long an opener waits for a flock() that another process holds; tests shorten it. */
extern int64_t weir_open_wait_ns;
/* weir_table_open(). make: or else a table that is not there is WEIR_ENOENT. */
int weir_table_open_within(const char *text, int64_t wait_ns, bool make, struct weir_table **out,
                           struct weir_error *error);
/*
 * Opens a lost table again, by its URI, as another handle. NULL with 0: it is not lost. Other threads may use `table`
 * meanwhile, and the caller closes it afterwards. It waits for locks, see weir_must_not_sleep.
 */
int weir_table_replacement(struct weir_table *table, const char *uri, int64_t now_ns,
                           struct weir_table **replacement, struct weir_error *error);

#endif
