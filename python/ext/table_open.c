/* Opening tables, and private tables as bytes (saved.h). */
#include "table_open.h"

#include "errors.h"
#include "lost.h"
#include "open.h"
#include "saved.h"
#include "weir/lost.h"
#include "table.h"

const char core_save_doc[] =
    PyDoc_STR("_save($self, /)\n--\n\n"
              "A copy of a memory:// table, with its secret, as bytes for Table(_saved=...).");

int core_table_open(struct core_table *self, const char *uri, PyObject *saved, bool make,
                    struct weir_error *error) {
    int rc;
    /* If a table is truncated, requests fail, but the process does not crash. */
    if (!saved && strncmp(uri, "memory:", 7) != 0)
        (void)weir_table_guard();
    CORE_BEGIN_SLEEP
    rc = saved ? weir_table_load(PyBytes_AS_STRING(saved), (size_t)PyBytes_GET_SIZE(saved),
                                 &self->mapped, error)
               : weir_table_open_within(uri, weir_open_wait_ns, make, &self->mapped, error);
    CORE_END_SLEEP
    return rc;
}

PyObject *core_table_save(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_table *self = (struct core_table *)object;
    struct weir_table *table = core_table_enter(self);
    if (!table)
        return NULL;
    struct weir_error error;
    size_t size = 0;
    PyObject *bytes = NULL;
    int rc = weir_table_saved_bytes(table, &size, &error);
    if (rc == 0)
        bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes) {
        CORE_BEGIN_SLEEP
        rc = weir_table_save(table, PyBytes_AS_STRING(bytes), size, &error);
        CORE_END_SLEEP
    }
    core_table_leave(self);
    if (rc < 0) {
        Py_XDECREF(bytes);
        return core_raise(self->state, rc, &error);
    }
    return bytes;
}
