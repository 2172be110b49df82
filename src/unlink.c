/*
 * Removes a table's name. A file that is not a table is never removed; an empty file
 * /dev/shm/weir.NAME can be the rest of a table.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "uri.h"

static int fail(const char *name, struct weir_error *error) {
    int code = errno == ENOENT                                       ? WEIR_ENOENT
               : errno == EACCES || errno == EPERM || errno == ELOOP ? WEIR_EACCES
                                                                     : WEIR_ESYSTEM;
    return weir_fail(error, code, 0, "%s: cannot remove it: %s", name,
                     errno == ELOOP ? "it is a symbolic link" : strerror(errno));
}

/* 1: a table; 0: something else; -1: it cannot be read, see errno. */
static int is_table(const struct weir_uri *uri) {
    struct stat st;
    char magic[sizeof((struct weir_header *)0)->magic];
    int fd = open(uri->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -1;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    bool begins = regular && pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
                  memcmp(magic, WEIR_MAGIC, sizeof magic) == 0;
    close(fd);
    return begins || (regular && uri->backing == WEIR_BACKING_SHM && st.st_size == 0);
}

int weir_table_unlink(const char *text, struct weir_error *error) {
    struct weir_uri uri;
    char name[WEIR_PATH_MAX];
    int rc = weir_uri_parse(text, &uri, error);
    if (rc < 0)
        return rc;
    if (uri.backing == WEIR_BACKING_MEMORY || uri.backing == WEIR_BACKING_FORKS)
        return weir_fail(error, WEIR_ENOENT, 0, "memory:// has no name to remove");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, "?"), text);
    rc = is_table(&uri);
    if (rc == 0)
        return weir_fail(error, WEIR_EFORMAT, 0, "%s: not a weir table; not removed", name);
    return rc < 0 || unlink(uri.path) < 0 ? fail(name, error) : 0;
}
