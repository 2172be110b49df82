/* The module: its state, errors, numbers, parse(), unlink(). */
#include "core.h"
#include "rules/address.h"
#include "stores.h"

#include <errno.h>
#include <string.h>

/* -------------------------------------------------------------------------------------- errors */

static const char *code_name(int result) {
    switch (result) {
#define CODE_NAME(name, value, text)                                                               \
    case value:                                                                                    \
        return #name;
        WEIR_ERRORS(CODE_NAME)
#undef CODE_NAME
    default:
        return "";
    }
}

static int errno_of(int result) {
    switch (result) {
    case WEIR_EINVAL:
        return EINVAL;
    case WEIR_ENOMEM:
        return ENOMEM;
    case WEIR_ENOSPC:
        return ENOSPC;
    case WEIR_EACCES:
        return EACCES;
    case WEIR_ENOENT:
        return ENOENT;
    case WEIR_EBUSY:
        return EBUSY;
    default:
        return 0;
    }
}

/* Sets an attribute to a value it takes over. */
static int set_attribute(PyObject *object, const char *name, PyObject *value) {
    int rc = value ? PyObject_SetAttrString(object, name, value) : -1;
    Py_XDECREF(value);
    return rc;
}

/* is_outage: what the class says, unless it says true and this false. */
static void raise_error(PyObject *type, int result, const char *message, int column,
                        bool is_outage) {
    PyObject *text = PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "backslashreplace");
    PyObject *error = text ? PyObject_CallOneArg(type, text) : NULL;
    Py_XDECREF(text);
    if (!error)
        return;
    int number = errno_of(result);
    if (set_attribute(error, "code", PyUnicode_FromString(code_name(result))) == 0 &&
        (column < 0 || set_attribute(error, "column", PyLong_FromLong(column)) == 0) &&
        (column >= 0 || !number || set_attribute(error, "errno", PyLong_FromLong(number)) == 0) &&
        (is_outage || set_attribute(error, "is_outage", Py_NewRef(Py_False)) == 0))
        PyErr_SetObject(type, error);
    Py_DECREF(error);
}

/* Whether a table's error is about what was asked, and says nothing of the table itself. */
static bool is_of_the_request(int result) {
    return result == WEIR_EINVAL || result == WEIR_ETOOMANY || result == WEIR_EFULL;
}

/* Of a decision (which has no message of its own), too many are those that a small table has no room for. */
static const char *message_of(int result, const struct weir_error *error) {
    if (error && error->message[0])
        return error->message;
    if (result == WEIR_ETOOMANY && !error)
        return "the table has no room for so many limits at once: give it more keys with ?keys=N";
    return weir_strerror(result);
}

PyObject *core_raise(struct core_state *state, int result, const struct weir_error *error) {
    const char *message = message_of(result, error);
    if (error && (result == WEIR_ESYNTAX || result == WEIR_EINVAL || result == WEIR_ETOOMANY))
        raise_error(state->parse_error, result, message, error->column, false);
    else
        raise_error(state->table_error, result, message, -1, !is_of_the_request(result));
    return NULL;
}

void core_raise_closed(struct core_state *state) {
    raise_error(state->table_error, WEIR_EINVAL, "the table is closed", -1, true);
}

/* ------------------------------------------------------------------------------------- numbers */

int core_count(PyObject *object, const char *what, int64_t *count) {
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be int, not %.100s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow || value < 0) {
        PyErr_Format(PyExc_ValueError, "%s must be 0 to 2**63-1, not %R", what, object);
        return -1;
    }
    *count = value;
    return 0;
}

double core_number(PyObject *object, const char *what) {
    if (PyFloat_Check(object) || (PyLong_Check(object) && !PyBool_Check(object)))
        return PyFloat_AsDouble(object);
    PyErr_Format(PyExc_TypeError, "%s must be float or int, not %.100s", what,
                 Py_TYPE(object)->tp_name);
    return -1.0;
}

