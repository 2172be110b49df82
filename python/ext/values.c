/*
 * Conversions between Python objects and the numbers and texts of C; and what several files do with
 * tuples, lists and the types of the module.
 */
#include "values.h"

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

const char *core_c_string(PyObject *text, const char *what) {
    Py_ssize_t len;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &len);
    if (utf8 && strlen(utf8) != (size_t)len) {
        PyErr_Format(PyExc_ValueError, "%s cannot hold a NUL", what);
        return NULL;
    }
    return utf8;
}

PyObject *core_decimal(int64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    uint64_t rest = number > 0 ? (uint64_t)number : 0;
    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    return PyUnicode_DecodeASCII(digits + at, (Py_ssize_t)(sizeof digits - at), NULL);
}

/*
 * A sequence as a tuple. No other code can change a tuple while it is read, and it keeps the limits
 * alive that checks point to.
 */
PyObject *core_tuple_of(PyObject *sequence, const char *why) {
    if (PyTuple_CheckExact(sequence))
        return Py_NewRef(sequence);
    PyObject *tuple = PySequence_Tuple(sequence);
    if (!tuple && PyErr_ExceptionMatches(PyExc_TypeError) && !PySequence_Check(sequence))
        PyErr_SetString(PyExc_TypeError, why);
    return tuple;
}

int core_list_add(PyObject *list, PyObject *item) {
    int rc = item ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return rc;
}

PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    if (type && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}
