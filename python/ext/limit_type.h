/* The Python type Limit. */
#ifndef WEIR_EXT_LIMIT_TYPE_H
#define WEIR_EXT_LIMIT_TYPE_H

#include "core.h"

extern PyType_Spec core_limit_spec;

#endif
