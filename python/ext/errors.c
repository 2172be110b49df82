/* The exception classes, and the exceptions for the results of libweir. */
#include "errors.h"

#include <errno.h>

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

/* Sets an attribute. Takes over the reference to the value. */
static int set_attribute(PyObject *object, const char *name, PyObject *value) {
    int rc = value ? PyObject_SetAttrString(object, name, value) : -1;
    Py_XDECREF(value);
    return rc;
}

/* Raises an error with its attributes. If `is_outage` is false, it overrides that of the class. */
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

/* Whether the error is about the request, not about the table. */
static bool is_of_the_request(int result) {
    return result == WEIR_EINVAL || result == WEIR_ETOOMANY || result == WEIR_EFULL;
}

/*
 * A decision has no message. Its WEIR_ETOOMANY means that the table is too small for these limits.
 */
static const char *message_of(int result, const struct weir_error *error) {
    if (error && error->message[0])
        return error->message;
    if (result == WEIR_ETOOMANY && !error)
        return "too many limits at once for this table: set more keys with ?keys=N";
    return weir_strerror(result);
}

PyObject *core_raise(struct core_state *state, int result, const struct weir_error *error) {
    static const struct weir_error cut = {
        .message = "the table was truncated while it was open; a new one takes its place within a "
                   "second"};
    const char *message = message_of(result, error || result != WEIR_EFORMAT ? error : &cut);
    if (error && (result == WEIR_ESYNTAX || result == WEIR_EINVAL || result == WEIR_ETOOMANY))
        raise_error(state->parse_error, result, message, error->column, false);
    else
        raise_error(state->table_error, result, message, -1, !is_of_the_request(result));
    return NULL;
}

void core_raise_closed(struct core_state *state) {
    raise_error(state->table_error, WEIR_EINVAL, "the table is closed", -1, true);
}

/* ------------------------------------------------------------------------------------- classes */

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

/* By default, is_outage is true for errors of stores and false for all others. */
static int add_is_outage(const struct core_state *state) {
    return PyObject_SetAttrString(state->error, "is_outage", Py_False) < 0 ||
                   PyObject_SetAttrString(state->storage_error, "is_outage", Py_True) < 0
               ? -1
               : 0;
}

int core_errors_init(PyObject *module, struct core_state *state) {
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
