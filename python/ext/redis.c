/*
 * RedisCodec and RedisCommand: commands and replies of decisions on Redis. They have no connection:
 * weir.stores.redis sends and receives the bytes.
 *
 *     command = codec.decide(limits, keys, costs, mode)
 *     socket.send(command)                    the buffer protocol
 *     decision = command.read(socket.recv(65536))
 */
#include "redis.h"

#include <stddef.h>
#include <structmember.h>
#include <time.h>

#include "convert.h"
#include "evaluation.h"
#include "evaluation_store.h"
#include "key.h"
#include "redis_command.h"
#include "redis_command_type.h"
#include "remote/names.h"
#include "weir/redis.h"
#include "values.h"

struct redis_codec {
    PyObject_HEAD
    struct core_state *state;
    PyTypeObject *command_type;
    PyObject *prefix; /* bytes */
    int64_t clock_ns;
    int32_t clock_given;
};

#define CODEC(object) ((struct redis_codec *)(object))

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
    return redis_command_new(self->state, self->command_type, &redis);
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
     PyDoc_STR("clear($self, limits, keys, /)\n--\n\n"
               "The command that deletes these counters.")},
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

/* --------------------------------------------------------------------------------------- module */

/* Adds the script as a constant, for callers that send commands in other ways. */
static int add_script(PyObject *module) {
    size_t len;
    const char *script = weir_redis_script(&len);
    PyObject *bytes = PyBytes_FromStringAndSize(script, (Py_ssize_t)len);
    int rc = bytes ? PyModule_AddObjectRef(module, "REDIS_SCRIPT", bytes) : -1;
    Py_XDECREF(bytes);
    return rc;
}

int redis_init(PyObject *module) {
    PyTypeObject *command = core_add_type(module, &redis_command_spec, NULL);
    PyTypeObject *codec = command ? core_add_type(module, &codec_spec, NULL) : NULL;
    int rc = codec ? add_script(module) : -1;
    Py_XDECREF(codec);
    Py_XDECREF(command);
    return rc;
}