int core_seconds_to_ns(double seconds, const char *what, int64_t *ns) {
    if (!(seconds >= 0.0 && seconds <= 9223372036.0)) {
        PyObject *number = PyFloat_FromDouble(seconds);
        if (number)
            PyErr_Format(PyExc_ValueError, "%s must be 0 to 9223372036 seconds, not %R", what,
                         number);
        Py_XDECREF(number);
        return -1;
    }
    *ns = (int64_t)(seconds * 1e6 + 0.5) * 1000;
    return 0;
}

double core_ns_to_seconds(int64_t ns) {
    if (ns == WEIR_NEVER)
        return Py_HUGE_VAL;
    return (double)(ns / 1000 + (ns % 1000 > 0)) / 1e6;
}

/* ----------------------------------------------------------------------------------- functions */

const char *core_c_string(PyObject *text, const char *what) {
    Py_ssize_t len;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &len);
    if (utf8 && strlen(utf8) != (size_t)len) {
        PyErr_Format(PyExc_ValueError, "%s cannot hold a NUL", what);
        return NULL;
    }
    return utf8;
}

/* The bytes of a limit string; what UTF-8 cannot say becomes "?", which no limit string has. */
static PyObject *limit_text(struct core_state *state, PyObject *text) {
    if (PyUnicode_Check(text))
        return PyUnicode_AsEncodedString(text, "utf-8", "replace");
    struct weir_error error = {.column = 0};
    PyOS_snprintf(error.message, sizeof error.message, "a limit string must be str, not %.100s",
                  Py_TYPE(text)->tp_name);
    return core_raise(state, WEIR_EINVAL, &error);
}

/* How a text of limits is to be read. */
struct reading {
    PyObject *text; /* bytes, owned; NULL with an exception set */
    PyObject *strategy;
    PyObject *tz;
    int number; /* of the strategy */
};

static struct reading read_arguments(struct core_state *state, PyObject *args, PyObject *kwargs,
                                     const char *format) {
    static const char *const names[] = {"", "strategy", "tz", NULL};
    struct reading reading = {.strategy = Py_None, .tz = Py_None, .number = WEIR_FIXED_WINDOW};
    PyObject *text;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, (char **)names, &text, &reading.strategy,
                                     &reading.tz))
        return reading;
    if (reading.strategy != Py_None) {
        reading.number = core_limit_strategy_of(reading.strategy);
    } else if (reading.tz != Py_None) {
        reading.number = WEIR_CALENDAR_WINDOW;
    }
    if (reading.number >= 0)
        reading.text = limit_text(state, text);
    return reading;
}

/*
 * A limit that was read, a reference that is taken over, with the strategy and zone that were asked for if it
 * has none of its own.
 */
static PyObject *limit_as_read(PyObject *item, const struct reading *reading) {
    if (!item || (reading->strategy == Py_None && reading->tz == Py_None) ||
        ((struct core_limit *)item)->limit.burst != 0)
        return item;
    ((struct core_limit *)item)->limit.strategy = WEIR_FIXED_WINDOW;
    if (core_limit_choose(item, reading->strategy, reading->tz) < 0)
        Py_CLEAR(item);
    return item;
}

/* The limits in a text that the parser refused, if units of an application's own make it one; or None. */
static PyObject *read_own(struct core_state *state, PyObject *args, const struct reading *reading) {
    PyObject *items = core_item_parse_own(state, PyTuple_GET_ITEM(args, 0));
    for (Py_ssize_t i = 0; items && items != Py_None && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = limit_as_read(Py_NewRef(PyList_GET_ITEM(items, i)), reading);
        if (!item || PyList_SetItem(items, i, item) < 0)
            Py_CLEAR(items);
    }
    return items;
}

