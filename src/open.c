/*
 * Creates and opens tables in private memory, in /dev/shm, or in a file, and refuses files that are
 * not valid.
 *
 * A new shared table is created without a name (O_TMPFILE), its space is reserved, it is filled in,
 * and then it is linked to its name. So no process sees an incomplete table, and a process that is
 * killed while it creates one leaves nothing. If two processes create the same table, the first one
 * to link it wins; the other opens that one.
 *
 * Every process holds a shared flock() while it has the table open. A process that gets the
 * exclusive flock() is the only user of the table: no lock in it can have a living owner. It undoes
 * incomplete changes of crashed processes, initializes the locks (the file may be from before a
 * reboot, when process ids had other owners), and verifies all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "crypto/crypto.h"
#include "error.h"
#include "new_file.h"
#include "open.h"
#include "plan.h"
#include "platform.h"
#include "rules/rules.h"
#include "stats/stats.h"
#include "table/guard.h"
#include "table/hash.h"
#include "table/lock.h"
#include "uri.h"

#define KEYS_DEFAULT (UINT64_C(256) << 10)
#define HITS_PER_KEY 3
#define HUGE_PAGE ((size_t)2 << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* ------------------------------------------------------------------------------------- creating */

/* `base` is zeroed memory of plan->bytes. */
static int fill_in(struct weir_table *table, void *base, const struct weir_header *plan,
                   struct weir_error *error) {
    struct weir_header *header = base;
    *header = *plan;
    if (weir_random(header->secret, sizeof header->secret) < 0 ||
        weir_random(header->mix, sizeof header->mix) < 0)
        return weir_fail(error, WEIR_ESYSTEM, 0, "%s: no random bytes: %s", table->name,
                         strerror(errno));
    for (size_t i = 0; i < sizeof header->mix / sizeof header->mix[0]; i++)
        header->mix[i] |= 1;
    header->checksum = weir_checksum(header);
    weir_plan_attach(table, base);
    atomic_store(weir_plan_end(table), WEIR_END_MARK);
    for (uint32_t i = 0; i < weir_locks(table); i++)
        if (weir_lock_init(table, i) < 0)
            return weir_fail(error, WEIR_ESYSTEM, 0, "%s: cannot create its locks", table->name);
    weir_stats_init(table);
    weir_rules_init(table->rules, header->rules);
    if (weir_rules_repair(table) < 0)
        return weir_fail(error, WEIR_ESYSTEM, 0, "%s: cannot create its locks", table->name);
    for (uint32_t line = 1; line + 1 < table->lines; line++)
        table->line[line].next = line + 1;
    table->pool->free_head = 1;
    table->pool->free_count = table->lines - 1;
    return 0;
}

/*
 * Huge pages save a second cache miss per random look-up. If the kernel refuses them, it is not an
 * error.
 */
static void advise_huge_pages(struct weir_table *table, void *base, bool fresh) {
    size_t bytes = table->bytes & ~(HUGE_PAGE - 1);
    if (bytes < 2 * HUGE_PAGE)
        return;
    table->huge_pages = madvise(base, bytes, MADV_HUGEPAGE) == 0;
    if (table->huge_pages && fresh && table->backing != WEIR_BACKING_MEMORY)
        madvise(base, bytes, MADV_COLLAPSE);
}

static int repair_all(struct weir_table *table) {
    int rc = weir_locks_repair(table);
    return rc < 0 ? rc : weir_rules_repair(table);
}

static void *map_for_forks(size_t bytes) {
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

static void *map_private(size_t bytes) {
    char *base =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE - ((uintptr_t)base & (HUGE_PAGE - 1))) & (HUGE_PAGE - 1);
    if (before)
        munmap(base, before);
    if (HUGE_PAGE - before)
        munmap(base + before + bytes, HUGE_PAGE - before);
    return base + before;
}

int weir_open_memory(struct weir_table *table, const struct weir_header *plan,
                     struct weir_error *error) {
    table->fd = -1;
    table->bytes = plan->bytes;
    bool forks = table->backing == WEIR_BACKING_FORKS;
    void *base = forks ? map_for_forks(plan->bytes) : map_private(plan->bytes);
    if (!base)
        return weir_fail(error, WEIR_ENOMEM, 0, "%s: cannot map %llu MiB; set fewer keys",
                         table->name, (unsigned long long)(plan->bytes >> 20));
    advise_huge_pages(table, base, !forks);
    table->repair = repair_all;
    weir_fork_watch(table);
    int rc = fill_in(table, base, plan, error);
    if (rc < 0) {
        munmap(base, plan->bytes);
        table->header = NULL;
    }
    return rc;
}

