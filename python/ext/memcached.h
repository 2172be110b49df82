/* MemcachedCheck, memcached_checks() and memcached_read(). */
#ifndef WEIR_EXT_MEMCACHED_H
#define WEIR_EXT_MEMCACHED_H

#include "core.h"

/* Adds them to the module. 0, or -1 with an exception set. */
int memcached_init(PyObject *module);

#endif
