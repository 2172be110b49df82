/* RedisCodec and RedisCommand. */
#ifndef WEIR_EXT_REDIS_H
#define WEIR_EXT_REDIS_H

#include "core.h"

/* Adds them and REDIS_SCRIPT to the module. 0, or -1 with an exception set. */
int redis_init(PyObject *module);

#endif
