/*
 * Table: a handle of a local store.
 *
 * Deciding and clearing keep the GIL, because they are faster than releasing it, unless they wait
 * for a lock. Calls that may take milliseconds run without it (open, info, reset, verify). `users`
 * counts calls without the GIL, so that close() does not unmap the table during such a call.
 */
#include "table_type.h"

#include <stddef.h>
#include <structmember.h>

#include "client.h"
#include "clock.h"
#include "convert.h"
#include "decision.h"
#include "errors.h"
#include "lost.h"
#include "meter.h"
#include "rules.h"
#include "stats.h"
#include "table.h"
#include "table/lock.h"
#include "table_open.h"
#include "values.h"

#define SELF(object) ((struct core_table *)(object))

/* ---------------------------------------------------------------------------- open and close */

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"",          "namespace", "_forks_share",
                                        "_observes", "_saved",    NULL};
    int forks_share = 0, observes = 0;
    PyObject *uri = NULL, *namespace = NULL, *saved = NULL;
    struct core_state *state = core_state_of(type);
    int64_t number = 0;
    if (!state ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|U$OppS:Table", (char **)names, &uri,
                                     &namespace, &forks_share, &observes, &saved) ||
        (namespace && core_count(namespace, "namespace", &number) < 0))
        return NULL;
    struct core_table *self = SELF(type->tp_alloc(type, 0));
    if (!self)
        return NULL;
    self->state = state;
    self->namespace = (unsigned long long)number;
    self->uri = uri ? Py_NewRef(uri) : PyUnicode_FromString("memory://");
    PyObject *opened = self->uri ? Py_NewRef(self->uri) : NULL;
    if (opened && forks_share) { /* memory:// that forked processes share */
        bool more = PyUnicode_FindChar(opened, '?', 0, PyUnicode_GET_LENGTH(opened), 1) >= 0;
        Py_SETREF(opened, PyUnicode_FromFormat("%U%sforks=share", opened, more ? "&" : "?"));
    }
    const char *text = opened ? core_c_string(opened, "a URI") : NULL;
    struct weir_error error;
    int rc = text ? core_table_open(self, text, saved, !observes, &error) : 0;
    Py_XDECREF(opened);
    if (!text) {
        Py_DECREF(self);
        return NULL;
    }
    if (rc < 0) {
        self->mapped = NULL;
        Py_DECREF(self);
        return core_raise(state, rc, &error);
    }
    self->table = self->mapped;
    self->observes = observes;
    self->has_file = strncmp(PyUnicode_AsUTF8(self->uri), "memory:", 7) != 0;
    self->lost_checked_ns = state->clock.latest;
    return (PyObject *)self;
}

static PyObject *table_close(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    SELF(object)->table = NULL;
    SELF(object)->lost = 0;
    SELF(object)->has_file = false;
    core_table_close_unused(SELF(object));
    Py_RETURN_NONE;
}

static PyObject *table_exit(PyObject *object, PyObject *const *Py_UNUSED(args),
                            Py_ssize_t Py_UNUSED(nargs)) {
    return table_close(object, NULL);
}

static PyObject *table_itself(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    return Py_NewRef(object);
}

static int table_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static void table_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (SELF(object)->weakrefs)
        PyObject_ClearWeakRefs(object);
    SELF(object)->table = NULL;
    SELF(object)->lost = 0;
    core_table_close_unused(SELF(object));
    Py_CLEAR(SELF(object)->uri);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ------------------------------------------------------------------------------------ deciding */

/* Decides a request. Reading its arguments may have closed the table. NULL: exception. */
static PyObject *decide_request(struct core_table *self, const struct core_request *request,
                                int64_t now_ns, enum weir_mode mode) {
    struct core_decision *decision = core_decision_new(self->state, request->count);
    struct weir_table *table = decision ? core_table_borrow(self) : NULL;
    int rc = 0;
    if (table) {
        decision->now_ns = now_ns;
        CORE_PATIENTLY(self, rc,
                       weir_decide(table, request->check, (size_t)request->count, now_ns, mode,
                                   decision->verdict, &decision->decision));
        if (rc < 0)
            core_raise(self->state, rc, NULL);
    }
    if (!table || rc < 0)
        Py_CLEAR(decision);
    return (PyObject *)decision;
}

