/* Evaluation for stores other than a local table. */
#ifndef WEIR_EXT_EVALUATION_STORE_H
#define WEIR_EXT_EVALUATION_STORE_H

#include "evaluation.h"

/* Parts as libweir's checks, in their order. */
struct core_expanded {
    struct core_key keys;
    size_t start[WEIR_CHECKS_MAX];
    int count;
    struct weir_check check[WEIR_CHECKS_MAX];
    uint8_t part[WEIR_CHECKS_MAX];
};

/*
 * Expands parts with the mark of the check's table, or with the keys of remote stores. Parts that
 * charge nothing or refuse no request have WEIR_CHECK_PEEK. Call core_expanded_free() in all cases.
 * 0, or -1 with an exception.
 */
int core_evaluation_expand(const struct core_evaluation *evaluation, struct core_expanded *expanded,
                           uint32_t parts, bool marked);
void core_expanded_free(struct core_expanded *expanded);

/* The key of part i for stores: prefix, client, scope. A new str; NULL with an exception set. */
PyObject *evaluation_key_of(const struct core_evaluation *self, Py_ssize_t i);

/* Methods of the type. */
PyObject *evaluation_rule(PyObject *object, PyObject *argument);
PyObject *evaluation_record(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *evaluation_checks(PyObject *object, PyObject *argument);
PyObject *evaluation_keep(PyObject *object, PyObject *const *args, Py_ssize_t nargs);

#endif
