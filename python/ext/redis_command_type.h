/* The Python type RedisCommand. */
#ifndef WEIR_EXT_REDIS_COMMAND_TYPE_H
#define WEIR_EXT_REDIS_COMMAND_TYPE_H

#include "core.h"

extern PyType_Spec redis_command_spec;

#endif