static PyObject *table_peek(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_table *self = SELF(object);
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "peek() takes 2 arguments (%zd given)", nargs);
        return NULL;
    }
    int64_t now_ns = core_now(self->state);
    if (now_ns < 0 || !core_table_borrow(self))
        return NULL;
    struct core_request request;
    PyObject *decision = NULL;
    if (core_request_read(&request, self->state, self, args[0], args[1], NULL) == 0) {
        for (Py_ssize_t i = 0; i < request.count; i++) {
            request.check[i].cost = 0;
            request.check[i].client_len = 0; /* no client, so no rule applies */
        }
        decision = decide_request(self, &request, now_ns, WEIR_TEST);
    }
    core_request_free(&request);
    return decision;
}

static PyObject *table_decide(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_table *self = SELF(object);
    if (nargs < 2 || nargs > 5) {
        PyErr_Format(PyExc_TypeError, "decide() takes 2 to 5 arguments (%zd given)", nargs);
        return NULL;
    }
    int64_t mode = WEIR_HIT;
    if (nargs > 3 && core_count(args[3], "mode", &mode) < 0)
        return NULL;
    if (mode > WEIR_REFUND) {
        PyErr_SetString(PyExc_ValueError, "mode must be HIT, TEST, EACH or REFUND");
        return NULL;
    }
    /* Reading the clock may run Python code, so it comes before anything is borrowed. */
    int64_t now_ns =
        nargs > 4 && args[4] != Py_None ? core_moment(args[4], "now") : core_now(self->state);
    if (now_ns >= 0)
        self->state->clock.latest = now_ns;
    struct weir_table *table = now_ns >= 0 ? core_table_borrow(self) : NULL;
    if (!table)
        return NULL;
    struct core_request request;
    PyObject *decision = NULL;
    if (core_request_read(&request, self->state, self, args[0], args[1],
                          nargs > 2 ? args[2] : NULL) == 0)
        decision = decide_request(self, &request, now_ns, (enum weir_mode)mode);
    core_request_free(&request);
    return decision;
}

static PyObject *table_clear(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_table *self = SELF(object);
    if (nargs == 1 && PyUnicode_Check(args[0]) && Py_TYPE(object) != self->state->table_type)
        return PyObject_CallMethod(object, "clear_key", "O", args[0]); /* the signature of limits */
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "clear() takes 2 arguments (%zd given)", nargs);
        return NULL;
    }
    struct core_request request;
    struct weir_table *table = NULL;
    if (core_request_read(&request, self->state, self, args[0], args[1], NULL) == 0)
        table = core_table_borrow(self);
    int rc = 0;
    if (table)
        CORE_PATIENTLY(self, rc, weir_clear(table, request.check, (size_t)request.count));
    core_request_free(&request);
    if (!table)
        return NULL;
    if (rc < 0)
        return core_raise(self->state, rc, NULL);
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------------------ the whole table */

static PyObject *table_reset(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_table *self = SELF(object);
    struct weir_table *table = core_table_enter(self);
    if (!table)
        return NULL;
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_table_reset(table);
    CORE_END_SLEEP
    core_table_leave(self);
    if (rc < 0)
        return core_raise(self->state, rc, NULL);
    Py_RETURN_NONE;
}

static PyObject *table_verify(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_table *self = SELF(object);
    struct weir_table *table = core_table_enter(self);
    if (!table)
        return NULL;
    struct weir_error error;
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_table_check(table, &error);
    CORE_END_SLEEP
    core_table_leave(self);
    if (rc < 0)
        return core_raise(self->state, rc, &error);
    Py_RETURN_NONE;
}

/* A decision that charges nothing, as a health check. */
static PyObject *table_check(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_table *self = SELF(object);
    struct weir_table *table = core_table_check_lost(self, true);
    if (!table) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    struct weir_limit limit;
    struct weir_verdict verdict;
    weir_limit_init(&limit, 1, 1, WEIR_SECOND, NULL);
    struct weir_check check = {.limit = &limit, .cost = 1};
    int rc;
    CORE_PATIENTLY(self, rc, weir_decide(table, &check, 1, 0, WEIR_TEST, &verdict, NULL));
    return PyBool_FromLong(rc == 0);
}

