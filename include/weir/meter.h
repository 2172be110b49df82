/*
 * Meters: named numbers in a table's mapping, which all processes of the table can add to and read.
 * They are for what a program counts itself, such as errors and response times of its store.
 *
 *     weir_meter_add(table, "errors timeout", 14, 1, NULL);
 *
 * No lock is taken; a call costs some 30 ns. If a process is killed, it has added all of a number
 * or nothing. A table has room for WEIR_METERS names, and names are never removed: do not use a
 * name that a client can choose. Only keyed hashes of names are stored.
 */
#ifndef WEIR_METER_H
#define WEIR_METER_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_METERS 224 /* of a table */

/*
 * Adds `add` to the meter `name` (`len` bytes, 1 to WEIR_KEY_MAX), which starts at 0, and writes
 * the sum into `*value` unless that is NULL. Wraps around at 2^64. With `add` 0 it only reads, and
 * does not create the meter.
 * Errors: WEIR_EINVAL, WEIR_ETOOMANY (there are WEIR_METERS others).
 */
WEIR_API int weir_meter_add(struct weir_table *table, const char *name, size_t len, uint64_t add,
                            uint64_t *value);

/* Sets the meter to `value` if it is less. Errors: as weir_meter_add(). */
WEIR_API int weir_meter_raise(struct weir_table *table, const char *name, size_t len,
                              uint64_t value);

#ifdef __cplusplus
}
#endif
#endif
