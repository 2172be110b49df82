/* Decision: the verdicts of all limits of one check. */
#ifndef WEIR_EXT_DECISION_H
#define WEIR_EXT_DECISION_H

#include "core.h"

/* The result of weir_decide(), followed by the verdicts. */
struct core_decision {
    PyVarObject ob_base;
    struct core_state *state;
    struct weir_decision decision;
    int64_t now_ns;
    struct weir_verdict verdict[];
};

extern PyType_Spec core_decision_spec;

/* A Decision with room for `count` verdicts; NULL with an exception set. */
struct core_decision *core_decision_new(struct core_state *state, Py_ssize_t count);

/* later(decision, seconds) and deciding(limits, verdicts). */
PyObject *core_later(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_deciding(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