static int fail_errno(const struct weir_table *table, int err, const char *what,
                      struct weir_error *error) {
    int code = err == EACCES || err == EPERM || err == ELOOP    ? WEIR_EACCES
               : err == ENOENT                                  ? WEIR_ENOENT
               : err == ENOSPC || err == EDQUOT || err == EFBIG ? WEIR_ENOSPC
               : err == ENOMEM                                  ? WEIR_ENOMEM
                                                                : WEIR_ESYSTEM;
    return weir_fail(error, code, 0, "%s: %s: %s", table->name, what,
                     err == ELOOP ? "it is a symbolic link" : strerror(err));
}

/*
 * Returns 0; 1 if another process was faster; or an error. On success, the table is locked
 * (shared).
 */
static int reserve_file(struct weir_table *table, const struct weir_uri *uri,
                        const struct weir_header *plan, gid_t group, struct weir_error *error) {
    char temporary[WEIR_PATH_MAX + 32];
    void *base = MAP_FAILED;
    int fd = weir_new_file(uri->path, temporary, sizeof temporary);
    if (fd < 0)
        return fail_errno(table, errno,
                          table->backing == WEIR_BACKING_SHM ? "cannot create it in /dev/shm"
                                                             : "cannot create it",
                          error);
    int rc = 0, err = posix_fallocate(fd, 0, (off_t)plan->bytes);
    if (err) {
        rc = weir_fail(
            error, err == ENOSPC || err == EDQUOT || err == EFBIG ? WEIR_ENOSPC : WEIR_ESYSTEM, 0,
            "%s: cannot reserve %llu KiB: %s; free some space, or set fewer keys with ?keys=N",
            table->name, (unsigned long long)(plan->bytes >> 10), strerror(err));
        goto out;
    }
    base = mmap(NULL, plan->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        rc = fail_errno(table, errno, "cannot map it", error);
        goto out;
    }
    table->bytes = plan->bytes;
    table->mapping = weir_mapping_add(base, plan->bytes);
    rc = fill_in(table, base, plan, error);
    if (rc < 0)
        goto out;
    if (flock(fd, LOCK_SH) < 0)
        rc = fail_errno(table, errno, "cannot lock it", error);
    else if (uri->group[0] && (fchown(fd, (uid_t)-1, group) < 0 || fchmod(fd, 0660) < 0))
        rc = fail_errno(table, errno, "cannot change its group", error);
    else if (weir_new_file_name(fd, temporary, uri->path) < 0)
        rc = errno == EEXIST ? 1 : fail_errno(table, errno, "cannot name it", error);
out:
    if (temporary[0])
        unlink(temporary);
    if (rc == 0) {
        table->fd = fd;
        advise_huge_pages(table, base, true);
    } else {
        if (base != MAP_FAILED)
            weir_mapping_remove(table->mapping, base, plan->bytes);
        table->header = NULL;
        close(fd);
    }
    return rc;
}

/*
 * The same, one process at a time: there may be space for one table, but not for one of each
 * worker.
 */
static int make_file(struct weir_table *table, const struct weir_uri *uri,
                     const struct weir_header *plan, gid_t group, int64_t wait_ns,
                     struct weir_error *error) {
    int lock = weir_new_file_begin(uri->path, wait_ns);
    int rc = access(uri->path, F_OK) == 0 ? 1 : reserve_file(table, uri, plan, group, error);
    weir_new_file_end(lock);
    return rc;
}

/* -------------------------------------------------------------------------------------- opening */

static int refuse(const struct weir_table *table, int code, const char *why,
                  struct weir_error *error) {
    return weir_fail(error, code, 0, "%s: %s", table->name, why);
}

