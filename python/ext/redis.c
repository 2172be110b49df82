/*
 * RedisCodec and RedisCommand: commands and replies of decisions on Redis. They have no connection:
 * weir.stores.redis sends and receives the bytes.
 *
 *     command = codec.decide(limits, keys, costs, mode)
 *     socket.send(command)                    the buffer protocol
 *     decision = command.read(socket.recv(65536))
 */
#include "convert.h"
#include "prepared_check.h"
#include "stores.h"

#include <stddef.h>
#include <structmember.h>
#include <time.h>

#include "digest.h"
#include "remote/names.h"
#include "weir/redis.h"

struct redis_codec {
    PyObject_HEAD
    struct core_state *state;
    PyTypeObject *command_type;
    PyObject *prefix; /* bytes */
    int64_t clock_ns;
    int32_t clock_given;
};

/* A command, ready to be sent. Its limits follow its bytes, for reading the reply. */
struct redis_command {
    PyObject_VAR_HEAD struct core_state *state;
    int32_t clear;
    int32_t count;
    size_t len;
    size_t limits_at; /* of count struct weir_limit in `bytes` */
    _Alignas(8) char bytes[];
};

#define CODEC(object) ((struct redis_codec *)(object))
#define COMMAND(object) ((struct redis_command *)(object))

/* ----------------------------------------------------------------------------------- RedisCommand */

static PyObject *new_command(struct redis_codec *codec, const struct weir_redis_request *request) {
    size_t room = weir_redis_room(request);
    size_t limits = request->n * sizeof(struct weir_limit), at = (room + 7) & ~(size_t)7;
    if (room == 0)
        return core_raise(codec->state, WEIR_EINVAL, NULL);
    struct redis_command *self =
        COMMAND(codec->command_type->tp_alloc(codec->command_type, (Py_ssize_t)(at + limits)));
    if (!self)
        return NULL;
    struct weir_redis_command command;
    int rc = weir_redis_command(request, self->bytes, room, &command);
    if (rc < 0) {
        Py_DECREF(self);
        return core_raise(codec->state, rc, NULL);
    }
    self->state = codec->state;
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

/* Skips "$<length>\r\n" at *at; returns the length. Only for bytes that weir_redis_command() wrote. */
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
     PyDoc_STR(
         "read($self, data, /)\n--\n\n"
         "The result of a reply: a Decision, or True for a command that clears; None if more "
         "bytes\n"
         "are needed; False if the server does not have the script: send whole() then; a str, the\n"
         "server's error. Raises ValueError if it is not a reply to this command.")},
    {"exchange", (PyCFunction)(void (*)(void))redis_command_exchange, METH_FASTCALL,
     PyDoc_STR(
         "exchange($self, fd, seconds, message=None, /)\n--\n\n"
         "Sends the command over a socket and returns the result of read() for the reply, within\n"
         "`seconds` (None: no deadline). message: bytes to send instead, such as whole().\n"
         "ConnectionAbortedError: the server cannot have executed the command. Signal handlers\n"
         "run during the call.")},
    {"digest", command_digest, METH_NOARGS,
     PyDoc_STR("digest($self, /)\n--\n\nA strong hash of the command, 40 bytes.")},
    {"slot", command_slot, METH_NOARGS,
     PyDoc_STR("slot($self, /)\n--\n\nThe Cluster slot of the first counter.")},
    {"whole", command_whole, METH_NOARGS,
     PyDoc_STR("whole($self, /)\n--\n\nThe command with the script itself.")},
    {"arguments", command_arguments, METH_NOARGS,
     PyDoc_STR("arguments($self, /)\n--\n\nThe command as a list of its arguments, bytes each.")},
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

static PyType_Spec command_spec = {
    .name = "weir._core.RedisCommand",
    .basicsize = offsetof(struct redis_command, bytes),
    .itemsize = 1,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = command_slots,
};

/* ------------------------------------------------------------------------------------- RedisCodec */

