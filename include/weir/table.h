/*
 * Tables: where counters, statistics and rules are stored. weir/weir.h includes this header.
 */
#ifndef WEIR_TABLE_H
#define WEIR_TABLE_H

#include "weir/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Opens the table at `uri`, and creates it if it does not exist:
 *
 *     memory://              private to this process
 *     memory://?forks=share  the same, but processes forked from this one share it
 *     shm://name             shared by this host's processes of one user (/dev/shm/weir.name)
 *     file:///path           a file mapped by every process that opens it
 *
 * and after a "?", joined by "&":
 *
 *     keys=N   cells, default 262144 (16 MiB of a table of 23), at least 8; rounded up to a
 *              multiple of 8
 *     hits=N   room for about N moving-window hits over all keys, default 3 x keys
 *     rules=N  rules about clients (weir/rules.h), default 1024, at most 1000000
 *     group=G  shm:// and file:// only: shared with one group of users, by name or number: mode
 *              0660 instead of 0600. Refused if this process is not a member of the group, or if
 *              the table exists with another group. Every member can read, change and delete
 *              counters, and can disturb the others' decisions (by holding a lock, by truncating
 *              the file). Share a group only among programs that trust each other.
 *
 * All space is reserved now, so that a full file system is an error here and not a SIGBUS later. An
 * existing table keeps its size; another requested size is an error. The caller owns `*table` and
 * frees it by weir_table_close(). The counters of shm:// and file:// tables stay.
 * Errors: WEIR_ESYNTAX, WEIR_EINVAL, WEIR_ENOMEM, WEIR_ENOSPC, WEIR_EACCES, WEIR_EFORMAT,
 * WEIR_EVERSION, WEIR_EMISMATCH, WEIR_EBUSY (another process holds an flock() on it for seconds),
 * WEIR_ESYSTEM. The message names the table.
 */
WEIR_API int weir_table_open(const char *uri, struct weir_table **table, struct weir_error *error);

/* Unmaps the table and frees the handle. NULL is ignored. */
WEIR_API void weir_table_close(struct weir_table *table);

/*
 * Removes the name of a shm:// or file:// table. Processes that have it open keep it until they
 * close it; the next weir_table_open() creates a new one. A file that is not a table is not
 * removed: WEIR_EFORMAT.
 * Errors: also WEIR_ENOENT, WEIR_ESYNTAX, WEIR_EACCES, WEIR_ESYSTEM.
 */
WEIR_API int weir_table_unlink(const char *uri, struct weir_error *error);

/*
 * Deletes every counter, one stripe after another, so not at one moment. Rules and statistics stay.
 * Errors: WEIR_EINVAL, WEIR_EBUSY, WEIR_ECORRUPT.
 */
WEIR_API int weir_table_reset(struct weir_table *table);

struct weir_table_info {
    uint64_t keys_max;   /* cells */
    uint64_t keys;       /* cells in use whose counter has not expired at `now_ns` */
    uint64_t evictions;  /* live counters evicted since creation */
    uint64_t lines_max;  /* 64-byte lines of the pool of moving-window hits */
    uint64_t lines_used; /* of them, in use */
    uint64_t recoveries; /* locks recovered from dead processes since creation */
    uint64_t bytes;      /* size of the mapping */
    uint32_t stripes;    /* locks */
    uint32_t huge_pages; /* 1 if the kernel granted huge pages */
};

/*
 * Counts the keys and lines in use at `now_ns`. Reads every cell: a few ms per million.
 * Errors: WEIR_EBUSY.
 */
WEIR_API int weir_table_info(struct weir_table *table, int64_t now_ns,
                             struct weir_table_info *info);

/*
 * Verifies every invariant of the table: each line of the pool is in exactly one log or on the free
 * list, there is no cycle, every count equals the number of hits in its log, no key occurs twice,
 * and every cell is in a bucket of its fingerprint. Locks the whole table.
 * Errors: WEIR_ECORRUPT (the message describes the first violation), WEIR_EBUSY, WEIR_ENOMEM.
 */
WEIR_API int weir_table_check(struct weir_table *table, struct weir_error *error);

#ifdef __cplusplus
}
#endif
#endif
