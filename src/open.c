/*
 * Creates and opens tables in private memory, in /dev/shm, or in a file, and refuses files that are not valid.
 *
 * A new shared table is created without a name (O_TMPFILE), its space is reserved, it is filled in, and then it is
 * linked to its name. So no process sees an incomplete table, and a process that is killed while it creates one
 * leaves nothing. If two processes create the same table, the first one to link it wins; the other opens that one.
 *
 * Every process holds a shared flock() while it has the table open. A process that gets the exclusive flock() is the
 * only user of the table: no lock in it can have a living owner. It undoes incomplete changes of crashed processes,
 * initializes the locks (the file may be from before a reboot, when process ids had other owners), and verifies all.
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

#include "crypto/crypto.h"
#include "open.h"
#include "stats/stats.h"
#include "access.h"
#include "error.h"
#include "new_file.h"
#include "table/guard.h"
#include "platform.h"
#include "table/hash.h"
#include "table/lock.h"
#include "rules/rules.h"
#include "uri.h"

#define KEYS_DEFAULT (UINT64_C(256) << 10)
#define HITS_PER_KEY 3
#define RULES_DEFAULT 1024u
#define DESCRIBED_MIN 32u
#define DESCRIBED_MAX 1024u
#define REGISTRY_KEYS 64 /* keys for each limit in the registry */
#define STRIPE_CELLS 512
#define STRIPES_FEW 8u /* below this number, more locks are preferred to more cells for each */
#define STRIPE_CELLS_FEW 32
#define LINE_HITS 14
#define HUGE_PAGE ((size_t)2 << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* ------------------------------------------------------------------------------------------- sizes */

static uint64_t line_up(uint64_t bytes) {
    return (bytes + 63) & ~UINT64_C(63);
}

static uint64_t page_up(uint64_t bytes) {
    return (bytes + 4095) & ~UINT64_C(4095);
}

/* A hash of everything about this machine and build that the meaning of the mapping depends on. */
static uint64_t signature(void) {
    const uint16_t one = 1;
    const uint64_t parts[] = {sizeof(pthread_mutex_t),
                              sizeof(struct weir_lock),
                              sizeof(struct weir_stripe),
                              sizeof(struct weir_pool),
                              sizeof(struct weir_cell),
                              sizeof(struct weir_line),
                              sizeof(struct weir_stats),
                              sizeof(struct weir_stats_stripe),
                              sizeof(struct weir_registered_limit),
                              weir_rules_bytes(RULES_DEFAULT),
                              WEIR_BUCKET_CELLS,
                              WEIR_CHECKS_MAX,
                              WEIR_LINKS_MAX,
                              sizeof(void *),
                              *(const unsigned char *)&one,
                              sizeof(time_t)};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        hash = (hash ^ parts[i]) * UINT64_C(0x100000001b3);
#if !defined(__GLIBC__)
    /* musl's mutexes have the same size as glibc's, but other contents. */
    hash = (hash ^ 1) * UINT64_C(0x100000001b3);
#endif
    return hash;
}

static uint32_t registered(uint64_t keys) {
    keys /= REGISTRY_KEYS;
    return keys < DESCRIBED_MIN   ? DESCRIBED_MIN
           : keys > DESCRIBED_MAX ? DESCRIBED_MAX
                                  : (uint32_t)keys;
}

