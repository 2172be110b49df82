/*
 * Saves and loads private tables. A table is one block of bytes without pointers, so a copy of the
 * block is the table. The copy is loaded like a file that no other process has open: its header is
 * checked, unfinished changes are undone, its locks are initialized, and everything is verified.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "open.h"
#include "rules/rules.h"
#include "saved.h"
#include "table/lock.h"

static int check_room(size_t size, struct weir_error *error) {
    if (size <= WEIR_SAVED_MAX)
        return 0;
    return weir_fail(error, WEIR_ETOOMANY, 0,
                     "a table of %llu MiB cannot be saved: at most %llu MiB; set fewer keys",
                     (unsigned long long)(size >> 20), (unsigned long long)(WEIR_SAVED_MAX >> 20));
}

int weir_table_saved_bytes(const struct weir_table *table, size_t *size, struct weir_error *error) {
    if (!table || !size)
        return weir_fail(error, WEIR_EINVAL, 0, "no table, or no place to put its size");
    *size = table->bytes;
    if (table->backing != WEIR_BACKING_MEMORY)
        return weir_fail(error, WEIR_EINVAL, 0, "%s: only memory:// tables can be saved",
                         table->name);
    return check_room(table->bytes, error);
}

int weir_table_save(struct weir_table *table, void *bytes, size_t size, struct weir_error *error) {
    size_t needed = 0;
    int rc = weir_table_saved_bytes(table, &needed, error);
    if (rc < 0)
        return rc;
    if (!bytes || size != needed)
        return weir_fail(error, WEIR_EINVAL, 0, "%s: no room for a copy of it", table->name);
    rc = weir_after_fork(table);
    if (rc == 0)
        rc = weir_rules_lock(table);
    if (rc == 0) {
        rc = weir_lock_all(table);
        if (rc == 0) {
            memcpy(bytes, table->header, size);
            weir_release_all(table);
        }
        weir_rules_unlock(table);
    }
    return rc < 0 ? weir_fail(error, rc, 0, "%s: %s", table->name, weir_strerror(rc)) : 0;
}

static int load(struct weir_table *table, const void *bytes, size_t size,
                struct weir_error *error) {
    struct weir_header header;
    if (size < WEIR_HEADER_BYTES)
        return weir_fail(error, WEIR_EFORMAT, 0, "%s: not a weir table, or truncated", table->name);
    memcpy(&header, bytes, sizeof header);
    int rc = weir_open_check_header(table, &header, size, error);
    if (rc == 0)
        rc = weir_open_memory(table, &header, error);
    if (rc < 0)
        return rc;
    memcpy(table->header, bytes, size);
    return weir_open_recover(table, error);
}

int weir_table_load(const void *bytes, size_t size, struct weir_table **out,
                    struct weir_error *error) {
    if (!bytes || !out)
        return weir_fail(error, WEIR_EINVAL, 0, "no bytes, or no place to put the table");
    *out = NULL;
    int rc = check_room(size, error);
    if (rc < 0)
        return rc;
    struct weir_table *table = calloc(1, sizeof *table);
    if (!table)
        return weir_fail(error, WEIR_ENOMEM, 0, "out of memory");
    table->backing = WEIR_BACKING_MEMORY;
    table->fd = -1;
    snprintf(table->name, sizeof table->name, "saved table");
    rc = load(table, bytes, size, error);
    if (rc < 0) {
        if (table->header)
            weir_table_close(table);
        else
            free(table);
        return rc;
    }
    snprintf(table->name, sizeof table->name, "memory://");
    if (error)
        *error = (struct weir_error){0};
    *out = table;
    return 0;
}
