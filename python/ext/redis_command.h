/* A command for Redis, ready to be sent, and the reading of its reply. */
#ifndef WEIR_EXT_REDIS_COMMAND_H
#define WEIR_EXT_REDIS_COMMAND_H

#include "core.h"
#include "weir/redis.h"

/* The object RedisCommand. Its limits follow its bytes, for reading the reply. */
struct redis_command {
    PyObject_VAR_HEAD struct core_state *state;
    int32_t clear;
    int32_t count;
    size_t len;
    size_t limits_at; /* of count struct weir_limit in `bytes` */
    _Alignas(8) char bytes[];
};

/* A new RedisCommand of this type; NULL with an exception set. */
PyObject *redis_command_new(struct core_state *state, PyTypeObject *type,
                            const struct weir_redis_request *request);

/* What RedisCommand.read() returns for these bytes. */
PyObject *redis_command_answer(PyObject *command, const char *bytes, size_t len);

#endif
