/*
 * RateLimiter: one strategy over one store.
 *
 * On a Table, each call is one weir_decide() of one check, with its key on the stack. The only
 * Python objects created are the time and the result. On any other store, the limiter calls its
 * decide() and clear(), as documented in weir.storage.Storage.
 */
#include "limiter.h"

#include "clock.h"
#include "errors.h"
#include "item.h"
#include "label.h"
#include "limit.h"
#include "lost.h"
#include "tuples.h"
#include "values.h"

#define SELF(object) ((struct core_limiter *)(object))

/* ---------------------------------------------------------------------------------- arguments */

/* The arguments of a call. */
struct call {
    struct core_limiter *self;
    struct core_limit *item;
    PyObject *const *identifiers;
    Py_ssize_t count;
    int64_t cost;
    PyObject *held; /* owner of item and identifiers, if these are not from the arguments */
};

/* Reads `cost` and, if allowed, `mode`. */
static int read_keywords(struct call *call, PyObject *const *values, PyObject *names,
                         int64_t *mode) {
    struct core_state *state = call->self->state;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (name == state->str_cost || PyUnicode_Compare(name, state->str_cost) == 0) {
            if (core_count(values[i], "cost", &call->cost) < 0)
                return -1;
        } else if (mode && PyUnicode_Compare(name, state->str_mode) == 0) {
            if (core_count(values[i], "mode", mode) < 0)
                return -1;
            if (*mode > WEIR_REFUND) {
                PyErr_SetString(PyExc_ValueError, "mode must be HIT, TEST, EACH or REFUND");
                return -1;
            }
        } else {
            PyErr_Format(PyExc_TypeError, "unexpected keyword argument %R", name);
            return -1;
        }
    }
    return 0;
}

/* Gets the limit and identifiers from an item of an application's class. */
static int ask_item(struct call *call) {
    call->held =
        core_item_plain(call->self->state, (PyObject *)call->item, call->identifiers, call->count);
    if (!call->held)
        return -1;
    PyObject *identifiers = PyTuple_GET_ITEM(call->held, 1);
    call->item = (struct core_limit *)PyTuple_GET_ITEM(call->held, 0);
    call->identifiers = PySequence_Fast_ITEMS(identifiers);
    call->count = PyTuple_GET_SIZE(identifiers);
    return 0;
}

/* Reads the arguments of a call. -1 with an exception set, and nothing to release. */
static inline int read_call(struct call *call, PyObject *object, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames, int64_t *mode) {
    call->self = SELF(object);
    call->cost = 1;
    call->held = NULL;
    if (nargs < 1 || !core_is_limit(call->self->state, args[0])) {
        PyErr_Format(PyExc_TypeError, "the first argument must be a Limit, not %.100s",
                     nargs < 1 ? "missing" : Py_TYPE(args[0])->tp_name);
        return -1;
    }
    if (!call->self->storage) {
        PyErr_SetString(PyExc_RuntimeError, "RateLimiter.__init__() was not called");
        return -1;
    }
    call->item = (struct core_limit *)args[0];
    call->identifiers = args + 1;
    call->count = nargs - 1;
    if (call->item->own && ask_item(call) < 0)
        return -1;
    if (!kwnames || read_keywords(call, args + nargs, kwnames, mode) == 0)
        return 0;
    Py_CLEAR(call->held);
    return -1;
}

/* ----------------------------------------------------------------------------------- on a Table */

/* Builds the check of a call. `copy`: for the limit with the limiter's strategy, if it has none. */
static int make_check(const struct call *call, struct core_key *key, struct weir_limit *copy,
                      struct weir_check *check) {
    const struct core_limiter *self = call->self;
    if (core_key_table(key, self->table) < 0)
        return -1;
    size_t mark = key->len;
    if (core_key_join(key, call->item->prefix, call->identifiers, call->count) < 0 ||
        core_key_within_bounds(key->len) < 0)
        return -1;
    *check = (struct weir_check){.limit = &call->item->limit};
    if (!call->item->has_strategy && self->strategy != WEIR_FIXED_WINDOW) {
        *copy = call->item->limit;
        copy->strategy = self->strategy;
        check->limit = copy;
    }
    check->key = key->data;
    check->key_len = key->len;
    check->cost = call->cost;
    if (call->count > 0)
        core_first_client(check, call->item,
                          mark + (size_t)PyBytes_GET_SIZE(call->item->prefix) + 1, key->first);
    return 0;
}

