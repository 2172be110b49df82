/* Who may open a table's file: its owner alone, or, with ?group=, the members of one group. */
#ifndef WEIR_ACCESS_H
#define WEIR_ACCESS_H

#include <sys/stat.h>

#include "uri.h"

/*
 * The group that ?group= names, into *gid, if this process belongs to it; leaves *gid as it is if
 * none is named.
 * name: the table's, for messages.
 * Errors: WEIR_EINVAL (no such group), WEIR_EACCES (no member), WEIR_ENOMEM, WEIR_ESYSTEM.
 */
int weir_access_group(const char *name, const struct weir_uri *uri, gid_t *gid,
                      struct weir_error *error);

/*
 * Whether a file with this owner, group and mode is what the URI requires: 0600 and this user's, or
 * 0660 and of `group`.
 * Errors: WEIR_EACCES.
 */
int weir_access_check(const char *name, const struct stat *st, const struct weir_uri *uri,
                      gid_t group, struct weir_error *error);

/*
 * Locks by flock() a table's file: an exclusive one if no other process has the table (1), else a
 * shared one (0). Other processes of this user may hold theirs for any time: WEIR_EBUSY after
 * `wait_ns`.
 * Errors: also WEIR_ESYSTEM.
 */
int weir_access_lock(const char *name, int fd, int64_t wait_ns, struct weir_error *error);

/* Stores the identity of the table's file, which weir_table_lost() compares. */
void weir_access_watch(struct weir_table *table);

#endif
