/* What the files of Evaluation share. prepared_check.h has what others may use. */
#ifndef WEIR_EXT_EVALUATION_H
#define WEIR_EXT_EVALUATION_H

#include "prepared_check.h"

#define SELF(object) ((struct core_evaluation *)(object))
#define BIT(i) (UINT32_C(1) << (i))

/* The mask of the main parts of a check. */
uint32_t evaluation_main_mask(const struct core_prepared *check);

/* Sets `denied` and `reported` from the verdicts. */
void evaluation_conclude(struct core_evaluation *self);

/* Reads a mask of parts from an int. 0, or -1 with an exception set. */
int evaluation_read_mask(const struct core_evaluation *self, PyObject *object, uint32_t *mask);

/* The key of part i for stores: prefix, client, scope. A new str; NULL with an exception set. */
PyObject *evaluation_key_of(const struct core_evaluation *self, Py_ssize_t i);

/* Methods and slots of the type. */
int evaluation_traverse(PyObject *object, visitproc visit, void *arg);
void evaluation_dealloc(PyObject *object);
PyObject *evaluation_decide(PyObject *object, PyObject *ignored);
PyObject *evaluation_add(PyObject *object, PyObject *argument);
PyObject *evaluation_settle(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *evaluation_decide_on(PyObject *object, PyObject *args);
PyObject *evaluation_rule(PyObject *object, PyObject *argument);
PyObject *evaluation_record(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *evaluation_checks(PyObject *object, PyObject *argument);
PyObject *evaluation_keep(PyObject *object, PyObject *const *args, Py_ssize_t nargs);

/* Appends a new reference, which may be NULL with an exception set. 0, or -1 with an exception set. */
int core_list_add(PyObject *list, PyObject *item);

#endif
