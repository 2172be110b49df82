/*
 * Meters: named numbers in a table's mapping, which all that share the table add to and read. For what a
 * program counts beside decisions, such as the errors of its store and how long that takes to answer.
 *
 *     weir_meter_add(table, "errors timeout", 14, 1, NULL);
 *
 * No lock is taken, and a call costs some 30 ns. A process killed at any instruction has added all of a
 * number or nothing. A table has room for WEIR_METERS names, and no name is ever given up: never make one
 * of what a client can choose. The names themselves are not kept, only keyed hashes of them.
 */
#ifndef WEIR_METER_H
#define WEIR_METER_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_METERS 224 /* of a table */

/*
 * Adds `add` to the meter `name` (`len` bytes, 1 to WEIR_KEY_MAX), which is 0 before its first use, and writes
 * what it is then into `*value` unless that is NULL. Wraps around at 2^64. With `add` 0 it only reads, and
 * takes no place for a name that is not there. Safe in threads and processes.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY (there are WEIR_METERS others).
 */
WEIR_API int weir_meter_add(struct weir_table *table, const char *name, size_t len, uint64_t add,
                            uint64_t *value);

/* The same, but the meter becomes `value`, unless it is more than that already. */
WEIR_API int weir_meter_raise(struct weir_table *table, const char *name, size_t len,
                              uint64_t value);

#ifdef __cplusplus
}
#endif
#endif