static void lay_out(struct weir_header *header, uint64_t keys, uint64_t hits, uint32_t rules) {
    keys = (keys + WEIR_BUCKET_CELLS - 1) / WEIR_BUCKET_CELLS * WEIR_BUCKET_CELLS;
    uint64_t lines = hits / LINE_HITS, stripes = 1;
    lines += lines / 32 + 64;
    /* Keys are spread over stripes randomly, and fit only into cells of their stripe, so each has many cells. */
    while (stripes < WEIR_STRIPES_MAX &&
           stripes * (stripes < STRIPES_FEW ? STRIPE_CELLS_FEW : STRIPE_CELLS) < keys)
        stripes *= 2;
    memcpy(header->magic, WEIR_MAGIC, sizeof header->magic);
    header->version = WEIR_LAYOUT_VERSION;
    header->header_bytes = WEIR_HEADER_BYTES;
    header->signature = signature();
    header->keys = keys;
    header->hits = hits;
    header->stripes = (uint32_t)stripes;
    header->lines = (uint32_t)lines;
    header->rules = rules;
    header->registry_room = registered(keys);
    header->stripes_at = WEIR_HEADER_BYTES;
    header->pool_at = header->stripes_at + stripes * sizeof(struct weir_stripe);
    header->stats_at = line_up(header->pool_at + sizeof(struct weir_pool));
    header->rules_at =
        page_up(header->stats_at + weir_stats_bytes(header->stripes, header->registry_room));
    header->cells_at = page_up(header->rules_at + weir_rules_bytes(rules));
    header->lines_at = header->cells_at + keys * sizeof(struct weir_cell);
    header->bytes = page_up(header->lines_at + lines * sizeof(struct weir_line) + WEIR_END_BYTES);
}

static _Atomic uint64_t *end_of(const struct weir_table *table) {
    return (_Atomic uint64_t *)(void *)((char *)table->header + table->bytes - WEIR_END_BYTES);
}

static void attach(struct weir_table *table, void *base) {
    const struct weir_header *header = base;
    table->header = base;
    table->stripe = (struct weir_stripe *)((char *)base + header->stripes_at);
    table->pool = (struct weir_pool *)((char *)base + header->pool_at);
    table->cell = (struct weir_cell *)((char *)base + header->cells_at);
    table->line = (struct weir_line *)((char *)base + header->lines_at);
    table->stats = (struct weir_stats *)((char *)base + header->stats_at);
    table->rules = (struct weir_rules *)((char *)base + header->rules_at);
    weir_rules_plan(&table->rules_plan, header->rules);
    table->buckets = header->keys / WEIR_BUCKET_CELLS;
    table->stripe_mask = header->stripes - 1;
    table->lines = header->lines;
    table->bytes = header->bytes;
    if (table->backing != WEIR_BACKING_MEMORY && table->backing != WEIR_BACKING_FORKS)
        table->end_mark = end_of(table);
}

/* ----------------------------------------------------------------------------------------- creating */

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
    attach(table, base);
    atomic_store(end_of(table), WEIR_END_MARK);
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

/* Huge pages save a second cache miss per random look-up. If the kernel refuses them, it is not an error. */
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

/* Returns 0; 1 if another process was faster; or an error. On success, the table is locked (shared). */
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

/* The same, one process at a time: there may be space for one table, but not for one of each worker. */
static int make_file(struct weir_table *table, const struct weir_uri *uri,
                     const struct weir_header *plan, gid_t group, int64_t wait_ns,
                     struct weir_error *error) {
    int lock = weir_new_file_begin(uri->path, wait_ns);
    int rc = access(uri->path, F_OK) == 0 ? 1 : reserve_file(table, uri, plan, group, error);
    weir_new_file_end(lock);
    return rc;
}

/* ---------------------------------------------------------------------------------------- opening */

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
    if (header->signature != signature())
        return refuse(table, WEIR_EVERSION, "made by another build or machine; remove it", error);
    if (header->checksum != weir_checksum(header))
        return refuse(table, WEIR_EFORMAT, "its header is damaged; remove it", error);
    memset(&plan, 0, sizeof plan);
    lay_out(&plan, header->keys, header->hits, header->rules);
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
    if (atomic_load(end_of(table)) != WEIR_END_MARK)
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
    attach(table, base);
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
    lay_out(&plan, keys, uri.hits != UINT64_MAX ? uri.hits : hits,
            uri.rules != UINT64_MAX ? (uint32_t)uri.rules : RULES_DEFAULT);
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
