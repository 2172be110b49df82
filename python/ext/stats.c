/*
 * Statistics of a Table: its methods for weir/stats.h.
 *
 * counts() and top_clients() lock stripe after stripe and may wait for one, so they run without the
 * GIL.
 */
#include "stats.h"

#include <stddef.h>

#include "convert.h"
#include "decision.h"
#include "errors.h"
#include "key.h"
#include "limit.h"
#include "lost.h"
#include "stats/stats.h"
#include "table.h"
#include "tuples.h"
#include "values.h"
#include "weir/stats.h"
#include "zone.h"

#define SELF(object) ((struct core_table *)(object))
#define TOP_CLIENTS_MAX 4096

/* ------------------------------------------------------------------------------------- counting */

static PyObject *counts_list(struct core_table *self, struct weir_stats_counts *counts,
                             size_t count) {
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = core_tuple_new(self->state->counts_type, 5);
        if (!item) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        PyTuple_SET_ITEM(
            item, 0,
            PyUnicode_DecodeUTF8(counts[i].label, (Py_ssize_t)strlen(counts[i].label), "replace"));
        PyTuple_SET_ITEM(item, 1, PyLong_FromUnsignedLongLong(counts[i].allowed));
        PyTuple_SET_ITEM(item, 2, PyLong_FromUnsignedLongLong(counts[i].denied));
        PyTuple_SET_ITEM(item, 3, PyLong_FromUnsignedLongLong(counts[i].near_limit));
        PyTuple_SET_ITEM(item, 4, PyLong_FromUnsignedLongLong(counts[i].shadow));
        for (Py_ssize_t j = 0; list && j < 5; j++)
            if (!PyTuple_GET_ITEM(item, j))
                Py_CLEAR(list);
    }
    return list;
}

PyObject *core_table_counts(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_table *self = SELF(object);
    struct weir_table *table = core_table_enter(self);
    if (!table)
        return NULL;
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    size_t count = WEIR_STATS_LABELS;
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_stats_counts(table, counts, &count);
    CORE_END_SLEEP
    core_table_leave(self);
    return rc < 0 ? core_raise(self->state, rc, NULL) : counts_list(self, counts, count);
}

/* ----------------------------------------------------------------------------------top clients */

static PyObject *top_client_item(struct core_state *state, const struct weir_top_client *top) {
    PyObject *item = core_tuple_new(state->top_client_type, 6);
    if (!item)
        return NULL;
    PyTuple_SET_ITEM(
        item, 0,
        PyUnicode_DecodeUTF8(top->client, (Py_ssize_t)strlen(top->client), "backslashreplace"));
    PyTuple_SET_ITEM(item, 1,
                     PyUnicode_DecodeUTF8(top->label, (Py_ssize_t)strlen(top->label), "replace"));
    PyTuple_SET_ITEM(item, 2, PyLong_FromUnsignedLongLong(top->allowed));
    PyTuple_SET_ITEM(item, 3, PyLong_FromUnsignedLongLong(top->denied));
    PyTuple_SET_ITEM(item, 4, PyLong_FromUnsignedLongLong(top->error));
    PyTuple_SET_ITEM(item, 5, PyFloat_FromDouble(core_ns_to_seconds(top->last_ns)));
    for (Py_ssize_t i = 0; i < 6; i++)
        if (!PyTuple_GET_ITEM(item, i)) {
            Py_DECREF(item);
            return NULL;
        }
    return item;
}

/* The number of an existing label of a table; 0 if there is none; -1 with an exception set. */
static int known_label(struct core_table *self, struct weir_table *table, PyObject *limit) {
    PyObject *text = PyUnicode_Check(limit)              ? Py_NewRef(limit)
                     : core_is_limit(self->state, limit) ? PyObject_Repr(limit)
                                                         : NULL;
    if (!text) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "limit must be Limit, str or None, not %.100s",
                         Py_TYPE(limit)->tp_name);
        return -1;
    }
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    size_t count = WEIR_STATS_LABELS;
    const char *wanted = PyUnicode_AsUTF8(text);
    int found = wanted ? 0 : -1;
    int rc;
    CORE_BEGIN_SLEEP
    rc = wanted ? weir_stats_counts(table, counts, &count) : 0;
    CORE_END_SLEEP
    if (rc < 0) {
        core_raise(self->state, rc, NULL);
        found = -1;
    }
    for (size_t i = 0; found == 0 && i < count; i++)
        if (strcmp(counts[i].label, wanted) == 0)
            found = strcmp(wanted, "other") == 0 ? WEIR_STATS_LABELS : (int)i + 1;
    Py_DECREF(text);
    return found;
}

