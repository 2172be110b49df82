/* RedisCommand.exchange(): a command and its answer over a plain socket. */
#ifndef WEIR_EXT_REDIS_IO_H
#define WEIR_EXT_REDIS_IO_H

#include "core.h"

PyObject *redis_command_exchange(PyObject *command, PyObject *const *args, Py_ssize_t nargs);

#endif
