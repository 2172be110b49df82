/* Table.meter() and Table.raise_meter(): see weir/meter.h. */
#include "meter.h"

#include "errors.h"
#include "lost.h"
#include "table.h"
#include "values.h"
#include "weir/meter.h"

/* The table, the name and the number of a call; NULL with an exception set. */
static struct weir_table *read_call(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                    Py_ssize_t least, const char **name, Py_ssize_t *len,
                                    int64_t *number) {
    struct core_table *self = (struct core_table *)object;
    *number = 0;
    if (nargs < least || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "expected a name and a number, got %zd arguments", nargs);
        return NULL;
    }
    if (!PyUnicode_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "a meter's name must be str, not %.100s",
                     Py_TYPE(args[0])->tp_name);
        return NULL;
    }
    *name = PyUnicode_AsUTF8AndSize(args[0], len);
    if (!*name || (nargs > 1 && core_count(args[1], "number", number) < 0))
        return NULL;
    return core_table_borrow(self);
}

static PyObject *fail(PyObject *object, int rc) {
    if (rc == WEIR_ETOOMANY)
        PyErr_Format(PyExc_ValueError, "a table has no more than %d meters", WEIR_METERS);
    else
        core_raise(((struct core_table *)object)->state, rc, NULL);
    return NULL;
}

PyObject *core_table_meter(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    const char *name;
    Py_ssize_t len;
    int64_t add;
    struct weir_table *table = read_call(object, args, nargs, 1, &name, &len, &add);
    if (!table)
        return NULL;
    uint64_t value;
    int rc = weir_meter_add(table, name, (size_t)len, (uint64_t)add, &value);
    return rc < 0 ? fail(object, rc) : PyLong_FromUnsignedLongLong(value);
}

PyObject *core_table_raise_meter(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    const char *name;
    Py_ssize_t len;
    int64_t value;
    struct weir_table *table = read_call(object, args, nargs, 2, &name, &len, &value);
    if (!table)
        return NULL;
    int rc = weir_meter_raise(table, name, (size_t)len, (uint64_t)value);
    if (rc < 0)
        return fail(object, rc);
    Py_RETURN_NONE;
}
