/* Methods of Table that files other than table.c define. table.c has their signatures and texts. */
#ifndef WEIR_EXT_TABLE_METHODS_H
#define WEIR_EXT_TABLE_METHODS_H

#include "core.h"

/* saved.c */
/* Opens self->mapped by its URI, or makes it from the bytes of _save() if they are not NULL. */
int core_table_open(struct core_table *self, const char *uri, PyObject *saved, bool make,
                    struct weir_error *error);
PyObject *core_table_save(PyObject *object, PyObject *ignored);
extern const char core_save_doc[];

/* meter.c */
PyObject *core_table_meter(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_table_raise_meter(PyObject *object, PyObject *const *args, Py_ssize_t nargs);

/* stats.c */
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

/* rules.c, client.c */
PyObject *core_table_block(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_allow(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_unlist(PyObject *object, PyObject *client);
PyObject *core_table_rules(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_rule_of(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_load_rules(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_ruled(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_table_get_rules_version(PyObject *object, void *closure);
PyObject *core_table_get_ipv6_prefix(PyObject *object, void *closure);
int core_table_set_ipv6_prefix(PyObject *object, PyObject *value, void *closure);
extern const char core_block_doc[], core_allow_doc[], core_unlist_doc[], core_rules_doc[],
    core_rule_of_doc[], core_load_rules_doc[], core_ruled_doc[];

#endif