/*
 * The open table and, in *store, a reference to its object; an identifier's __str__() may have
 * closed it or given the limiter another store.
 */
static struct weir_table *table_now(const struct call *call, struct core_table **store) {
    *store = call->self->table;
    if (*store) {
        Py_INCREF((PyObject *)*store);
        return core_table_borrow(*store);
    }
    PyErr_SetString(PyExc_RuntimeError, "the limiter was given another store during the call");
    return NULL;
}

static int decide_in_c(const struct call *call, enum weir_mode mode, struct weir_verdict *verdict) {
    struct core_key key;
    struct weir_check check;
    struct weir_limit copy;
    core_key_init(&key);
    int rc = -1;
    if (make_check(call, &key, &copy, &check) == 0) {
        /* Reading the clock may run Python code that closes the table, so the table comes last. */
        int64_t now_ns = core_now(call->self->state);
        struct core_table *store = NULL;
        struct weir_table *table = now_ns >= 0 ? table_now(call, &store) : NULL;
        if (table) {
            check.label = core_label(store, call->item);
            CORE_PATIENTLY(store, rc, weir_decide(table, &check, 1, now_ns, mode, verdict, NULL));
            if (rc < 0) {
                core_raise(call->self->state, rc, NULL);
                rc = -1;
            }
        }
        Py_XDECREF((PyObject *)store);
    }
    core_key_free(&key);
    return rc;
}

static int clear_in_c(const struct call *call) {
    struct core_key key;
    struct weir_check check;
    struct weir_limit copy;
    core_key_init(&key);
    int rc = make_check(call, &key, &copy, &check);
    struct core_table *store = NULL;
    struct weir_table *table = rc == 0 ? table_now(call, &store) : NULL;
    if (table) {
        CORE_PATIENTLY(store, rc, weir_clear(table, &check, 1));
        if (rc < 0)
            core_raise(call->self->state, rc, NULL);
    }
    Py_XDECREF((PyObject *)store);
    core_key_free(&key);
    return table && rc == 0 ? 0 : -1;
}

/* --------------------------------------------------------------------------- on any other store */

static PyObject *joined_identifiers(const struct call *call) {
    struct core_key key;
    core_key_init(&key);
    PyObject *text = NULL;
    if (core_key_identifiers(&key, call->identifiers, call->count) == 0)
        text = PyUnicode_DecodeUTF8(key.data, (Py_ssize_t)key.len, "strict");
    core_key_free(&key);
    return text;
}

/* storage.decide([limit], [key], [cost], mode), or storage.clear([limit], [key]) if `mode` is
 * negative. */
static PyObject *ask_store(const struct call *call, int mode) {
    const struct core_limiter *self = call->self;
    PyObject *limit = core_limit_with_strategy(self->state, (PyObject *)call->item, self->strategy);
    PyObject *key = limit ? joined_identifiers(call) : NULL;
    PyObject *answer = NULL;
    if (key) {
        if (mode < 0)
            answer = PyObject_CallMethod(self->storage, "clear", "[O][O]", limit, key);
        else
            answer = PyObject_CallMethod(self->storage, "decide", "[O][O][L]i", limit, key,
                                         (long long)call->cost, mode);
    }
    Py_XDECREF(limit);
    Py_XDECREF(key);
    return answer;
}

/* The verdict in the result of a store, which is checked. */
static PyObject *verdict_of(struct core_state *state, PyObject *decision) {
    PyObject *verdict = PySequence_GetItem(decision, 0);
    if (verdict && !PyObject_TypeCheck(verdict, state->verdict_type)) {
        PyErr_Format(PyExc_TypeError, "the storage's decide() must return a Decision, not %.100s",
                     Py_TYPE(decision)->tp_name);
        Py_CLEAR(verdict);
    }
    return verdict;
}