static int read_by(PyObject *by, enum weir_top_by *result) {
    if (!by || (PyUnicode_Check(by) && PyUnicode_CompareWithASCIIString(by, "denied") == 0))
        *result = WEIR_BY_DENIED;
    else if (PyUnicode_Check(by) && PyUnicode_CompareWithASCIIString(by, "allowed") == 0)
        *result = WEIR_BY_ALLOWED;
    else {
        PyErr_Format(PyExc_ValueError, "by must be \"denied\" or \"allowed\", not %R", by);
        return -1;
    }
    return 0;
}

static PyObject *top_clients(struct core_table *self, struct weir_table *table, enum weir_top_by by,
                             size_t count, PyObject *limit) {
    int label = 0;
    if (limit && limit != Py_None) {
        label = known_label(self, table, limit);
        if (label <= 0)
            return label < 0 ? NULL : PyList_New(0);
    }
    struct weir_top_client *top = PyMem_RawMalloc(count * sizeof *top);
    if (!top)
        return PyErr_NoMemory();
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_stats_top_clients(table, by, label, top, &count);
    CORE_END_SLEEP
    PyObject *list = rc < 0 ? core_raise(self->state, rc, NULL) : PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = top_client_item(self->state, &top[i]);
        if (!item)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    PyMem_RawFree(top);
    return list;
}

PyObject *core_table_top_clients(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"by", "count", "limit", NULL};
    struct core_table *self = SELF(object);
    PyObject *by_name = NULL, *count_object = NULL, *limit = NULL;
    enum weir_top_by by;
    int64_t count = 20;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOO:top_clients", (char **)names, &by_name,
                                     &count_object, &limit) ||
        read_by(by_name, &by) < 0 ||
        (count_object && core_count(count_object, "count", &count) < 0))
        return NULL;
    if (count < 1 || count > TOP_CLIENTS_MAX) {
        PyErr_Format(PyExc_ValueError, "count must be 1 to %d, not %R", TOP_CLIENTS_MAX,
                     count_object);
        return NULL;
    }
    struct weir_table *table = core_table_enter(self);
    if (!table)
        return NULL;
    PyObject *list = top_clients(self, table, by, (size_t)count, limit);
    core_table_leave(self);
    return list;
}

PyObject *core_table_name_of(PyObject *object, PyObject *client) {
    struct weir_table *table = NULL;
    struct core_key key;
    char name[WEIR_CLIENT_NAME_SIZE];
    PyObject *text = NULL;
    core_key_init(&key);
    /* The client's __str__ may close the table, so the table is entered afterwards. */
    if (core_key_identifier(&key, client) == 0 && core_key_within_bounds(key.len) == 0)
        table = core_table_borrow(SELF(object));
    if (table) {
        if (weir_stats_client_name(table, key.data, key.len, name) < 0)
            PyErr_SetString(PyExc_ValueError, "a client must not be empty");
        else
            text = PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "backslashreplace");
    }
    core_key_free(&key);
    return text;
}

PyObject *core_table_get_reveal(PyObject *object, void *Py_UNUSED(closure)) {
    struct weir_table *table = core_table_borrow(SELF(object));
    if (!table)
        return NULL;
    return PyBool_FromLong(SELF(object)->reveal);
}

int core_table_set_reveal(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    struct weir_table *table = core_table_borrow(SELF(object));
    int reveal = !table ? -1 : value ? PyObject_IsTrue(value) : -1;
    if (table && !value)
        PyErr_SetString(PyExc_AttributeError, "reveal cannot be deleted");
    /* The __bool__() of value may have closed the table. */
    if (reveal < 0 || !(table = core_table_borrow(SELF(object))))
        return -1;
    SELF(object)->reveal = reveal;
    weir_stats_reveal(table, reveal);
    return 0;
}

