/* A Table whose file is removed or truncated while it is open: weir_table_lost(). */
#include "lost.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "errors.h"
#include "ipv6_prefix.h"
#include "open.h"
#include "weir/lost.h"
#include "table.h"

#define LINE_BYTES 1024

/* Logs a line later, because no Python code may run while the table is borrowed. */
static int log_line(void *line) {
    PyObject *logging = PyImport_ImportModule("logging");
    PyObject *logger = logging ? PyObject_CallMethod(logging, "getLogger", "s", "weir") : NULL;
    PyObject *text = PyUnicode_DecodeUTF8(line, (Py_ssize_t)strlen(line), "backslashreplace");
    PyObject *done =
        logger && text ? PyObject_CallMethod(logger, "warning", "sO", "%s", text) : NULL;
    if (!done)
        PyErr_WriteUnraisable(logger);
    Py_XDECREF(done);
    Py_XDECREF(text);
    Py_XDECREF(logger);
    Py_XDECREF(logging);
    free(line);
    return 0;
}

static void log_soon(const char *what, const struct weir_error *error) {
    char *line = malloc(LINE_BYTES);
    if (!line)
        return;
    snprintf(line, LINE_BYTES, "%s%s%s", what, error ? ": " : "", error ? error->message : "");
    if (Py_AddPendingCall(log_line, line) < 0)
        free(line);
}

/* Puts the new table in the place of the lost one, which calls of other threads may still use. */
static void replace(struct core_table *self, struct weir_table *fresh) {
    self->retired = self->mapped;
    self->mapped = self->table = fresh;
    memset(self->label, 0, sizeof self->label);
    self->lost = 0;
    self->renewals++;
    self->reported = false;
}

/* Opens the table again by its URI. The part of the URI after "?" is not logged. */
static void renew(struct core_table *self) {
    struct weir_error error = {.message = ""};
    struct weir_table *lost = self->mapped, *fresh = NULL;
    char what[512];
    const char *uri = PyUnicode_AsUTF8(self->uri);
    if (!uri) {
        PyErr_Clear();
        return;
    }
    bool readable = self->lost == WEIR_ENOENT;
    struct timespec clock = {0, 0};
    clock_gettime(CLOCK_REALTIME, &clock);
    int64_t now_ns = (int64_t)clock.tv_sec * 1000000000;
    int prefix = readable ? core_ipv6_prefix(self->mapped) : self->noted_prefix - 1;
    const char *happened = readable ? "removed" : "truncated";
    int shown = (int)strcspn(uri, "?");
    int rc;
    /* Other threads use the lost table meanwhile, or are refused, and may close it. */
    self->renewing = (long)getpid();
    self->users++;
    CORE_BEGIN_SLEEP
    rc = weir_table_replacement(lost, uri, now_ns, &fresh, &error);
    if (fresh && prefix >= 0)
        core_set_ipv6_prefix(fresh, prefix, now_ns);
    CORE_END_SLEEP
    self->users--;
    self->renewing = 0;
    bool closed = !self->table && !self->lost;
    if (closed) {
        weir_table_close(fresh);
    } else if (fresh) {
        replace(self, fresh);
        snprintf(what, sizeof what,
                 "%.*s was %s while in use: all counts start at zero in a new table%s",
                 shown < 300 ? shown : 300, uri, happened,
                 readable ? "" : ", and rules about clients are lost");
        log_soon(what, NULL);
    } else if (rc < 0 && !self->reported) {
        snprintf(what, sizeof what, "%.*s was %s while in use, and there is no new one yet",
                 shown < 300 ? shown : 300, uri, happened);
        log_soon(what, &error);
        self->reported = true;
    }
    core_table_close_unused(self);
}

struct weir_table *core_table_check_lost(struct core_table *self, bool now) {
    int64_t now_ns = self->state->clock.latest;
    now = now || (uint64_t)(now_ns - self->lost_checked_ns) >= CORE_CHECK_LOST_NS;
    if (self->has_file && now) {
        self->lost_checked_ns = now_ns;
        /* A truncated file stays lost, even if it becomes longer again. */
        if (self->lost != WEIR_EFORMAT)
            self->lost = weir_table_lost(self->mapped);
        if (self->lost == WEIR_EFORMAT)
            self->table = NULL;
        if (self->lost && !self->observes && !self->retired && self->renewing != (long)getpid())
            renew(self);
    }
    if (!self->table && self->lost) {
        core_raise(self->state, WEIR_EFORMAT, NULL);
    } else if (!self->table) {
        core_raise_closed(self->state);
    }
    return self->table;
}

struct weir_table *core_table_enter(struct core_table *self) {
    struct weir_table *table =
        core_table_check_lost(self, true); /* slow calls check the file each time */
    self->users += table != NULL;
    return table;
}
