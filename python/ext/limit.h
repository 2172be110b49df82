/* What the files of Limit share. core.h has what others may use. */
#ifndef WEIR_EXT_LIMIT_H
#define WEIR_EXT_LIMIT_H

#include "core.h"

#define SELF(object) ((struct core_limit *)(object))

/* Methods and slots of the type. */
int limit_init(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *limit_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *limit_replace(PyObject *object, PyObject *args, PyObject *kwargs);
int limit_traverse(PyObject *object, visitproc visit, void *arg);
int limit_clear_refs(PyObject *object);
void limit_dealloc(PyObject *object);

#endif
