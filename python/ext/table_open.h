/* Opening tables, and private tables as bytes. */
#ifndef WEIR_EXT_TABLE_OPEN_H
#define WEIR_EXT_TABLE_OPEN_H

#include "table.h"

/* Opens self->mapped by its URI, or makes it from the bytes of _save() if they are not NULL. */
int core_table_open(struct core_table *self, const char *uri, PyObject *saved, bool make,
                    struct weir_error *error);

/* Table._save(). */
PyObject *core_table_save(PyObject *object, PyObject *ignored);
extern const char core_save_doc[];

#endif
