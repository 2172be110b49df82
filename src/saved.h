/* Copies of private tables, for programs that keep or send them as bytes (pickle). */
#ifndef WEIR_SAVED_H
#define WEIR_SAVED_H

#include "weir/weir.h"

#define WEIR_SAVED_MAX ((size_t)256 << 20) /* about 3 million keys */

/*
 * The number of bytes that weir_table_save() writes.
 * Errors: WEIR_EINVAL (not a memory:// table), WEIR_ETOOMANY (larger than WEIR_SAVED_MAX).
 */
int weir_table_saved_bytes(const struct weir_table *table, size_t *size, struct weir_error *error);

/*
 * Copies a memory:// table into `bytes`, at one moment: all its locks are held. The copy contains
 * the table's secret. `size`: of weir_table_saved_bytes().
 * Errors: also WEIR_EBUSY, WEIR_ECORRUPT.
 */
int weir_table_save(struct weir_table *table, void *bytes, size_t size, struct weir_error *error);

/*
 * Makes a memory:// table from such a copy. The bytes may be anything: they are verified before
 * they are used.
 * Errors: WEIR_EFORMAT (not a copy of a table, truncated, or damaged), WEIR_EVERSION (made by
 * another version or build of this library, or on another kind of machine), WEIR_EINVAL,
 * WEIR_ETOOMANY, WEIR_ENOMEM, WEIR_ESYSTEM.
 */
int weir_table_load(const void *bytes, size_t size, struct weir_table **out,
                    struct weir_error *error);

#endif