/* --------------------------------------------------------------------- decisions made elsewhere */

PyObject *core_table_record(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"limits", "keys", "decision", "shadow", NULL};
    struct core_table *self = SELF(object);
    PyObject *limits, *keys, *decision;
    int shadow = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!|p:record", (char **)names, &limits, &keys,
                                     self->state->decision_type, &decision, &shadow))
        return NULL;
    const struct core_decision *made = (const struct core_decision *)decision;
    struct core_request request;
    struct weir_table *table = NULL;
    int rc = 0;
    size_t done = 0;
    if (core_request_read(&request, self->state, self, limits, keys, NULL) == 0) {
        if (request.count != Py_SIZE(decision))
            PyErr_Format(PyExc_ValueError, "a decision of %zd limits for %zd", Py_SIZE(decision),
                         request.count);
        else if ((table = core_table_borrow(self)))
            CORE_PATIENTLY(self, rc,
                           weir_stats_record_from(table, request.check, (size_t)request.count,
                                                  made->now_ns, made->verdict, shadow, &done));
    }
    core_request_free(&request);
    if (!table)
        return NULL;
    if (rc < 0)
        return core_raise(self->state, rc, NULL);
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------------------------- registry */

PyObject *core_table_register(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_table *self = SELF(object);
    if (nargs != 3) {
        PyErr_Format(PyExc_TypeError, "register() takes 3 arguments (%zd given)", nargs);
        return NULL;
    }
    if (!core_is_limit(self->state, args[0]) || !PyUnicode_Check(args[1]) ||
        !PyUnicode_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "register() takes a Limit and two str");
        return NULL;
    }
    const struct core_limit *limit = (const struct core_limit *)args[0];
    struct core_key key;
    size_t zone_len = limit->limit.zone ? strlen(limit->limit.zone->name) : 0;
    core_key_init(&key);
    int rc = -1;
    if (core_key_table(&key, self) == 0 && core_key_join(&key, limit->prefix, NULL, 0) == 0 &&
        core_key_append(&key, "/", 1) == 0 && core_key_joined(&key, args[1]) == 0) {
        size_t before = key.len;
        struct weir_table *table =
            core_key_joined(&key, args[2]) == 0 ? core_table_borrow(self) : NULL;
        if (table && key.len + zone_len > WEIR_REGISTERED_MAX)
            rc = 1;
        else if (table)
            CORE_PATIENTLY(self, rc,
                           weir_stats_register(table, &limit->limit, key.data, before,
                                               key.data + before, key.len - before));
    }
    core_key_free(&key);
    if (PyErr_Occurred())
        return NULL;
    if (rc < 0 && rc != WEIR_ETOOMANY)
        return core_raise(self->state, rc, NULL);
    return PyBool_FromLong(rc == 0);
}

/* The unescaped identifier. Bytes that are not UTF-8 become backslash escapes. */
static PyObject *unescaped(const char *text, size_t len) {
    PyObject *escaped = PyUnicode_DecodeUTF8(text, (Py_ssize_t)len, "backslashreplace");
    PyObject *parse = escaped ? PyImport_ImportModule("urllib.parse") : NULL;
    PyObject *plain = parse ? PyObject_CallMethod(parse, "unquote", "O", escaped) : NULL;
    Py_XDECREF(escaped);
    Py_XDECREF(parse);
    return plain;
}

/* Sets *limit, with its zone. Returns 1 if this machine does not have the zone. */
static int with_zone(const struct weir_registered_limit *registered, struct weir_limit *limit) {
    *limit = registered->limit;
    if (registered->zone_len == 0)
        return 0;
    PyObject *name = PyUnicode_FromStringAndSize(
        registered->text + registered->before_len + registered->after_len, registered->zone_len);
    int rc = name ? core_zone_of(name, &limit->zone) : -1;
    Py_XDECREF(name);
    if (rc == 0 || !PyErr_ExceptionMatches(PyExc_ValueError))
        return rc;
    PyErr_Clear();
    return 1;
}

/*
 * A RegisteredLimit, or None if the limit is of another namespace of the table, or of a zone that
 * this machine does not have. NULL with an exception set.
 */
