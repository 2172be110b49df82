/*
 * weir._core: Python objects for the structs of libweir.
 *
 *     module.c           the module: its types and constants; functions.c, core.c (its state)
 *     values.c           numbers and texts; errors.c, tuples.c (named tuples), clock.c
 *                        (time.time())
 *     key.c              identifiers -> the bytes of a key
 *     limit.c            Limit; limit_type.c has its members and type; strategies.c, zone.c
 *     item_class.c       its subclasses: RateLimitItemPerHour and classes of applications; item.c
 *     convert.c          sequences of limits, keys and costs -> struct weir_check
 *     decision.c         Decision
 *     table.c            the handle of a table; lost.c reopens one whose file was removed; label.c,
 *                        ipv6_prefix.c
 *     table_type.c       Table; its methods are in table_open.c, stats.c, meter.c, rules.c,
 *                        client.c
 *     prepared_check.c   PreparedCheck; prepared_type.c
 *     evaluation.c       Evaluation; evaluation_store.c, evaluation_type.c
 *     flask_*.c          for Flask and Werkzeug: request hooks, request state, address
 *     limiter.c          RateLimiter; limiter_type.c
 *     redis*.c, memcached.c, state_codec.c   codecs of the remote stores
 *
 * A file includes and calls only files of its own layer or of a lower one; script/layering has the
 * layers.
 *
 * All data is in the module's state, so each interpreter has its own. Objects whose methods need
 * the state have a pointer to it; their type keeps the module alive.
 *
 * In Python, times are floats in seconds; inside, they are whole microseconds. The result of
 * time.time() is rounded to the nearest microsecond, and every returned time or duration is rounded
 * up to the next one. Until 2106, a float made from a microsecond converts back to the same
 * microsecond, so a request at the returned reset_at is allowed.
 */
#ifndef WEIR_EXT_CORE_H
#define WEIR_EXT_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <string.h>

#include "weir/weir.h"

/* Type slots of Python store functions as void *, which POSIX allows and ISO C does not. */
#pragma GCC diagnostic ignored "-Wpedantic"

/* The clock of clock.c. */
struct core_clock {
    PyObject *names;      /* the dict of module time */
    PyObject *name;       /* "time" */
    PyObject *builtin;    /* the interpreter's time.time; NULL: it was replaced before the import */
    PyCFunction function; /* the C function of `builtin`, unless replaced */
    int64_t latest;       /* the last result of core_now() */
    uint64_t version;     /* of `names` when `builtin` was last found there */
};

struct core_state {
    struct core_clock clock;
    PyTypeObject *limit_type;
    PyTypeObject *decision_type;
    PyTypeObject *table_type;
    PyTypeObject *limiter_type;
    PyTypeObject *prepared_type;
    PyTypeObject *evaluation_type;
    PyTypeObject *request_type;
    PyTypeObject *plan_type;
    PyTypeObject *hooks_type;
    PyTypeObject *address_type;
    PyTypeObject *peek_type;
    PyTypeObject *verdict_type; /* named tuples, made by collections.namedtuple */
    PyTypeObject *stats_type;
    PyTypeObject *granularity_type;
    PyTypeObject *counts_type;
    PyTypeObject *top_client_type;
    PyTypeObject *registered_type;
    PyTypeObject *rule_type;
    PyObject *unit_classes;  /* tuple of RateLimitItemPerSecond to ...PerYear; NULL: not set yet */
    PyObject *granularities; /* dict: name of a unit -> the class of its limits in parse() */
    PyObject *item_hooks;    /* tuple of the functions of weir.limits that item.c calls */
    PyObject *error;         /* WeirError and its subclasses */
    PyObject *parse_error;
    PyObject *storage_error;
    PyObject *table_error;
    PyObject *str_cost, *str_mode, *str_decide, *str_decide_prepared, *str_clear, *str_allowed,
        *str_remaining, *str_reset_at;
    PyObject *default_namespace; /* "LIMITER" */
};

/* The module's definition. module.c completes it. */
extern struct PyModuleDef core_module;

/* The module state of a type of this module or of its subclass; NULL with an exception set. */
struct core_state *core_state_of(PyTypeObject *type);

#endif
