/* The methods meter() and raise_meter() of Table. */
#ifndef WEIR_EXT_METER_H
#define WEIR_EXT_METER_H

#include "core.h"

PyObject *core_table_meter(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_table_raise_meter(PyObject *object, PyObject *const *args, Py_ssize_t nargs);

#endif
