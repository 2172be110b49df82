/* The strategies by name. */
#ifndef WEIR_EXT_STRATEGIES_H
#define WEIR_EXT_STRATEGIES_H

#include "core.h"

/* The strategy of that name; -1 with an exception that lists them all. */
int core_strategy_of(const char *name, size_t len);

/* The same for a str; TypeError for other objects. */
int core_strategy_named(PyObject *name);

/* Adds STRATEGIES to the module. 0, or -1 with an exception set. */
int core_add_strategies(PyObject *module);

#endif