static PyObject *registered_item(struct core_table *self,
                                 const struct weir_registered_limit *registered) {
    struct core_key mark;
    core_key_init(&mark);
    PyObject *item = NULL, *namespace = NULL;
    const char *text = registered->text, *end = text + registered->before_len;
    bool marked = registered->before_len > 0 && text[0] == '\0';
    if (core_key_table(&mark, self) < 0)
        return NULL;
    if ((marked || mark.len > 0) && (mark.len == 0 || registered->before_len < mark.len ||
                                     memcmp(text, mark.data, mark.len) != 0))
        return Py_NewRef(Py_None);
    text += mark.len;
    const char *slash = memchr(text, '/', (size_t)(end - text));
    if (!slash)
        return Py_NewRef(Py_None);
    struct weir_limit plain;
    int rc = with_zone(registered, &plain);
    if (rc != 0)
        return rc < 0 ? NULL : Py_NewRef(Py_None);
    namespace = unescaped(text, (size_t)(slash - text));
    PyObject *limit = namespace ? core_limit_of(self->state, &plain, namespace) : NULL;
    if (limit && (item = core_tuple_new(self->state->registered_type, 3))) {
        PyTuple_SET_ITEM(item, 0, Py_NewRef(limit));
        PyTuple_SET_ITEM(item, 1,
                         PyUnicode_DecodeUTF8(slash + 1, end - slash - 1, "backslashreplace"));
        PyTuple_SET_ITEM(
            item, 2,
            PyUnicode_DecodeUTF8(end, (Py_ssize_t)registered->after_len, "backslashreplace"));
        if (!PyTuple_GET_ITEM(item, 1) || !PyTuple_GET_ITEM(item, 2))
            Py_CLEAR(item);
    }
    Py_XDECREF(namespace);
    Py_XDECREF(limit);
    return item;
}

PyObject *core_table_registry(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_table *self = SELF(object);
    struct weir_table *table = core_table_borrow(self);
    size_t count = 0;
    if (!table)
        return NULL;
    int rc = weir_stats_registry(table, NULL, &count);
    struct weir_registered_limit *registered = PyMem_RawMalloc((count + 1) * sizeof *registered);
    if (!registered)
        return PyErr_NoMemory();
    if (rc == 0)
        rc = weir_stats_registry(table, registered, &count);
    PyObject *list = rc < 0 ? core_raise(self->state, rc, NULL) : PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = registered_item(self, &registered[i]);
        if (!item || (item != Py_None && PyList_Append(list, item) < 0))
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    PyMem_RawFree(registered);
    return list;
}

/* ---------------------------------------------------------------------------------------- texts */

const char core_counts_doc[] =
    "counts($self, /)\n--\n\n"
    "How often each limit allowed and denied, in all processes, since the table was created.\n\n"
    "A list of LimitCounts(limit, allowed, denied, near, shadow).";

const char core_top_clients_doc[] =
    "top_clients($self, /, by='denied', count=20, limit=None)\n--\n\n"
    "The clients with most denied or allowed hits, most first.\n\n"
    "by: 'denied' or 'allowed'. count: how many, 1 to 4096. limit: under this one alone, a\n"
    "Limit or its text. A list of TopClient(client, limit, allowed, denied, error, last).";

const char core_record_doc[] =
    "record($self, /, limits, keys, decision, shadow=False)\n--\n\n"
    "Count a decision that another store made; limits and keys as in decide().\n\n"
    "shadow: it was not enforced; only its denials are counted, as shadow denials.";

const char core_register_doc[] =
    "register($self, limit, before, after, /)\n--\n\n"
    "Add a limit to registry(). False if there is no room for it.\n\n"
    "The key of a client's counter, as decide() is given it, is before + client + after.";

const char core_registry_doc[] =
    "registry($self, /)\n--\n\n"
    "The limits that were registered, by any process, in this table's namespace.\n\n"
    "A list of RegisteredLimit(limit, before, after).";

const char core_name_of_doc[] =
    "name_of($self, client, /)\n--\n\n"
    "How top_clients() shows a client: an IP address as it is, others as their hash.";
