/*
 * Tables whose file is removed or truncated while a process has it open. A removed file could still
 * be used, but processes that start later create another one, and each of the two tables would
 * admit the whole limit. The bytes that were cut off are lost (guard.c), so the mapping of a
 * truncated file is not accessed again, and the file is removed: the next table takes its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "new_file.h"
#include "open.h"
#include "stats/stats.h"
#include "table/table.h"
#include "uri.h"
#include "weir/lost.h"
#include "weir/stats.h"
#include "weir/rules.h"

#define REOPEN_WAIT_NS 5000000 /* decisions wait for it; it is tried again later */

static bool is_file_of(const struct weir_table *table, const struct stat *st) {
    return (uint64_t)st->st_dev == table->device && (uint64_t)st->st_ino == table->inode;
}

int weir_table_lost(struct weir_table *table) {
    struct stat st;
    if (!table)
        return WEIR_EINVAL;
    if (table->was_cut)
        return WEIR_EFORMAT; /* even if the file was extended again */
    bool readable = table->has_name && fstat(table->fd, &st) == 0 && is_file_of(table, &st);
    table->was_cut = (readable && (uint64_t)st.st_size < table->bytes) || weir_is_cut(table);
    if (table->was_cut) {
        /* A lock that was held then is still in its thread's list: the mapping stays (guard.h). */
        if (table->mapping)
            atomic_store(&table->mapping->lost, 1);
        return WEIR_EFORMAT;
    }
    return readable && st.st_nlink == 0 ? WEIR_ENOENT : 0;
}

/* In the same order, so that they get the same numbers. 0, or WEIR_EBUSY after one wait. */
static int carry_labels(const struct weir_table *from, struct weir_table *to) {
    uint32_t n = weir_stats_number(&from->stats->labels, WEIR_LABELS_NAMED);
    char text[WEIR_LABEL_MAX + 1];
    for (uint32_t i = 0; i < n; i++) {
        weir_label_copy(from, i + 1, text);
        if (weir_stats_label(to, text, strlen(text)) == WEIR_EBUSY)
            return WEIR_EBUSY;
    }
    return 0;
}

static void copy_registry(struct weir_table *from, struct weir_table *to) {
    size_t n = 0;
    if (weir_stats_registry(from, NULL, &n) < 0 || n == 0)
        return;
    struct weir_registered_limit *limits = calloc(n, sizeof *limits);
    if (limits && weir_stats_registry(from, limits, &n) == 0)
        for (size_t i = 0; i < n; i++) {
            const char *after = limits[i].text + limits[i].before_len;
            const struct weir_zone_offset none = {0, 0};
            char name[WEIR_ZONE_NAME_MAX + 1] = "";
            const struct weir_zone zone = {name, &none, 1}; /* only its name is stored */
            memcpy(name, after + limits[i].after_len, limits[i].zone_len);
            limits[i].limit.zone = limits[i].zone_len > 0 ? &zone : NULL;
            if (weir_stats_register(to, &limits[i].limit, limits[i].text, limits[i].before_len,
                                    after, limits[i].after_len) == WEIR_EBUSY)
                break; /* each further limit would wait, too */
        }
    free(limits);
}

static void copy_rules(struct weir_table *from, struct weir_table *to, int64_t now_ns) {
    size_t room = from->header->rules, n = room;
    struct weir_rule *rules = room ? calloc(room, sizeof *rules) : NULL;
    struct weir_error error;
    if (rules && weir_rules_list(from, rules, &n) == 0 && n > 0)
        weir_rules_load(to, rules, n < room ? n : room, now_ns, &error);
    free(rules);
}

/*
 * The folder of automatic tables may be removed, too. It must belong to this user and be private.
 */
