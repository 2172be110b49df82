/* The Python type of RedisCommand: its bytes, its reply, and how it is sent. */
#include "redis_command_type.h"

#include <stddef.h>

#include "digest.h"
#include "redis_command.h"
#include "redis_io.h"
#include "remote/names.h"

#define COMMAND(object) ((struct redis_command *)(object))

static PyObject *command_read(PyObject *object, PyObject *argument) {
    Py_buffer view;
    if (PyObject_GetBuffer(argument, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *answer = redis_command_answer(object, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return answer;
}

/* Identifies this request without containing the client in clear. */
static PyObject *command_digest(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    char hex[WEIR_DIGEST_HEX];
    weir_digest(COMMAND(object)->bytes, COMMAND(object)->len, hex);
    return PyBytes_FromStringAndSize(hex, sizeof hex);
}

/*
 * Skips "$<length>\r\n" at *at; returns the length. Only for bytes that weir_redis_command() wrote.
 */
static size_t take_length(const char **at) {
    size_t len = 0;
    for (++*at; **at != '\r'; ++*at)
        len = len * 10 + (size_t)(**at - '0');
    *at += 2;
    return len;
}

/* The start of the argument after the name of the script; *count: all arguments. */
static const char *behind_script(const struct redis_command *self, size_t *count) {
    const char *at = self->bytes;
    *count = take_length(&at);
    for (int i = 0; i < 2; i++) {
        size_t len = take_length(&at);
        at += len + 2;
    }
    return at;
}

static PyObject *command_whole(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct redis_command *self = COMMAND(object);
    size_t count, script_len;
    const char *rest = behind_script(self, &count), *script = weir_redis_script(&script_len);
    char head[80];
    int head_len = snprintf(head, sizeof head, "*%zu\r\n$4\r\nEVAL\r\n$%zu\r\n", count, script_len);
    size_t rest_len = self->len - (size_t)(rest - self->bytes);
    PyObject *bytes =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((size_t)head_len + script_len + 2 + rest_len));
    if (!bytes)
        return NULL;
    char *to = PyBytes_AS_STRING(bytes);
    memcpy(to, head, (size_t)head_len);
    to += head_len;
    memcpy(to, script, script_len);
    to += script_len;
    memcpy(to, "\r\n", 2);
    memcpy(to + 2, rest, rest_len);
    return bytes;
}

static PyObject *command_arguments(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct redis_command *self = COMMAND(object);
    const char *at = self->bytes;
    size_t count = take_length(&at);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        size_t len = take_length(&at);
        PyObject *item = PyBytes_FromStringAndSize(at, (Py_ssize_t)len);
        at += len + 2;
        if (!item)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *command_slot(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    const char *at = COMMAND(object)->bytes;
    take_length(&at);
    for (int before = COMMAND(object)->clear ? 1 : 3; before > 0; before--) {
        size_t len = take_length(&at);
        at += len + 2;
    }
    size_t len = take_length(&at);
    return PyLong_FromLong(weir_redis_slot(at, len));
}

static int command_buffer(PyObject *object, Py_buffer *view, int flags) {
    return PyBuffer_FillInfo(view, object, COMMAND(object)->bytes, (Py_ssize_t)COMMAND(object)->len,
                             1, flags);
}

static Py_ssize_t command_length(PyObject *object) {
    return (Py_ssize_t)COMMAND(object)->len;
}

static void command_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef command_methods[] = {
    {"read", command_read, METH_O,
     PyDoc_STR("read($self, data, /)\n--\n\n"
               "The result of a reply: a Decision, or True for a command that clears; None if\n"
               "more bytes are needed; False if the server does not have the script: send\n"
               "whole() then; a str, the server's error. Raises ValueError if it is not a reply\n"
               "to this command.")},
    {"exchange", (PyCFunction)(void (*)(void))redis_command_exchange, METH_FASTCALL,
     PyDoc_STR(
         "exchange($self, fd, seconds, message=None, /)\n--\n\n"
         "Sends the command over a socket and returns the result of read() for the reply, within\n"
         "`seconds` (None: no deadline). message: bytes to send instead, such as whole().\n"
         "ConnectionAbortedError: the server cannot have executed the command. Signal handlers\n"
         "run during the call.")},
    {"digest", command_digest, METH_NOARGS,
     PyDoc_STR("digest($self, /)\n--\n\n"
               "A strong hash of the command, 40 bytes.")},
    {"slot", command_slot, METH_NOARGS,
     PyDoc_STR("slot($self, /)\n--\n\n"
               "The Cluster slot of the first counter.")},
    {"whole", command_whole, METH_NOARGS,
     PyDoc_STR("whole($self, /)\n--\n\n"
               "The command with the script itself.")},
    {"arguments", command_arguments, METH_NOARGS,
     PyDoc_STR("arguments($self, /)\n--\n\n"
               "The command as a list of its arguments, bytes each.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot command_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("A command for Redis; made by RedisCodec. Its bytes are its buffer.")},
    {Py_tp_dealloc, command_dealloc},
    {Py_tp_methods, command_methods},
    {Py_sq_length, command_length},
    {Py_bf_getbuffer, command_buffer},
    {0, NULL},
};

PyType_Spec redis_command_spec = {
    .name = "weir._core.RedisCommand",
    .basicsize = offsetof(struct redis_command, bytes),
    .itemsize = 1,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = command_slots,
};
