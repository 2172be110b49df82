/*
 * Time zones of calendar windows: converts the result of weir._zones for libweir.
 *
 * Limits borrow their zone and are copied, so a zone is never freed. There are some hundred zones
 * of two or three kilobytes.
 */
#include "zone.h"

#define NAME "weir._core.zone"

static void free_zone(struct weir_zone *zone) {
    if (zone) {
        PyMem_RawFree((void *)zone->offset);
        PyMem_RawFree((void *)zone->name);
    }
    PyMem_RawFree(zone);
}

static struct weir_zone *new_zone(const char *name, Py_ssize_t count) {
    struct weir_zone *zone = PyMem_RawCalloc(1, sizeof *zone);
    char *copy = PyMem_RawCalloc(1, strlen(name) + 1);
    void *offsets = PyMem_RawCalloc((size_t)count + 1, sizeof(struct weir_zone_offset));
    if (!zone || !copy || !offsets) {
        PyMem_RawFree(zone);
        PyMem_RawFree(copy);
        PyMem_RawFree(offsets);
        PyErr_NoMemory();
        return NULL;
    }
    strcpy(copy, name);
    *zone = (struct weir_zone){.name = copy, .offset = offsets, .offsets = (size_t)count};
    return zone;
}

/* make_zone(name, [(seconds since the epoch, seconds ahead of UTC), ...]) */
PyObject *core_make_zone(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name;
    PyObject *list;
    if (!PyArg_ParseTuple(args, "sO!:_make_zone", &name, &PyList_Type, &list))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(list);
    struct weir_zone *zone = new_zone(name, count);
    if (!zone)
        return NULL;
    for (Py_ssize_t i = 0; i < count && i < PyList_GET_SIZE(list); i++) {
        long long from_s, offset_s;
        /* A number's __index__ may change the list. */
        PyObject *pair = Py_NewRef(PyList_GET_ITEM(list, i));
        int read =
            PyTuple_Check(pair) && PyArg_ParseTuple(pair, "LL:_make_zone", &from_s, &offset_s);
        Py_DECREF(pair);
        if (!read) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_TypeError, "an offset is a tuple of two numbers");
            goto fail;
        }
        if (from_s > INT64_C(4611686018) || from_s < -INT64_C(4611686018) || offset_s > 86400 ||
            offset_s < -86400) {
            PyErr_SetString(PyExc_ValueError, "an offset out of its range");
            goto fail;
        }
        ((struct weir_zone_offset *)zone->offset)[i] =
            (struct weir_zone_offset){from_s * 1000000000, offset_s * 1000000000};
    }
    struct weir_limit probe;
    struct weir_error error;
    weir_limit_init(&probe, 1, 1, WEIR_DAY, NULL);
    probe.strategy = weir_strategy_taking(WEIR_TAKES_ZONE);
    probe.zone = zone;
    if (weir_limit_validate(&probe, &error) < 0) {
        PyErr_SetString(PyExc_ValueError, error.message);
        goto fail;
    }
    PyObject *capsule = PyCapsule_New(zone, NAME, NULL);
    if (capsule)
        return capsule;
fail:
    free_zone(zone);
    return NULL;
}

int core_zone_of(PyObject *tz, const struct weir_zone **zone) {
    if (tz == Py_None) {
        *zone = NULL;
        return 0;
    }
    PyObject *zones = PyImport_ImportModule("weir._zones");
    PyObject *found = zones ? PyObject_CallMethod(zones, "zone_of", "O", tz) : NULL;
    int rc = -1;
    if (found) {
        *zone = found == Py_None ? NULL : PyCapsule_GetPointer(found, NAME);
        rc = PyErr_Occurred() ? -1 : 0;
    }
    Py_XDECREF(zones);
    Py_XDECREF(found);
    return rc;
}
