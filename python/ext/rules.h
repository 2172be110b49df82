/* The methods of Table for its rules about clients. */
#ifndef WEIR_EXT_RULES_H
#define WEIR_EXT_RULES_H

#include "core.h"

PyObject *core_table_block(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_allow(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_unlist(PyObject *object, PyObject *client);
PyObject *core_table_rules(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_rule_of(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_load_rules(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *core_table_ruled(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_table_get_rules_version(PyObject *object, void *closure);
extern const char core_block_doc[], core_allow_doc[], core_unlist_doc[], core_rules_doc[],
    core_rule_of_doc[], core_load_rules_doc[], core_ruled_doc[];

#endif