static int ensure_folder(const char *text, struct weir_error *error) {
    struct weir_uri uri;
    struct stat st;
    int rc = weir_uri_parse(text, &uri, error);
    char *slash = rc < 0 ? NULL : strrchr(uri.path, '/');
    if (!slash || strncmp(text, "shm://auto-", 11) != 0)
        return rc;
    *slash = '\0';
    if (mkdir(uri.path, 0700) < 0 && errno != EEXIST)
        return weir_fail(error, WEIR_ENOENT, 0, "cannot create its directory: %s", strerror(errno));
    if (lstat(uri.path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        return weir_fail(error, WEIR_EACCES, 0, "its directory belongs to another user");
    return 0;
}

/*
 * Whether the file holds nothing but the rest of a table: it is empty, or begins with a table's
 * header or with zeros.
 */
static bool is_rest_of_table(int fd) {
    static const char zeros[sizeof((struct weir_header *)0)->magic];
    char begin[sizeof zeros];
    ssize_t n = pread(fd, begin, sizeof begin, 0);
    return n == 0 || (n == (ssize_t)sizeof begin && (!memcmp(begin, WEIR_MAGIC, sizeof begin) ||
                                                     !memcmp(begin, zeros, sizeof begin)));
}

/*
 * Removes the file of a truncated table, unless another process has done so, or a program has
 * written other data into the file. Creators of tables wait meanwhile, so that a new table is not
 * removed.
 */
static int remove_rest(const struct weir_table *table, const char *text, struct weir_error *error) {
    struct weir_uri uri;
    struct stat st;
    int rc = weir_uri_parse(text, &uri, error);
    if (rc < 0)
        return rc;
    int lock = weir_new_file_begin(uri.path, REOPEN_WAIT_NS);
    int fd = open(uri.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &st) == 0 && is_file_of(table, &st)) {
        if (!is_rest_of_table(fd))
            rc = weir_fail(error, WEIR_EFORMAT, 0,
                           "%s: was truncated, and has other data now; remove it", table->name);
        else if (unlink(uri.path) < 0 && errno != ENOENT)
            rc = weir_fail(error, WEIR_EFORMAT, 0, "%s: was truncated, and cannot be removed: %s",
                           table->name, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    weir_new_file_end(lock);
    return rc;
}

/* Closes `from` and moves `to` into its handle. */
static void take_over(struct weir_table *from, struct weir_table *to) {
    weir_mapping_remove(from->mapping, from->header, from->bytes);
    close(from->fd);
    memcpy((void *)from, (const void *)to, sizeof *from);
    free(to);
}

int weir_table_replacement(struct weir_table *table, const char *uri, int64_t now_ns,
                           struct weir_table **replacement, struct weir_error *error) {
    struct weir_table *fresh = NULL;
    struct stat st;
    *replacement = NULL;
    int lost = weir_table_lost(table);
    if (lost == 0)
        return 0;
    int rc = ensure_folder(uri, error);
    if (rc == 0 && lost == WEIR_EFORMAT)
        rc = remove_rest(table, uri, error);
    rc = rc < 0 ? rc : weir_table_open_within(uri, REOPEN_WAIT_NS, true, &fresh, error);
    if (rc < 0)
        return rc;
    if (fresh->fd < 0 || fstat(fresh->fd, &st) < 0 || is_file_of(table, &st)) {
        weir_table_close(fresh); /* the file has its old name again */
        return weir_fail(error, WEIR_EFORMAT, 0, "%s: was truncated; remove it", table->name);
    }
    if (lost == WEIR_ENOENT) {
        if (carry_labels(table, fresh) == 0)
            copy_registry(table, fresh);
        copy_rules(table, fresh, now_ns);
    }
    weir_stats_reveal(fresh, atomic_load(&table->reveal));
    *replacement = fresh;
    return 0;
}

int weir_table_reopen(struct weir_table *table, const char *uri, int64_t now_ns,
                      struct weir_error *error) {
    struct weir_table *fresh = NULL;
    if (!table || !uri || now_ns < 0 || now_ns > WEIR_NOW_MAX)
        return weir_fail(error, WEIR_EINVAL, 0, "a table, its URI and the time are required");
    int rc = weir_table_replacement(table, uri, now_ns, &fresh, error);
    if (fresh)
        take_over(table, fresh);
    return rc;
}