static PyObject *codec_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"prefix", NULL};
    PyObject *prefix = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|S:RedisCodec", (char **)names, &prefix))
        return NULL;
    if (prefix && (PyBytes_GET_SIZE(prefix) > WEIR_REDIS_PREFIX_MAX ||
                   memchr(PyBytes_AS_STRING(prefix), '{', (size_t)PyBytes_GET_SIZE(prefix)) ||
                   memchr(PyBytes_AS_STRING(prefix), '}', (size_t)PyBytes_GET_SIZE(prefix)))) {
        PyErr_Format(PyExc_ValueError,
                     "a prefix of names has at most %d bytes, none of them { or }",
                     WEIR_REDIS_PREFIX_MAX);
        return NULL;
    }
    PyObject *module = PyType_GetModule(type);
    PyObject *command_type = module ? PyObject_GetAttrString(module, "RedisCommand") : NULL;
    struct redis_codec *self = command_type ? CODEC(type->tp_alloc(type, 0)) : NULL;
    if (!self) {
        Py_XDECREF(command_type);
        return NULL;
    }
    self->state = PyModule_GetState(module);
    self->command_type = (PyTypeObject *)command_type;
    self->prefix = prefix ? Py_NewRef(prefix) : PyBytes_FromString("weir");
    if (!self->prefix)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int codec_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(CODEC(object)->command_type);
    return 0;
}

static void codec_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(CODEC(object)->command_type);
    Py_XDECREF(CODEC(object)->prefix);
    type->tp_free(object);
    Py_DECREF(type);
}

/* The time of the machine, even if tests replace time.time(): the server does not use that. */
static int64_t true_time_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static PyObject *make_of(struct redis_codec *self, const struct weir_check *checks, size_t n,
                         int64_t mode, int32_t clear) {
    struct weir_redis_request redis = {
        .checks = checks,
        .n = n,
        .mode = (int32_t)mode,
        .clear = clear,
        .clock_given = self->clock_given,
        .clock_ns = self->clock_ns,
        .now_ns = true_time_ns(),
        .prefix = PyBytes_AS_STRING(self->prefix),
        .prefix_len = (size_t)PyBytes_GET_SIZE(self->prefix),
    };
    return new_command(self, &redis);
}

static PyObject *make(struct redis_codec *self, PyObject *limits, PyObject *keys, PyObject *costs,
                      int64_t mode, int32_t clear) {
    struct core_request request;
    PyObject *command = NULL;
    if (core_request_read(&request, self->state, NULL, limits, keys, costs) == 0)
        command = make_of(self, request.check, (size_t)request.count, mode, clear);
    core_request_free(&request);
    return command;
}

static PyObject *codec_prepared(PyObject *object, PyObject *args) {
    struct redis_codec *self = CODEC(object);
    PyObject *evaluation, *command = NULL;
    int mode, settling;
    unsigned parts;
    if (!PyArg_ParseTuple(args, "O!iIp:prepared", self->state->evaluation_type, &evaluation, &mode,
                          &parts, &settling))
        return NULL;
    if (mode < WEIR_HIT || mode > WEIR_REFUND) {
        PyErr_SetString(PyExc_ValueError, "mode must be HIT, TEST, EACH or REFUND");
        return NULL;
    }
    struct core_expanded expanded;
    if (core_evaluation_expand((struct core_evaluation *)evaluation, &expanded, parts, false) ==
        0) {
        for (int n = 0; settling && n < expanded.count; n++)
            expanded.check[n].flags = 0;
        command = make_of(self, expanded.check, (size_t)expanded.count, mode, 0);
    }
    core_expanded_free(&expanded);
    return command;
}

static PyObject *codec_decide(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    int64_t mode = WEIR_HIT;
    if (nargs < 2 || nargs > 4) {
        PyErr_Format(PyExc_TypeError, "decide() takes 2 to 4 arguments (%zd given)", nargs);
        return NULL;
    }
    if (nargs > 3 && core_count(args[3], "mode", &mode) < 0)
        return NULL;
    if (mode > WEIR_REFUND) {
        PyErr_SetString(PyExc_ValueError, "mode must be HIT, TEST, EACH or REFUND");
        return NULL;
    }
    return make(CODEC(object), args[0], args[1], nargs > 2 ? args[2] : NULL, mode, 0);
}

static PyObject *codec_clear(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "clear() takes 2 arguments (%zd given)", nargs);
        return NULL;
    }
    return make(CODEC(object), args[0], args[1], NULL, WEIR_HIT, 1);
}