static PyObject *module_parse(PyObject *module, PyObject *args, PyObject *kwargs) {
    struct core_state *state = PyModule_GetState(module);
    struct reading reading = read_arguments(state, args, kwargs, "O|$OO:parse");
    if (!reading.text)
        return NULL;
    struct weir_limit limit;
    struct weir_error error;
    int rc = reading.number == WEIR_CALENDAR_WINDOW
                 ? weir_limit_parse_as(PyBytes_AS_STRING(reading.text),
                                       (size_t)PyBytes_GET_SIZE(reading.text), reading.number,
                                       &limit, &(size_t){1}, &error)
                 : weir_limit_parse(PyBytes_AS_STRING(reading.text),
                                    (size_t)PyBytes_GET_SIZE(reading.text), &limit, &error);
    Py_DECREF(reading.text);
    if (rc == 0)
        return limit_as_read(core_item_parsed(state, &limit), &reading);
    PyObject *own = read_own(state, args, &reading);
    PyObject *item = NULL;
    if (own && own != Py_None && PyList_GET_SIZE(own) == 1)
        item = Py_NewRef(PyList_GET_ITEM(own, 0));
    else if (own)
        core_raise(state, own == Py_None ? rc : WEIR_ETOOMANY, &error);
    Py_XDECREF(own);
    return item;
}

static PyObject *module_parse_many(PyObject *module, PyObject *args, PyObject *kwargs) {
    struct core_state *state = PyModule_GetState(module);
    struct reading reading = read_arguments(state, args, kwargs, "O|$OO:parse_many");
    if (!reading.text)
        return NULL;
    struct weir_limit limit[WEIR_CHECKS_MAX];
    size_t count = WEIR_CHECKS_MAX;
    struct weir_error error;
    int rc =
        weir_limit_parse_as(PyBytes_AS_STRING(reading.text), (size_t)PyBytes_GET_SIZE(reading.text),
                            reading.number, limit, &count, &error);
    Py_DECREF(reading.text);
    if (rc < 0) {
        PyObject *own = read_own(state, args, &reading);
        if (own != Py_None)
            return own;
        Py_DECREF(own);
        return core_raise(state, rc, &error);
    }
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = limit_as_read(core_item_parsed(state, &limit[i]), &reading);
        if (!item)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *module_join_key(PyObject *Py_UNUSED(module), PyObject *const *args,
                                 Py_ssize_t nargs) {
    struct core_key key;
    core_key_init(&key);
    PyObject *text = NULL;
    if (core_key_identifiers(&key, args, nargs) == 0)
        text = PyUnicode_DecodeUTF8(key.data, (Py_ssize_t)key.len, "strict");
    core_key_free(&key);
    return text;
}

static PyObject *module_identifier(PyObject *Py_UNUSED(module), PyObject *object) {
    return core_identifier(object);
}

/* The form of a client's address that limits count; what is no address stays as it is. */
static PyObject *module_client_form(PyObject *Py_UNUSED(module), PyObject *const *args,
                                    Py_ssize_t nargs) {
    int64_t prefix = 64;
    if (nargs < 1 || nargs > 2 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "client_form() takes a str and a number of bits");
        return NULL;
    }
    if (nargs > 1 && core_count(args[1], "ipv6_prefix", &prefix) < 0)
        return NULL;
    if (prefix > 128) {
        PyErr_SetString(PyExc_ValueError, "ipv6_prefix must be 0 to 128");
        return NULL;
    }
    Py_ssize_t len = 0;
    const char *text = PyUnicode_AsUTF8AndSize(args[0], &len);
    if (!text)
        PyErr_Clear(); /* lone surrogates: no address */
    char form[WEIR_RANGE_TEXT];
    size_t form_len =
        text ? weir_client_form(text, (size_t)len, (uint32_t)prefix, form, sizeof form) : 0;
    return form_len ? PyUnicode_FromStringAndSize(form, (Py_ssize_t)form_len) : Py_NewRef(args[0]);
}

