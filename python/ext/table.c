/*
 * The handle of a local store: what calls on an open table share. table_type.c has its Python type.
 *
 * `users` counts calls without the GIL, so that close() does not unmap the table during such a
 * call.
 */
#include "table.h"

#include "table/lock.h"

_Thread_local bool core_may_sleep;

static bool must_not_sleep(void) {
    return !core_may_sleep;
}

void core_table_init(void) {
    weir_must_not_sleep = must_not_sleep;
}

void core_table_close_unused(struct core_table *self) {
    if (self->users > 0)
        return;
    weir_table_close(self->retired);
    self->retired = NULL;
    if (self->table || self->lost)
        return;
    weir_table_close(self->mapped);
    self->mapped = NULL;
}

void core_table_leave(struct core_table *self) {
    self->users--;
    core_table_close_unused(self);
}

int core_table_decides(struct core_state *state, PyObject *storage) {
    if (!PyObject_TypeCheck(storage, state->table_type))
        return 0;
    if (Py_TYPE(storage) == state->table_type)
        return 1;
    PyObject *names[] = {state->str_decide, state->str_clear};
    for (int i = 0; i < 2; i++) {
        PyObject *own = PyObject_GetAttr((PyObject *)Py_TYPE(storage), names[i]);
        PyObject *table = PyObject_GetAttr((PyObject *)state->table_type, names[i]);
        bool same = own && own == table;
        Py_XDECREF(own);
        Py_XDECREF(table);
        if (!own || !table)
            return -1;
        if (!same)
            return 0;
    }
    return 1;
}
