/* The Python type RateLimiter. */
#ifndef WEIR_EXT_LIMITER_TYPE_H
#define WEIR_EXT_LIMITER_TYPE_H

#include "core.h"

extern PyType_Spec core_limiter_spec;

#endif