static PyObject *codec_set_clock(PyObject *object, PyObject *args) {
    double seconds;
    int given = 0;
    if (!PyArg_ParseTuple(args, "d|p:set_clock", &seconds, &given))
        return NULL;
    if (!(seconds >= -4e9 && seconds <= 4.6e9)) {
        PyErr_SetString(PyExc_ValueError, "not a valid time");
        return NULL;
    }
    CODEC(object)->clock_ns = (int64_t)(seconds * 1e6 + (seconds < 0 ? -0.5 : 0.5)) * 1000;
    CODEC(object)->clock_given = given;
    Py_RETURN_NONE;
}

/* The Cluster slot of each check's counter. */
static PyObject *codec_find_slots(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct redis_codec *self = CODEC(object);
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "slots() takes 2 arguments (%zd given)", nargs);
        return NULL;
    }
    struct core_request request;
    PyObject *list = NULL;
    struct core_key name;
    core_key_init(&name);
    if (core_request_read(&request, self->state, NULL, args[0], args[1], NULL) == 0)
        list = PyList_New(request.count);
    for (Py_ssize_t i = 0; list && i < request.count; i++) {
        size_t prefix_len = (size_t)PyBytes_GET_SIZE(self->prefix);
        name.len = 0;
        PyObject *slot = NULL;
        if (core_key_reserve(&name, prefix_len + request.check[i].key_len + WEIR_NAME_REST) == 0) {
            size_t len = weir_remote_name(&request.check[i], PyBytes_AS_STRING(self->prefix),
                                          prefix_len, name.data);
            slot = PyLong_FromLong(weir_redis_slot(name.data, len));
        }
        if (!slot)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, slot);
    }
    core_key_free(&name);
    core_request_free(&request);
    return list;
}

static PyMethodDef codec_methods[] = {
    {"slots", (PyCFunction)(void (*)(void))codec_find_slots, METH_FASTCALL,
     PyDoc_STR("slots($self, limits, keys, /)\n--\n\n"
               "The Cluster slot of each counter.")},
    {"decide", (PyCFunction)(void (*)(void))codec_decide, METH_FASTCALL,
     PyDoc_STR("decide($self, limits, keys, costs=None, mode=HIT, /)\n--\n\n"
               "The command for the arguments of Storage.decide().")},
    {"prepared", codec_prepared, METH_VARARGS,
     PyDoc_STR("prepared($self, evaluation, mode, parts, settling, /)\n--\n\n"
               "The command that decides parts of a prepared check.")},
    {"clear", (PyCFunction)(void (*)(void))codec_clear, METH_FASTCALL,
     PyDoc_STR("clear($self, limits, keys, /)\n--\n\nThe command that deletes these counters.")},
    {"set_clock", codec_set_clock, METH_VARARGS,
     PyDoc_STR(
         "set_clock($self, seconds, given=False, /)\n--\n\n"
         "For tests: adds `seconds` to the server's time in later commands; or, if `given`, uses\n"
         "it as the time.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef codec_members[] = {
    {"prefix", T_OBJECT_EX, offsetof(struct redis_codec, prefix), READONLY,
     PyDoc_STR("The first part of all names.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot codec_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR("RedisCodec(prefix=b'weir')\n--\n\n"
                       "Encodes commands for Redis. prefix: the first part of all names.")},
    {Py_tp_new, codec_new},
    {Py_tp_dealloc, codec_dealloc},
    {Py_tp_traverse, codec_traverse},
    {Py_tp_methods, codec_methods},
    {Py_tp_members, codec_members},
    {0, NULL},
};

static PyType_Spec codec_spec = {
    .name = "weir._core.RedisCodec",
    .basicsize = sizeof(struct redis_codec),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = codec_slots,
};

/* ----------------------------------------------------------------------------------------- module */

static int add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int rc = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    return rc;
}

/* Adds the script as a constant, for callers that send commands in other ways. */
static int add_script(PyObject *module) {
    size_t len;
    const char *script = weir_redis_script(&len);
    PyObject *bytes = PyBytes_FromStringAndSize(script, (Py_ssize_t)len);
    int rc = bytes ? PyModule_AddObjectRef(module, "REDIS_SCRIPT", bytes) : -1;
    Py_XDECREF(bytes);
    return rc;
}

int remote_init(PyObject *module) {
    return add_type(module, &command_spec) < 0 || add_type(module, &codec_spec) < 0 ||
                   add_script(module) < 0 || memcached_init(module) < 0 || state_init(module) < 0
               ? -1
               : 0;
}