static PyObject *table_info(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_table *self = SELF(object);
    int64_t now_ns = core_now(self->state);
    struct weir_table *table = now_ns >= 0 ? core_table_enter(self) : NULL;
    if (!table)
        return NULL;
    struct weir_table_info info;
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_table_info(table, now_ns, &info);
    CORE_END_SLEEP
    core_table_leave(self);
    if (rc < 0)
        return core_raise(self->state, rc, NULL);
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I}", "keys_max", (unsigned long long)info.keys_max,
        "keys", (unsigned long long)info.keys, "evictions", (unsigned long long)info.evictions,
        "lines_max", (unsigned long long)info.lines_max, "lines_used",
        (unsigned long long)info.lines_used, "recoveries", (unsigned long long)info.recoveries,
        "bytes", (unsigned long long)info.bytes, "stripes", (unsigned)info.stripes, "huge_pages",
        (unsigned)info.huge_pages);
}

static PyObject *get_uri(PyObject *object, void *Py_UNUSED(closure)) {
    return Py_NewRef(SELF(object)->uri);
}

static PyObject *get_namespace(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(SELF(object)->namespace);
}

static PyObject *get_closed(PyObject *object, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(SELF(object)->table == NULL && !SELF(object)->lost);
}

static PyObject *table_repr(PyObject *object) {
    struct core_table *self = SELF(object);
    return PyUnicode_FromFormat("<%s %R%s>", Py_TYPE(object)->tp_name, self->uri,
                                self->table || self->lost ? "" : " (closed)");
}

/* --------------------------------------------------------------------------------------- type */

PyDoc_STRVAR(table_doc,
             "Table(uri='memory://', /, *, namespace=0, _forks_share=False, _observes=False,\n"
             "      _saved=...)\n--\n\n"
             "A local store, created if it does not exist.\n\n"
             "uri: memory://, shm://name or file:///path, with ?keys=N, &hits=N, &rules=N,\n"
             "&group=NAME.\n"
             "namespace: tables of one uri and different namespaces (0 to 2**63-1) share no\n"
             "counter.\n"
             "Raises ParseError for a URI that cannot be read, TableError for a table that\n"
             "cannot be opened.\n\n"
             ">>> table = Table('memory://?keys=1000')\n"
             ">>> table.decide([Limit(10)], 'alice').allowed\n"
             "True");

PyDoc_STRVAR(decide_doc,
             "decide($self, limits, keys, costs=None, mode=HIT, now=None, /)\n--\n\n"
             "Decides up to 32 limits at once, all or nothing.\n\n"
             "limits: a sequence of Limit; one without a strategy is a fixed window. keys: as\n"
             "many keys, or one str or bytes for all. costs: as many int of 0 or more, or\n"
             "None: 1 each. mode: HIT, TEST, EACH or REFUND. now: seconds since the epoch, or\n"
             "None: time.time(). Returns a Decision. Raises TableError if nothing could be\n"
             "decided (then nothing was charged).");

