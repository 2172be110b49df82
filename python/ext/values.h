/*
 * Conversions between Python objects and the numbers and texts of C; and what several files do with
 * tuples, lists and the types of the module.
 */
#ifndef WEIR_EXT_VALUES_H
#define WEIR_EXT_VALUES_H

#include "core.h"

/* A float, or an int that is not a bool. -1.0 with an exception naming `what`. */
double core_number(PyObject *object, const char *what);

/* Seconds to nanoseconds, rounded to the microsecond. 0, or -1 with an exception naming `what`. */
int core_seconds_to_ns(double seconds, const char *what, int64_t *ns);

/* Nanoseconds to seconds, rounded up to the microsecond; WEIR_NEVER becomes infinity. */
double core_ns_to_seconds(int64_t ns);

/* An int that is not a bool, 0 to 2^63-1. 0, or -1 with an exception naming `what`. */
int core_count(PyObject *object, const char *what, int64_t *count);

/*
 * The UTF-8 of a str without NUL, valid while the str exists; NULL with an exception naming `what`.
 */
const char *core_c_string(PyObject *text, const char *what);

/*
 * A new str of the number's decimal digits; "0" for a negative number. NULL with an exception set.
 */
PyObject *core_decimal(int64_t number);

/* A sequence as a tuple; NULL with an exception: TypeError with `why` if it is not a sequence. */
PyObject *core_tuple_of(PyObject *sequence, const char *why);

/*
 * Appends a new reference, which may be NULL with an exception set. 0, or -1 with an exception set.
 */
int core_list_add(PyObject *list, PyObject *item);

/*
 * Makes a type, with `base` or with object if that is NULL, and adds it to the module. A new
 * reference; NULL with an exception set.
 */
PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base);

#endif