static PyObject *module_unlink(PyObject *module, PyObject *argument) {
    if (!PyUnicode_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "a URI must be str, not %.100s", Py_TYPE(argument)->tp_name);
        return NULL;
    }
    const char *uri = core_c_string(argument, "a URI");
    if (!uri)
        return NULL;
    struct weir_error error;
    int rc = weir_table_unlink(uri, &error);
    if (rc < 0)
        return core_raise(PyModule_GetState(module), rc, &error);
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"parse", (PyCFunction)(void (*)(void))module_parse, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("parse($module, text, /, *, strategy=None, tz=None)\n--\n\n"
               "Reads exactly one limit, else raises ParseError.\n\n"
               "strategy, tz: of a limit that has no strategy of its own, as by burst. With\n"
               "'calendar-window', 'week' is a unit, too.\n\n"
               ">>> parse('10/minute')\n10 per 1 minute")},
    {"parse_many", (PyCFunction)(void (*)(void))module_parse_many, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("parse_many($module, text, /, *, strategy=None, tz=None)\n--\n\n"
               "Reads one or more limits joined by ';', ',' or '|', else raises ParseError.\n\n"
               ">>> parse_many('5/second; 60 per minute')\n[5 per 1 second, 60 per 1 minute]")},
    {"join_key", (PyCFunction)(void (*)(void))module_join_key, METH_FASTCALL,
     PyDoc_STR("join_key($module, /, *identifiers)\n--\n\n"
               "The identifiers as the key that stores are given: joined by '/', escaped so that\n"
               "different identifiers make different keys.\n\n"
               ">>> join_key('alice', 'view/1', 7)\n'alice/view%2F1/7'")},
    {"identifier", module_identifier, METH_O,
     PyDoc_STR(
         "identifier($module, value, /)\n--\n\n"
         "The text that an identifier stands for: str and bytes as they are, else its str().\n\n"
         ">>> import uuid\n>>> identifier(uuid.UUID(int=7))\n"
         "'00000000-0000-0000-0000-000000000007'")},
    {"client_form", (PyCFunction)(void (*)(void))module_client_form, METH_FASTCALL,
     PyDoc_STR("client_form($module, text, ipv6_prefix=64, /)\n--\n\n"
               "The form of a client's address that limits count; another text stays as it is.\n\n"
               ">>> client_form('[2001:DB8::1]:443'), client_form('64:ff9b::10.0.0.1')\n"
               "('2001:db8::/64', '10.0.0.1')")},
    {"unlink", module_unlink, METH_O,
     PyDoc_STR("unlink($module, uri, /)\n--\n\n"
               "Removes the name of a shm:// or file:// table; who has it open keeps it.")},
    {"_set_items", core_set_items, METH_VARARGS, NULL},
    {"_restore_limit", core_restore_limit, METH_VARARGS, NULL},
    {"_make_zone", core_make_zone, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* --------------------------------------------------------------------------------------- state */

struct core_state *core_state_of(PyTypeObject *type) {
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *module = PyType_GetModuleByDef(type, &core_module);
    return module ? PyModule_GetState(module) : NULL;
#else
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE))
            continue;
        PyObject *module = ((PyHeapTypeObject *)base)->ht_module;
        if (module && PyModule_GetDef(module) == &core_module)
            return PyModule_GetState(module);
    }
    PyErr_SetString(PyExc_TypeError, "not a type of weir");
    return NULL;
#endif
}

/* A new exception class "weir.<name>" over one or two bases. */
static PyObject *add_error(PyObject *module, const char *name, PyObject *base, PyObject *second,
                           const char *attribute, PyObject *value, const char *doc) {
    PyObject *bases = second ? PyTuple_Pack(2, base, second) : PyTuple_Pack(1, base);
    PyObject *members = attribute ? Py_BuildValue("{s:O}", attribute, value) : PyDict_New();
    PyObject *type = bases && members ? PyErr_NewExceptionWithDoc(name, doc, bases, members) : NULL;
    if (type && PyModule_AddObjectRef(module, strchr(name, '.') + 1, type) < 0)
        Py_CLEAR(type);
    Py_XDECREF(bases);
    Py_XDECREF(members);
    return type;
}