int weir_open_check_header(const struct weir_table *table, const struct weir_header *header,
                           uint64_t size, struct weir_error *error) {
    struct weir_header plan;
    if (memcmp(header->magic, WEIR_MAGIC, sizeof header->magic) != 0)
        return refuse(table, WEIR_EFORMAT, "not a weir table", error);
    if (header->version != WEIR_LAYOUT_VERSION)
        return weir_fail(
            error, WEIR_EVERSION, 0,
            "%s: made by another version of weir (layout %u, this one is %u); remove it",
            table->name, header->version, WEIR_LAYOUT_VERSION);
    if (header->signature != weir_plan_signature())
        return refuse(table, WEIR_EVERSION, "made by another build or machine; remove it", error);
    if (header->checksum != weir_checksum(header))
        return refuse(table, WEIR_EFORMAT, "its header is damaged; remove it", error);
    memset(&plan, 0, sizeof plan);
    weir_plan(&plan, header->keys, header->hits, header->rules);
    if (header->keys < WEIR_BUCKET_CELLS || header->keys > WEIR_KEYS_MAX ||
        header->hits > WEIR_HITS_MAX || header->rules > WEIR_RULES_MAX ||
        memcmp(&plan, header, offsetof(struct weir_header, secret)) != 0)
        return refuse(table, WEIR_EFORMAT, "its header is damaged; remove it", error);
    if (size != header->bytes)
        return weir_fail(error, WEIR_EFORMAT, 0,
                         "%s: truncated: %llu bytes where there were %llu; remove it", table->name,
                         (unsigned long long)size, (unsigned long long)header->bytes);
    return 0;
}

static int check_size(const struct weir_table *table, const struct weir_header *header,
                      const struct weir_uri *uri, struct weir_error *error) {
    uint64_t keys = (uri->keys + WEIR_BUCKET_CELLS - 1) / WEIR_BUCKET_CELLS * WEIR_BUCKET_CELLS;
    if ((uri->keys && keys != header->keys) ||
        (uri->hits != UINT64_MAX && uri->hits != header->hits) ||
        (uri->rules != UINT64_MAX && uri->rules != header->rules))
        return weir_fail(
            error, WEIR_EMISMATCH, 0,
            "%s: exists with keys=%llu&hits=%llu&rules=%u; use these values, or remove it",
            table->name, (unsigned long long)header->keys, (unsigned long long)header->hits,
            header->rules);
    return 0;
}

static int check_owner(const struct weir_table *table, int fd, const struct weir_uri *uri,
                       gid_t group, struct stat *st, struct weir_error *error) {
    if (fstat(fd, st) < 0)
        return fail_errno(table, errno, "cannot read its status", error);
    if (!S_ISREG(st->st_mode))
        return refuse(table, WEIR_EFORMAT, "not a regular file", error);
    int rc = weir_access_check(table->name, st, uri, group, error);
    if (rc < 0)
        return rc;
    if ((uint64_t)st->st_size < WEIR_HEADER_BYTES)
        return refuse(table, WEIR_EFORMAT, "not a weir table, or truncated", error);
    return 0;
}

int weir_open_recover(struct weir_table *table, struct weir_error *error) {
    if (atomic_load(weir_plan_end(table)) != WEIR_END_MARK)
        return refuse(table, WEIR_EFORMAT, "truncated; remove it", error);
    if (repair_all(table) < 0)
        return refuse(table, WEIR_ESYSTEM, "cannot renew its locks", error);
    struct weir_error damage;
    int rc = weir_table_check(table, &damage);
    if (rc == WEIR_ECORRUPT)
        return weir_fail(error, WEIR_EFORMAT, 0, "%s: damaged (%s); remove it", table->name,
                         damage.message);
    return rc < 0 ? refuse(table, rc, weir_strerror(rc), error) : 0;
}

int64_t weir_open_wait_ns = INT64_C(5000000000); /* the time that checking a large table takes */

