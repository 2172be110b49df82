/* Evaluation: a prepared check, evaluated for one request. */
#ifndef WEIR_EXT_EVALUATION_H
#define WEIR_EXT_EVALUATION_H

#include "prepared_check.h"

/* The evaluation of one part for one request. */
struct core_item {
    struct weir_verdict verdict; /* if its bit is in `parts` */
    PyObject *client; /* of key function i, not of part i: str or bytes; NULL: not called */
    PyObject *scope;  /* str, of a part with scope_of */
    int64_t cost;
};

/* The evaluation of a prepared check for one request. */
struct core_evaluation {
    PyVarObject ob_base;
    struct core_prepared *check;
    uint32_t parts;   /* that take part */
    uint32_t denied;  /* of them, those that deny */
    int32_t reported; /* index of the main part to report to the client; -1: none */
    int32_t rule;     /* enum weir_rule_kind */
    int64_t now_ns;   /* of the decision; -1: not decided yet */
    struct core_item item[];
};

/* Gathers clients, the parts that apply and their costs. Decides nothing. NULL: exception. */
struct core_evaluation *core_evaluation_gather(struct core_prepared *check);

/* Whether an object is an Evaluation. */
bool core_is_evaluation(PyObject *object);

/* Decides it on the check's store. 0, or -1 with an exception. */
int core_evaluation_decide(struct core_evaluation *evaluation);

/* Whether the request may continue and nothing is to be reported. */
static inline bool core_evaluation_passes(const struct core_evaluation *evaluation) {
    return evaluation->denied == 0;
}

/*
 * Charges, or gives back, those of `parts` that depend on the response. 0; -1 with an exception of
 * a function; -2 with one of the store.
 */
int core_evaluation_respond(struct core_evaluation *evaluation, PyObject *response, uint32_t parts);

/* The mask of the main parts of a check. */
uint32_t evaluation_main_mask(const struct core_prepared *check);

/* Sets `denied` and `reported` from the verdicts. */
void evaluation_conclude(struct core_evaluation *self);

/* Reads a mask of parts from an int. 0, or -1 with an exception set. */
int evaluation_read_mask(const struct core_evaluation *self, PyObject *object, uint32_t *mask);

/* Methods and slots of the type. */
int evaluation_traverse(PyObject *object, visitproc visit, void *arg);
void evaluation_dealloc(PyObject *object);
PyObject *evaluation_decide(PyObject *object, PyObject *ignored);
PyObject *evaluation_add(PyObject *object, PyObject *argument);
PyObject *evaluation_settle(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *evaluation_decide_on(PyObject *object, PyObject *args);

#endif
