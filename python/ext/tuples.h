/* The named tuples Verdict, WindowStats, Granularity and others. */
#ifndef WEIR_EXT_TUPLES_H
#define WEIR_EXT_TUPLES_H

#include "core.h"

/* Makes the named tuples. 0, or -1 with an exception set. */
int core_tuples_init(PyObject *module, struct core_state *state);

/* An instance of a named tuple whose `count` items are still to be set; NULL with an exception. */
PyObject *core_tuple_new(PyTypeObject *type, Py_ssize_t count);

/* A Verdict or a WindowStats; NULL with an exception set. */
PyObject *core_verdict_new(struct core_state *state, const struct weir_verdict *verdict);
PyObject *core_stats_new(struct core_state *state, double reset_time, int64_t remaining);

#endif
