/* The Python type Evaluation, and the headers of the part to report. */
#ifndef WEIR_EXT_EVALUATION_TYPE_H
#define WEIR_EXT_EVALUATION_TYPE_H

#include "evaluation.h"

extern PyType_Spec core_evaluation_spec;

/*
 * Appends the headers of the reported part to a list of (name, value): the pair names[0], and what
 * remains, when it resets and how long that takes under names[1] to names[3]. 1; 0, with nothing
 * appended, if the list has a Retry-After; -1 with an exception.
 */
int core_evaluation_write_headers(struct core_evaluation *evaluation, PyObject *pairs,
                                  PyObject *names);

#endif