/* Errors of stores are outages unless they say otherwise; no other error is one. */
static int add_is_outage(const struct core_state *state) {
    return PyObject_SetAttrString(state->error, "is_outage", Py_False) < 0 ||
                   PyObject_SetAttrString(state->storage_error, "is_outage", Py_True) < 0
               ? -1
               : 0;
}

static int add_errors(PyObject *module, struct core_state *state) {
    PyObject *empty = PyUnicode_FromString("");
    PyObject *zero = PyLong_FromLong(0);
    if (empty && zero &&
        (state->error = add_error(module, "weir.WeirError", PyExc_Exception, NULL, "code", empty,
                                  "Base of all errors. `code` is libweir's, e.g. 'ENOSPC'.")) &&
        (state->parse_error = add_error(
             module, "weir.ParseError", state->error, PyExc_ValueError, "column", zero,
             "A limit string or URI that cannot be read. `column` is 1-based; 0: none.")) &&
        (state->storage_error =
             add_error(module, "weir.StorageError", state->error, NULL, "storage_error", Py_None,
                       "A store that could not decide. `storage_error` is the cause, if any.")))
        state->table_error =
            add_error(module, "weir.TableError", state->storage_error, PyExc_OSError, NULL, NULL,
                      "A table that cannot be opened or used.");
    Py_XDECREF(empty);
    Py_XDECREF(zero);
    return state->table_error ? add_is_outage(state) : -1;
}

static PyType_Slot peek_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR(
         "Peek(cost)\n--\n\n"
         "A cost of Storage.decide() that is not charged: its limit is only looked at, as\n"
         "in a TEST. But if it denies, nothing is charged.")},
    {0, NULL},
};

static PyType_Spec peek_spec = {
    .name = "weir.Peek",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = peek_slots,
};

static PyTypeObject *add_subtype(PyObject *module, PyType_Spec *spec, PyTypeObject *base) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    if (type && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    return add_subtype(module, spec, NULL);
}

static int add_types(PyObject *module, struct core_state *state) {
    return (state->limit_type = add_type(module, &core_limit_spec)) &&
                   (state->decision_type = add_type(module, &core_decision_spec)) &&
                   (state->table_type = add_type(module, &core_table_spec)) &&
                   (state->limiter_type = add_type(module, &core_limiter_spec)) &&
                   (state->prepared_type = add_type(module, &core_prepared_spec)) &&
                   (state->evaluation_type = add_type(module, &core_evaluation_spec)) &&
                   (state->request_type = add_type(module, &core_request_spec)) &&
                   (state->plan_type = add_type(module, &core_plan_spec)) &&
                   (state->hooks_type = add_type(module, &core_hooks_spec)) &&
                   (state->address_type = add_type(module, &core_address_spec)) &&
                   (state->peek_type = add_subtype(module, &peek_spec, &PyLong_Type))
               ? core_tuples_init(module, state)
               : -1;
}

static int add_strings(struct core_state *state) {
    const struct {
        PyObject **place;
        const char *text;
    } strings[] = {
        {&state->str_cost, "cost"},
        {&state->str_mode, "mode"},
        {&state->str_decide, "decide"},
        {&state->str_decide_prepared, "decide_prepared"},
        {&state->str_clear, "clear"},
        {&state->str_allowed, "allowed"},
        {&state->str_remaining, "remaining"},
        {&state->str_reset_at, "reset_at"},
        {&state->default_namespace, "LIMITER"},
    };
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        if (!(*strings[i].place = PyUnicode_InternFromString(strings[i].text)))
            return -1;
    return 0;
}

