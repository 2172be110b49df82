/* What becomes of a table whose file is removed or cut short while a process has it. */
#ifndef WEIR_LOST_H
#define WEIR_LOST_H

#include <stdbool.h>
#include <stdint.h>

#include "weir/weir.h"

/* The file that a handle has mapped. A descriptor alone does not tell: the process may have closed it. */
struct weir_watch {
    bool on;
    uint64_t device, inode;
};

/* To be called when the table was just opened. Tables in memory are not watched. */
void weir_watch_begin(const struct weir_table *table, struct weir_watch *watch);

/* One fstat(): 0; WEIR_ENOENT: the file has no name any more; WEIR_EFORMAT: it is shorter than what is mapped. */
int weir_watch_check(const struct weir_table *table, const struct weir_watch *watch);

/*
 * Opens the table of this URI, which must be another file by now, in place of the one that the handle has. Nobody
 * else may be using the handle. readable: whether what the old table says beside its counters (labels, registry,
 * rules) may be read, and goes into the new one. On an error the handle is as it was.
 */
int weir_table_renew(struct weir_table *table, const char *uri, const struct weir_watch *watch,
                     bool readable, int64_t now_ns, struct weir_error *error);

#endif