static PyMethodDef table_methods[] = {
    {"decide", (PyCFunction)(void (*)(void))table_decide, METH_FASTCALL, decide_doc},
    {"peek", (PyCFunction)(void (*)(void))table_peek, METH_FASTCALL,
     PyDoc_STR("peek($self, limits, keys, /)\n--\n\n"
               "What remains in counters, ignoring rules about clients; charges nothing.")},
    {"clear", (PyCFunction)(void (*)(void))table_clear, METH_FASTCALL,
     PyDoc_STR("clear($self, limits, keys, /)\n--\n\n"
               "Deletes these counters.")},
    {"reset", table_reset, METH_NOARGS,
     PyDoc_STR("reset($self, /)\n--\n\n"
               "Deletes every counter of the table, in every namespace. Rules stay.")},
    {"check", table_check, METH_NOARGS,
     PyDoc_STR("check($self, /)\n--\n\n"
               "True if the table can decide.")},
    {"info", table_info, METH_NOARGS,
     PyDoc_STR("info($self, /)\n--\n\n"
               "The contents of the table, as a dict of int: keys, evictions, …")},
    {"meter", (PyCFunction)(void (*)(void))core_table_meter, METH_FASTCALL,
     PyDoc_STR("meter($self, name, add=0, /)\n--\n\n"
               "Adds to a number that all processes of the table share; returns the new value.")},
    {"raise_meter", (PyCFunction)(void (*)(void))core_table_raise_meter, METH_FASTCALL,
     PyDoc_STR("raise_meter($self, name, value, /)\n--\n\n"
               "Sets the meter to value, if that is greater.")},
    {"_save", core_table_save, METH_NOARGS, core_save_doc},
    {"verify", table_verify, METH_NOARGS,
     PyDoc_STR("verify($self, /)\n--\n\n"
               "The full integrity check; raises TableError.")},
    {"counts", core_table_counts, METH_NOARGS, core_counts_doc},
    {"top_clients", (PyCFunction)(void (*)(void))core_table_top_clients,
     METH_VARARGS | METH_KEYWORDS, core_top_clients_doc},
    {"name_of", core_table_name_of, METH_O, core_name_of_doc},
    {"record", (PyCFunction)(void (*)(void))core_table_record, METH_VARARGS | METH_KEYWORDS,
     core_record_doc},
    {"register", (PyCFunction)(void (*)(void))core_table_register, METH_FASTCALL,
     core_register_doc},
    {"registry", core_table_registry, METH_NOARGS, core_registry_doc},
    /* Deprecated: the earlier names. */
    {"heaviest", (PyCFunction)(void (*)(void))core_table_top_clients, METH_VARARGS | METH_KEYWORDS,
     core_top_clients_doc},
    {"note", (PyCFunction)(void (*)(void))core_table_record, METH_VARARGS | METH_KEYWORDS,
     core_record_doc},
    {"describe", (PyCFunction)(void (*)(void))core_table_register, METH_FASTCALL,
     core_register_doc},
    {"catalogue", core_table_registry, METH_NOARGS, core_registry_doc},
    {"block", (PyCFunction)(void (*)(void))core_table_block, METH_VARARGS | METH_KEYWORDS,
     core_block_doc},
    {"allow", (PyCFunction)(void (*)(void))core_table_allow, METH_VARARGS | METH_KEYWORDS,
     core_allow_doc},
    {"unlist", core_table_unlist, METH_O, core_unlist_doc},
    {"rules", (PyCFunction)(void (*)(void))core_table_rules, METH_VARARGS | METH_KEYWORDS,
     core_rules_doc},
    {"rule_of", (PyCFunction)(void (*)(void))core_table_rule_of, METH_VARARGS | METH_KEYWORDS,
     core_rule_of_doc},
    {"load_rules", (PyCFunction)(void (*)(void))core_table_load_rules, METH_VARARGS | METH_KEYWORDS,
     core_load_rules_doc},
    {"ruled", (PyCFunction)(void (*)(void))core_table_ruled, METH_FASTCALL, core_ruled_doc},
    {"close", table_close, METH_NOARGS,
     PyDoc_STR("close($self, /)\n--\n\n"
               "Unmaps the table; later calls raise TableError.")},
    {"__enter__", table_itself, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))table_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef table_getset[] = {
    {"uri", get_uri, NULL, PyDoc_STR("As it was opened."), NULL},
    {"namespace", get_namespace, NULL, PyDoc_STR("As it was opened."), NULL},
    {"closed", get_closed, NULL, PyDoc_STR("Whether close() was called."), NULL},
    {"rules_version", core_table_get_rules_version, NULL,
     PyDoc_STR("Changes with each change of the rules; 0: no rule was ever set."), NULL},
    {"ipv6_prefix", core_table_get_ipv6_prefix, core_table_set_ipv6_prefix,
     PyDoc_STR("The number of bits of an IPv6 address that identify a client, as last set by an\n"
               "application that counts here; None: not set."),
     NULL},
    {"reveal", core_table_get_reveal, core_table_set_reveal,
     PyDoc_STR("Whether this process shows client names in clear. IP addresses always are."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef table_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct core_table, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_doc, (void *)table_doc},
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_traverse, table_traverse},
    {Py_tp_repr, table_repr},
    {Py_tp_methods, table_methods},
    {Py_tp_getset, table_getset},
    {Py_tp_members, table_members},
    {0, NULL},
};

PyType_Spec core_table_spec = {
    .name = "weir.Table",
    .basicsize = sizeof(struct core_table),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = table_slots,
};