static int add_constants(PyObject *module) {
    return PyModule_AddStringConstant(module, "VERSION", weir_version()) < 0 ||
                   PyModule_AddIntConstant(module, "CHECKS_MAX", WEIR_CHECKS_MAX) < 0 ||
                   PyModule_AddIntConstant(module, "HIT", WEIR_HIT) < 0 ||
                   PyModule_AddIntConstant(module, "TEST", WEIR_TEST) < 0 ||
                   PyModule_AddIntConstant(module, "EACH", WEIR_EACH) < 0 ||
                   PyModule_AddIntConstant(module, "REFUND", WEIR_REFUND) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_CHARGED", WEIR_ROLE_CHARGED) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_PEEKED", WEIR_ROLE_PEEKED) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_DEFERRED", WEIR_ROLE_DEFERRED) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_SHADOW", WEIR_ROLE_SHADOW) < 0
               ? -1
               : 0;
}

static int module_exec(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    return core_clock_init(&state->clock) < 0 || add_strings(state) < 0 ||
                   add_errors(module, state) < 0 || add_types(module, state) < 0 ||
                   add_constants(module) < 0 || core_add_strategies(module) < 0 ||
                   remote_init(module) < 0
               ? -1
               : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct core_state *state = PyModule_GetState(module);
    Py_VISIT(state->limit_type);
    Py_VISIT(state->decision_type);
    Py_VISIT(state->table_type);
    Py_VISIT(state->limiter_type);
    Py_VISIT(state->prepared_type);
    Py_VISIT(state->evaluation_type);
    Py_VISIT(state->request_type);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->hooks_type);
    Py_VISIT(state->address_type);
    Py_VISIT(state->peek_type);
    Py_VISIT(state->verdict_type);
    Py_VISIT(state->stats_type);
    Py_VISIT(state->granularity_type);
    Py_VISIT(state->counts_type);
    Py_VISIT(state->top_client_type);
    Py_VISIT(state->registered_type);
    Py_VISIT(state->rule_type);
    Py_VISIT(state->unit_classes);
    Py_VISIT(state->granularities);
    Py_VISIT(state->item_hooks);
    Py_VISIT(state->error);
    Py_VISIT(state->parse_error);
    Py_VISIT(state->storage_error);
    Py_VISIT(state->table_error);
    return core_clock_traverse(&state->clock, visit, arg);
}

static int module_clear(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    Py_CLEAR(state->limit_type);
    Py_CLEAR(state->decision_type);
    Py_CLEAR(state->table_type);
    Py_CLEAR(state->limiter_type);
    Py_CLEAR(state->prepared_type);
    Py_CLEAR(state->evaluation_type);
    Py_CLEAR(state->request_type);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->hooks_type);
    Py_CLEAR(state->address_type);
    Py_CLEAR(state->peek_type);
    Py_CLEAR(state->verdict_type);
    Py_CLEAR(state->stats_type);
    Py_CLEAR(state->granularity_type);
    Py_CLEAR(state->counts_type);
    Py_CLEAR(state->top_client_type);
    Py_CLEAR(state->registered_type);
    Py_CLEAR(state->rule_type);
    Py_CLEAR(state->unit_classes);
    Py_CLEAR(state->granularities);
    Py_CLEAR(state->item_hooks);
    Py_CLEAR(state->error);
    Py_CLEAR(state->parse_error);
    Py_CLEAR(state->storage_error);
    Py_CLEAR(state->table_error);
    core_clock_clear(&state->clock);
    Py_CLEAR(state->str_cost);
    Py_CLEAR(state->str_mode);
    Py_CLEAR(state->str_decide);
    Py_CLEAR(state->str_decide_prepared);
    Py_CLEAR(state->str_clear);
    Py_CLEAR(state->str_allowed);
    Py_CLEAR(state->str_remaining);
    Py_CLEAR(state->str_reset_at);
    Py_CLEAR(state->default_namespace);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    /* No Py_mod_gil: not every object here has been checked for use without the GIL, so a free-threaded
       Python turns the GIL on when it imports this module. */
    {0, NULL},
};

struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "weir._core",
    .m_doc = PyDoc_STR("Python objects over libweir's structs."),
    .m_size = sizeof(struct core_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&core_module);
}
