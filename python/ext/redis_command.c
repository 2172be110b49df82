/* Commands for Redis and their replies. redis_command_type.c has the Python type. */
#include "redis_command.h"

#include "decision.h"
#include "errors.h"

#define COMMAND(object) ((struct redis_command *)(object))

PyObject *redis_command_new(struct core_state *state, PyTypeObject *type,
                            const struct weir_redis_request *request) {
    size_t room = weir_redis_room(request);
    size_t limits = request->n * sizeof(struct weir_limit), at = (room + 7) & ~(size_t)7;
    if (room == 0)
        return core_raise(state, WEIR_EINVAL, NULL);
    struct redis_command *self = COMMAND(type->tp_alloc(type, (Py_ssize_t)(at + limits)));
    if (!self)
        return NULL;
    struct weir_redis_command command;
    int rc = weir_redis_command(request, self->bytes, room, &command);
    if (rc < 0) {
        Py_DECREF(self);
        return core_raise(state, rc, NULL);
    }
    self->state = state;
    self->clear = request->clear;
    self->count = (int32_t)request->n;
    self->len = command.len;
    self->limits_at = at;
    for (size_t i = 0; i < request->n; i++)
        memcpy(self->bytes + at + i * sizeof(struct weir_limit), request->checks[i].limit,
               sizeof(struct weir_limit));
    return (PyObject *)self;
}

PyObject *redis_command_answer(PyObject *object, const char *bytes, size_t len) {
    struct redis_command *self = COMMAND(object);
    struct weir_check checks[WEIR_CHECKS_MAX];
    const struct weir_limit *limits = (const struct weir_limit *)(self->bytes + self->limits_at);
    for (int i = 0; i < self->count; i++)
        checks[i] = (struct weir_check){.limit = &limits[i]};
    struct weir_redis_request request = {
        .checks = checks, .n = (size_t)self->count, .clear = self->clear};
    struct weir_redis_reply reply;
    PyObject *result = NULL;
    struct core_decision *decision = core_decision_new(self->state, self->count);
    if (!decision)
        goto out;
    int rc = weir_redis_read(bytes, len, &request, decision->verdict, &reply);
    if (rc < 0)
        PyErr_SetString(PyExc_ValueError, "not a reply to a decision");
    else if (rc == 0)
        result = Py_NewRef(Py_None);
    else if (reply.kind == WEIR_REDIS_DECIDED) {
        decision->now_ns = reply.now_ns;
        decision->decision = reply.decision;
        result = Py_NewRef((PyObject *)decision);
    } else if (reply.kind == WEIR_REDIS_ERROR)
        result = PyUnicode_DecodeUTF8(reply.error, (Py_ssize_t)reply.error_len, "backslashreplace");
    else
        result = PyBool_FromLong(reply.kind == WEIR_REDIS_CLEARED);
out:
    Py_XDECREF(decision);
    return result;
}
