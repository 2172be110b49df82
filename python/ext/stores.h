/* The codecs of remote stores. */
#ifndef WEIR_STORES_EXT_H
#define WEIR_STORES_EXT_H

#include "core.h"

/* Add RedisCodec, MemcachedCheck, StateRequest and related names to the module. 0, or -1 with an exception set. */
int remote_init(PyObject *module);
int memcached_init(PyObject *module);
int state_init(PyObject *module);

/* What RedisCommand.read() returns for these bytes. */
PyObject *redis_command_answer(PyObject *command, const char *bytes, size_t len);

/* RedisCommand.exchange(). */
PyObject *redis_command_exchange(PyObject *command, PyObject *const *args, Py_ssize_t nargs);

#endif
