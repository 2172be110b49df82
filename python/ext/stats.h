/* The methods of Table for its statistics. */
#ifndef WEIR_EXT_STATS_H
#define WEIR_EXT_STATS_H

#include "core.h"

PyObject *core_table_counts(PyObject *object, PyObject *ignored);
PyObject *core_table_top_clients(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_name_of(PyObject *object, PyObject *client);
PyObject *core_table_record(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_register(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_table_registry(PyObject *object, PyObject *ignored);
PyObject *core_table_get_reveal(PyObject *object, void *closure);
int core_table_set_reveal(PyObject *object, PyObject *value, void *closure);
extern const char core_counts_doc[], core_top_clients_doc[], core_name_of_doc[], core_record_doc[],
    core_register_doc[], core_registry_doc[];

#endif