/* Returns 0, WEIR_ENOENT, or another error. */
static int open_file(struct weir_table *table, const struct weir_uri *uri, gid_t group,
                     int64_t wait_ns, struct weir_error *error) {
    struct stat st;
    void *base = MAP_FAILED;
    int fd = open(uri->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(table, errno, "cannot open it", error);
    int rc = check_owner(table, fd, uri, group, &st, error);
    if (rc < 0)
        goto out;
    int alone = rc = weir_access_lock(table->name, fd, wait_ns, error);
    if (rc < 0)
        goto out;
    if (fstat(fd, &st) == 0 &&
        st.st_nlink == 0) { /* removed after it was opened here: other processes will not find it */
        rc = 1;
        goto out;
    }
    base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        rc = fail_errno(table, errno, "cannot map it", error);
        goto out;
    }
    table->mapping = weir_mapping_add(base, (size_t)st.st_size);
    rc = weir_open_check_header(table, base, (uint64_t)st.st_size, error);
    if (rc == 0)
        rc = check_size(table, base, uri, error);
    if (rc < 0)
        goto out;
    weir_plan_attach(table, base);
    if (alone)
        rc = weir_open_recover(table, error);
    if (rc == 0 && alone && flock(fd, LOCK_SH) < 0)
        rc = fail_errno(table, errno, "cannot lock it", error);
    if (rc == 0 && weir_is_cut(table))
        rc = refuse(table, WEIR_EFORMAT, "truncated; remove it", error);
out:
    if (rc == 0) {
        table->fd = fd;
        advise_huge_pages(table, base, false);
    } else {
        if (base != MAP_FAILED)
            weir_mapping_remove(table->mapping, base, (size_t)st.st_size);
        table->header = NULL;
        close(fd);
    }
    return rc;
}

/* Opens the file of a shared table; creates it first if it does not exist and `make` is set. */
static int open_shared(struct weir_table *table, const struct weir_uri *uri,
                       const struct weir_header *plan, int64_t wait_ns, bool make,
                       struct weir_error *error) {
    gid_t group = 0;
    int rc = weir_access_group(table->name, uri, &group, error);
    if (rc < 0)
        return rc;
    for (int i = 0; i < 100; i++) { /* other processes may create and remove it at the same time */
        rc = open_file(table, uri, group, wait_ns, error);
        if (rc == WEIR_ENOENT && make)
            rc = make_file(table, uri, plan, group, wait_ns, error);
        if (rc != 1)
            return rc;
    }
    return refuse(table, WEIR_ESYSTEM, "it keeps appearing and disappearing", error);
}

int weir_table_open(const char *text, struct weir_table **out, struct weir_error *error) {
    return weir_table_open_within(text, weir_open_wait_ns, true, out, error);
}

int weir_table_open_within(const char *text, int64_t wait_ns, bool make, struct weir_table **out,
                           struct weir_error *error) {
    struct weir_uri uri;
    struct weir_header plan;
    if (!out)
        return weir_fail(error, WEIR_EINVAL, 0, "no place to put the table");
    *out = NULL;
    int rc = weir_uri_parse(text, &uri, error);
    if (rc < 0)
        return rc;
    struct weir_table *table = calloc(1, sizeof *table);
    if (!table)
        return weir_fail(error, WEIR_ENOMEM, 0, "out of memory");
    table->backing = uri.backing;
    snprintf(table->name, sizeof table->name, "%.*s", (int)strcspn(text, "?"), text);
    uint64_t keys = uri.keys ? uri.keys : KEYS_DEFAULT;
    memset(&plan, 0, sizeof plan);
    uint64_t hits = keys * HITS_PER_KEY < WEIR_HITS_MAX ? keys * HITS_PER_KEY : WEIR_HITS_MAX;
    weir_plan(&plan, keys, uri.hits != UINT64_MAX ? uri.hits : hits,
              uri.rules != UINT64_MAX ? (uint32_t)uri.rules : WEIR_RULES_DEFAULT);
    if (!WEIR_SHARED_TABLES && table->backing == WEIR_BACKING_FORKS)
        table->backing = WEIR_BACKING_MEMORY; /* a child that forks has its own copy */
    if (uri.backing == WEIR_BACKING_MEMORY || uri.backing == WEIR_BACKING_FORKS) {
        rc = weir_open_memory(table, &plan, error);
    } else if (!WEIR_SHARED_TABLES) {
        rc = refuse(table, WEIR_ESYSTEM,
                    "tables of several processes need Linux; use memory:// or a remote store",
                    error);
    } else {
        rc = open_shared(table, &uri, &plan, wait_ns, make, error);
    }
    if (rc < 0) {
        free(table);
        return rc;
    }
    weir_access_watch(table);
    if (error)
        *error =
            (struct weir_error){0}; /* "no such file" was not an error: the table was created */
    *out = table;
    return 0;
}

void weir_table_close(struct weir_table *table) {
    if (!table)
        return;
    weir_mapping_remove(table->mapping, table->header, table->bytes);
    if (table->fd >= 0)
        close(table->fd);
    free(table);
}
