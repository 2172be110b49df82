/* RateLimiter: one strategy over one store. */
#ifndef WEIR_EXT_LIMITER_H
#define WEIR_EXT_LIMITER_H

#include "table.h"

struct core_limiter {
    PyObject ob_base;
    struct core_state *state;
    PyObject *storage;
    struct core_table *table; /* the storage again, if it is a Table that decides in C; borrowed */
    int strategy;
    PyObject *weakrefs;
};

/* Methods of the type. */
PyObject *limiter_hit(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *limiter_test(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames);
PyObject *limiter_refund(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);
PyObject *limiter_decide(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);
PyObject *limiter_get_window_stats(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *limiter_clear(PyObject *object, PyObject *const *args, Py_ssize_t nargs);

#endif
