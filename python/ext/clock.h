/* The clock: time.time(), which applications may replace. */
#ifndef WEIR_EXT_CLOCK_H
#define WEIR_EXT_CLOCK_H

#include "core.h"

int core_clock_init(struct core_clock *clock);
int core_clock_traverse(struct core_clock *clock, visitproc visit, void *arg);
void core_clock_clear(struct core_clock *clock);

/* time.time(), in nanoseconds; negative with an exception set. May run Python code. */
int64_t core_now(struct core_state *state);
/* Seconds since the epoch as ns; -1 with an exception naming `what`. */
int64_t core_moment(PyObject *object, const char *what);

#endif
