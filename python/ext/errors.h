/* The exception classes, and the exceptions for the results of libweir. */
#ifndef WEIR_EXT_ERRORS_H
#define WEIR_EXT_ERRORS_H

#include "core.h"

/* Adds WeirError and its subclasses to the module and its state. 0, or -1 with an exception set. */
int core_errors_init(PyObject *module, struct core_state *state);

/* Raises the exception for a result of libweir; `error` may be NULL. Returns NULL. */
PyObject *core_raise(struct core_state *state, int result, const struct weir_error *error);

/* Raises TableError: the table is closed. */
void core_raise_closed(struct core_state *state);

#endif
