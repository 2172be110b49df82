/*
 * Files that several processes want to make at once: made without a name, filled in, and only then linked.
 */
#ifndef WEIR_SRC_NEW_FILE_H
#define WEIR_SRC_NEW_FILE_H

#include <stddef.h>
#include <stdint.h>

/*
 * A file without a name where O_TMPFILE works, else one with a name that only this process would take, which
 * is put into `temporary`; "" otherwise. The descriptor, or -1 with errno.
 */
int weir_new_file(const char *path, char *temporary, size_t size);

/* Gives it its name. 0, or -1 with errno: EEXIST if another process was faster. */
int weir_new_file_name(int fd, const char *temporary, const char *path);

/*
 * Waits until no other process makes a file in the folder of `path`, at most wait_ns; then this one may. Else
 * each of several would reserve room for a file of its own, and there may be room for one only.
 * For weir_new_file_end(); -1: not locked, go on without.
 */
int weir_new_file_begin(const char *path, int64_t wait_ns);
void weir_new_file_end(int lock);

#endif
