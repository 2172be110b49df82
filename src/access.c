/*
 * Access to a table's file: only its owner, or, with ?group=, the members of one group.
 *
 * Membership is that of the running process, as the kernel reports it, and not that of its user in
 * /etc/group: a process keeps the groups it was started with. Root must be a member too.
 */
#include "access.h"

#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "table/table.h"
#include "uri.h"

#define LOCK_SLICE_NS 5000000
#define BUFFER_MAX ((size_t)1 << 20) /* a group with some ten thousand members */

static int find_number(const char *name, gid_t *gid) {
    if (name[0] == '\0' || strspn(name, "0123456789") != strlen(name) || strlen(name) > 10)
        return WEIR_ENOENT;
    unsigned long long number = strtoull(name, NULL, 10);
    if (number >= (gid_t)-1)
        return WEIR_ENOENT;
    *gid = (gid_t)number;
    return 0;
}

static int find_gid(const char *name, gid_t *gid) {
    int rc = WEIR_ENOMEM;
    for (size_t size = 1024; size <= BUFFER_MAX && rc == WEIR_ENOMEM; size *= 4) {
        struct group group, *found = NULL;
        char *buffer = malloc(size);
        if (!buffer)
            return WEIR_ENOMEM;
        int err = getgrnam_r(name, &group, buffer, size, &found);
        if (found) {
            *gid = found->gr_gid;
            rc = 0;
        } else if (err != ERANGE) {
            rc = err == EIO || err == EMFILE || err == ENFILE ? WEIR_ESYSTEM
                                                              : find_number(name, gid);
        }
        free(buffer);
    }
    return rc;
}

static bool belongs_to(gid_t gid) {
    if (getegid() == gid)
        return true;
    int count = getgroups(0, NULL);
    if (count <= 0)
        return false;
    gid_t *groups = calloc((size_t)count, sizeof *groups);
    if (!groups)
        return false;
    bool member = false;
    count = getgroups(count, groups);
    for (int i = 0; i < count && !member; i++)
        member = groups[i] == gid;
    free(groups);
    return member;
}

int weir_access_group(const char *name, const struct weir_uri *uri, gid_t *gid,
                      struct weir_error *error) {
    if (!uri->group[0])
        return 0;
    int rc = find_gid(uri->group, gid);
    if (rc == WEIR_ENOENT)
        return weir_fail(error, WEIR_EINVAL, 0, "%s: there is no group \"%s\"", name, uri->group);
    if (rc < 0)
        return weir_fail(error, rc, 0, "%s: cannot look up the group \"%s\"", name, uri->group);
    if (!belongs_to(*gid))
        return weir_fail(error, WEIR_EACCES, 0,
                         "%s: this process (uid %u) is not a member of the group \"%s\"; add its "
                         "user to the group and restart the process",
                         name, (unsigned)geteuid(), uri->group);
    return 0;
}

int weir_access_check(const char *name, const struct stat *st, const struct weir_uri *uri,
                      gid_t group, struct weir_error *error) {
    unsigned mode = (unsigned)st->st_mode & 07777;
    if (uri->group[0] && (st->st_gid != group || mode != 0660))
        return weir_fail(error, WEIR_EACCES, 0,
                         "%s: exists, but not for the group \"%s\" (gid %u, mode %04o); remove it, "
                         "or open it without group=",
                         name, uri->group, (unsigned)st->st_gid, mode);
    if (!uri->group[0] && st->st_uid != geteuid())
        return weir_fail(error, WEIR_EACCES, 0, "%s: owned by another user (uid %u, not %u)", name,
                         (unsigned)st->st_uid, (unsigned)geteuid());
    if (!uri->group[0] && mode == 0660)
        return weir_fail(
            error, WEIR_EACCES, 0,
            "%s: shared with a group (gid %u, mode 0660); open it with ?group=NAME, or "
            "chmod 600 it",
            name, (unsigned)st->st_gid);
    if (!uri->group[0] && mode & 077)
        return weir_fail(error, WEIR_EACCES, 0,
                         "%s: others may read or write it (mode %04o); chmod 600 it", name, mode);
    return 0;
}

int weir_access_lock(const char *name, int fd, int64_t wait_ns, struct weir_error *error) {
    const struct timespec slice = {0, LOCK_SLICE_NS};
    for (int64_t waited = 0; waited < wait_ns; waited += LOCK_SLICE_NS) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 1;
        if (flock(fd, LOCK_SH | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return weir_fail(error, WEIR_ESYSTEM, 0, "%s: cannot lock it: %s", name,
                             strerror(errno));
        nanosleep(&slice, NULL);
    }
    return weir_fail(error, WEIR_EBUSY, 0,
                     "%s: another process keeps it locked (flock); end that one", name);
}

void weir_access_watch(struct weir_table *table) {
    struct stat st;
    table->has_name = table->fd >= 0 && fstat(table->fd, &st) == 0 && st.st_nlink > 0;
    if (table->has_name) {
        table->device = (uint64_t)st.st_dev;
        table->inode = (uint64_t)st.st_ino;
    }
}