static int truth_of(PyObject *object, PyObject *name) {
    PyObject *value = PyObject_GetAttr(object, name);
    int truth = value ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    return truth;
}

/* ------------------------------------------------------------------------------------- methods */

/* Whether the call is allowed; -1 with an exception set. */
static inline int allowed(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames, enum weir_mode mode) {
    struct call call;
    int truth;
    if (read_call(&call, object, args, nargs, kwnames, NULL) < 0)
        return -1;
    if (call.self->table) {
        struct weir_verdict verdict;
        truth = decide_in_c(&call, mode, &verdict) < 0 ? -1 : verdict.allowed;
    } else {
        PyObject *decision = ask_store(&call, (int)mode);
        truth = decision ? truth_of(decision, call.self->state->str_allowed) : -1;
        Py_XDECREF(decision);
    }
    Py_CLEAR(call.held);
    return truth;
}

PyObject *limiter_hit(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames) {
    int rc = allowed(object, args, nargs, kwnames, WEIR_HIT);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

PyObject *limiter_test(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames) {
    int rc = allowed(object, args, nargs, kwnames, WEIR_TEST);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

PyObject *limiter_refund(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames) {
    if (allowed(object, args, nargs, kwnames, WEIR_REFUND) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *limiter_decide(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames) {
    struct call call;
    int64_t mode = WEIR_HIT;
    PyObject *answer = NULL;
    if (read_call(&call, object, args, nargs, kwnames, &mode) < 0)
        return NULL;
    if (call.self->table) {
        struct weir_verdict verdict;
        if (decide_in_c(&call, (enum weir_mode)mode, &verdict) == 0)
            answer = core_verdict_new(call.self->state, &verdict);
    } else {
        PyObject *decision = ask_store(&call, (int)mode);
        answer = decision ? verdict_of(call.self->state, decision) : NULL;
        Py_XDECREF(decision);
    }
    Py_CLEAR(call.held);
    return answer;
}

static PyObject *stats_of_store(const struct call *call) {
    struct core_state *state = call->self->state;
    PyObject *decision = ask_store(call, WEIR_TEST);
    PyObject *verdict = decision ? verdict_of(state, decision) : NULL;
    PyObject *reset = verdict ? PyObject_GetAttr(verdict, state->str_reset_at) : NULL;
    PyObject *left = reset ? PyObject_GetAttr(verdict, state->str_remaining) : NULL;
    PyObject *stats = NULL;
    int64_t remaining;
    double seconds = left ? core_number(reset, "reset_at") : -1.0;
    if (left && !(seconds == -1.0 && PyErr_Occurred()) &&
        core_count(left, "remaining", &remaining) == 0)
        stats = core_stats_new(state, seconds, remaining);
    Py_XDECREF(decision);
    Py_XDECREF(verdict);
    Py_XDECREF(reset);
    Py_XDECREF(left);
    return stats;
}

PyObject *limiter_get_window_stats(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct call call;
    if (read_call(&call, object, args, nargs, NULL, NULL) < 0)
        return NULL;
    call.cost = 0;
    struct weir_verdict verdict;
    PyObject *stats = NULL;
    if (!call.self->table)
        stats = stats_of_store(&call);
    else if (decide_in_c(&call, WEIR_TEST, &verdict) == 0)
        stats = core_stats_new(call.self->state, core_ns_to_seconds(verdict.reset_at_ns),
                               verdict.remaining);
    Py_CLEAR(call.held);
    return stats;
}

PyObject *limiter_clear(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct call call;
    if (read_call(&call, object, args, nargs, NULL, NULL) < 0)
        return NULL;
    bool done;
    if (!call.self->table) {
        PyObject *answer = ask_store(&call, -1);
        done = answer != NULL;
        Py_XDECREF(answer);
    } else {
        done = clear_in_c(&call) == 0;
    }
    Py_CLEAR(call.held);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}
