/*
 * Files that several processes create at the same time: created without a name, filled in, then
 * linked to the name.
 */
#ifndef WEIR_SRC_NEW_FILE_H
#define WEIR_SRC_NEW_FILE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Creates a file without a name if O_TMPFILE works; `temporary` is "" then. Otherwise creates a
 * file with a random name, which is written to `temporary`. Returns the descriptor, or -1 with
 * errno.
 */
int weir_new_file(const char *path, char *temporary, size_t size);

/* Links the file to its name. 0, or -1 with errno: EEXIST if another process was faster. */
int weir_new_file_name(int fd, const char *temporary, const char *path);

/*
 * Locks the folder of `path`, after at most wait_ns, so that only one process at a time reserves
 * space for a file: there may be space for only one. Returns the lock for weir_new_file_end(); -1:
 * not locked, continue without it.
 */
int weir_new_file_begin(const char *path, int64_t wait_ns);
void weir_new_file_end(int lock);

#endif
