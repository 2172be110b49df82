/*
 * The clock: time.time(), looked up in the `time` module at each decision.
 *
 * freezegun and hiro replace the function in the module; time-machine replaces the C function of
 * the builtin. Whatever function is found is called. If neither was replaced, clock_gettime() is
 * called directly, without a Python call and a float. Otherwise that takes half the time of a
 * decision.
 */
#include "clock.h"

#include <dlfcn.h>
#include <time.h>

#include "values.h"

#define NOW_MAX_SECONDS ((double)(WEIR_NOW_MAX / 1000000000))

#if PY_VERSION_HEX < 0x030C0000
/* The dict's version changes with every change of the dict (PEP 509; gone since 3.12). */
static bool unchanged(const struct core_clock *clock) {
    return ((PyDictObject *)clock->names)->ma_version_tag == clock->version;
}

static void seen(struct core_clock *clock) {
    clock->version = ((PyDictObject *)clock->names)->ma_version_tag;
}
#else
static bool unchanged(const struct core_clock *Py_UNUSED(clock)) {
    return false;
}

static void seen(struct core_clock *Py_UNUSED(clock)) {
}
#endif

/* Whether a function belongs to the interpreter and was not replaced. */
static bool from_interpreter(PyCFunction function) {
    Dl_info of_function, of_interpreter;
    return dladdr((void *)function, &of_function) &&
           dladdr((void *)PyFloat_FromDouble, &of_interpreter) &&
           of_function.dli_fbase == of_interpreter.dli_fbase;
}

int core_clock_init(struct core_clock *clock) {
    PyObject *module = PyImport_ImportModule("time");
    if (!module)
        return -1;
    clock->names = Py_NewRef(PyModule_GetDict(module));
    clock->name = PyUnicode_InternFromString("time");
    PyObject *builtin = PyObject_GetAttrString(module, "time");
    Py_DECREF(module);
    if (builtin && PyCFunction_CheckExact(builtin) &&
        from_interpreter(PyCFunction_GET_FUNCTION(builtin))) {
        clock->builtin = Py_NewRef(builtin);
        clock->function = PyCFunction_GET_FUNCTION(builtin);
    }
    Py_XDECREF(builtin);
    return clock->name && builtin ? 0 : -1;
}

int core_clock_traverse(struct core_clock *clock, visitproc visit, void *arg) {
    Py_VISIT(clock->names);
    Py_VISIT(clock->builtin);
    return 0;
}

void core_clock_clear(struct core_clock *clock) {
    Py_CLEAR(clock->names);
    Py_CLEAR(clock->name);
    Py_CLEAR(clock->builtin);
}

int64_t core_moment(PyObject *object, const char *what) {
    double seconds = core_number(object, what);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0.0 && seconds <= NOW_MAX_SECONDS)) {
        PyErr_Format(PyExc_ValueError, "%s is %R: only moments from 1970 to 2116 can be decided",
                     what, object);
        return -1;
    }
    return (int64_t)(seconds * 1e6 + 0.5) * 1000;
}

static int64_t call(PyObject *function) {
    PyObject *reading = PyObject_Vectorcall(function, NULL, 0, NULL);
    if (!reading)
        return -1;
    int64_t now_ns = core_moment(reading, "the result of time.time()");
    Py_DECREF(reading);
    return now_ns;
}

static int64_t read_clock(struct core_clock *clock) {
    struct timespec now;
    if (PyCFunction_GET_FUNCTION(clock->builtin) != clock->function ||
        clock_gettime(CLOCK_REALTIME, &now) != 0 || now.tv_sec < 0 ||
        (double)now.tv_sec >= NOW_MAX_SECONDS)
        return call(clock->builtin);
    return ((int64_t)now.tv_sec * 1000000 + (now.tv_nsec + 500) / 1000) * 1000;
}

int64_t core_now(struct core_state *state) {
    struct core_clock *clock = &state->clock;
    if (clock->builtin && unchanged(clock))
        return clock->latest = read_clock(clock);
    PyObject *function = PyDict_GetItemWithError(clock->names, clock->name);
    if (function && function == clock->builtin) {
        seen(clock);
        return clock->latest = read_clock(clock);
    }
    if (!function) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_AttributeError, "module 'time' has no attribute 'time'");
        return -1;
    }
    Py_INCREF(function);
    int64_t now_ns = call(function);
    Py_DECREF(function);
    return clock->latest = now_ns;
}
