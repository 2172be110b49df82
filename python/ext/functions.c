/*
 * Functions of the module: parse(), parse_many(), join_key(), identifier(), client_form(),
 * unlink(). Other files have later() and deciding() (decision.c), and those whose names begin with
 * "_".
 */
#include "functions.h"

#include "decision.h"
#include "errors.h"
#include "item.h"
#include "item_class.h"
#include "key.h"
#include "limit.h"
#include "rules/address.h"
#include "strategies.h"
#include "table.h"
#include "values.h"
#include "zone.h"

/* The bytes of a limit string. Lone surrogates become "?", which no limit string contains. */
static PyObject *limit_text(struct core_state *state, PyObject *text) {
    if (PyUnicode_Check(text))
        return PyUnicode_AsEncodedString(text, "utf-8", "replace");
    struct weir_error error = {.column = 0};
    PyOS_snprintf(error.message, sizeof error.message, "a limit string must be str, not %.100s",
                  Py_TYPE(text)->tp_name);
    return core_raise(state, WEIR_EINVAL, &error);
}

/* The arguments of parse() and parse_many(). */
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
        reading.number = core_strategy_named(reading.strategy);
    } else if (reading.tz != Py_None) {
        reading.number = weir_strategy_taking(WEIR_TAKES_ZONE);
    }
    if (reading.number >= 0)
        reading.text = limit_text(state, text);
    return reading;
}

/*
 * A parsed limit with the requested strategy and zone, unless it has its own. Takes over the
 * reference.
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

/* The limits in a text with units of an application, which the C parser refuses; or None. */
static PyObject *read_own(struct core_state *state, PyObject *args, const struct reading *reading) {
    PyObject *items = core_item_parse_own(state, PyTuple_GET_ITEM(args, 0));
    for (Py_ssize_t i = 0; items && items != Py_None && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = limit_as_read(Py_NewRef(PyList_GET_ITEM(items, i)), reading);
        if (!item || PyList_SetItem(items, i, item) < 0)
            Py_CLEAR(items);
    }
    return items;
}

/* Parses the text into at most *count limits, and releases it. */
static int parse_text(struct reading *reading, struct weir_limit *limits, size_t *count,
                      struct weir_error *error) {
    int rc = weir_limit_parse_as(PyBytes_AS_STRING(reading->text),
                                 (size_t)PyBytes_GET_SIZE(reading->text), reading->number, limits,
                                 count, error);
    Py_CLEAR(reading->text);
    return rc;
}

static PyObject *module_parse(PyObject *module, PyObject *args, PyObject *kwargs) {
    struct core_state *state = PyModule_GetState(module);
    struct reading reading = read_arguments(state, args, kwargs, "O|$OO:parse");
    if (!reading.text)
        return NULL;
    struct weir_limit limit;
    struct weir_error error;
    int rc = parse_text(&reading, &limit, &(size_t){1}, &error);
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
    int rc = parse_text(&reading, limit, &count, &error);
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

/* The form in which limits count a client's address. Other text is unchanged. */
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
        PyErr_Clear(); /* lone surrogates: not an address */
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
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_table_unlink(uri, &error);
    CORE_END_SLEEP
    if (rc < 0)
        return core_raise(PyModule_GetState(module), rc, &error);
    Py_RETURN_NONE;
}

PyMethodDef core_functions[] = {
    {"parse", (PyCFunction)(void (*)(void))module_parse, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("parse($module, text, /, *, strategy=None, tz=None)\n--\n\n"
               "Reads exactly one limit, else raises ParseError.\n\n"
               "strategy, tz: for a limit without its own strategy (such as a burst). With\n"
               "'calendar-window', 'week' is a unit, too.\n\n"
               ">>> parse('10/minute')\n"
               "10 per 1 minute")},
    {"parse_many", (PyCFunction)(void (*)(void))module_parse_many, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("parse_many($module, text, /, *, strategy=None, tz=None)\n--\n\n"
               "Reads one or more limits joined by ';', ',' or '|', else raises ParseError.\n\n"
               ">>> parse_many('5/second; 60 per minute')\n"
               "[5 per 1 second, 60 per 1 minute]")},
    {"join_key", (PyCFunction)(void (*)(void))module_join_key, METH_FASTCALL,
     PyDoc_STR("join_key($module, /, *identifiers)\n--\n\n"
               "The key of the identifiers for stores: joined by '/', escaped so that\n"
               "different identifiers make different keys.\n\n"
               ">>> join_key('alice', 'view/1', 7)\n"
               "'alice/view%2F1/7'")},
    {"identifier", module_identifier, METH_O,
     PyDoc_STR("identifier($module, value, /)\n--\n\n"
               "The text of an identifier in keys: str and bytes unchanged, else its str().\n\n"
               ">>> import uuid\n"
               ">>> identifier(uuid.UUID(int=7))\n"
               "'00000000-0000-0000-0000-000000000007'")},
    {"client_form", (PyCFunction)(void (*)(void))module_client_form, METH_FASTCALL,
     PyDoc_STR("client_form($module, text, ipv6_prefix=64, /)\n--\n\n"
               "The form in which limits count a client's address. Other text is unchanged.\n\n"
               ">>> client_form('[2001:DB8::1]:443'), client_form('64:ff9b::10.0.0.1')\n"
               "('2001:db8::/64', '10.0.0.1')")},
    {"unlink", module_unlink, METH_O,
     PyDoc_STR("unlink($module, uri, /)\n--\n\n"
               "Removes the file of a shm:// or file:// table. An open Table notices that.")},
    {"later", (PyCFunction)(void (*)(void))core_later, METH_FASTCALL,
     PyDoc_STR("later($module, decision, seconds, /)\n--\n\n"
               "A denial, updated to `seconds` later: the waits are shorter. The remaining hits\n"
               "of limits that did not deny are unchanged.")},
    {"deciding", (PyCFunction)(void (*)(void))core_deciding, METH_FASTCALL,
     PyDoc_STR("deciding($module, limits, verdicts, /)\n--\n\n"
               "The index of the limit to report to the client.\n\n"
               "Of those that denied, the one whose retry_after is furthest away; else the\n"
               "shortest period.")},
    {"_set_items", core_set_items, METH_VARARGS, NULL},
    {"_restore_limit", core_restore_limit, METH_VARARGS, NULL},
    {"_make_zone", core_make_zone, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
