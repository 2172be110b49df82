/*
 * What Linux has and macOS lacks. Tables of several processes need robust mutexes, so only Linux
 * has them: weir_table_open() refuses shm:// and file:// elsewhere, and the replacements below are
 * never called there.
 */
#ifndef WEIR_PLATFORM_H
#define WEIR_PLATFORM_H

#if defined(__linux__)
#define WEIR_SHARED_TABLES 1
#else
#define WEIR_SHARED_TABLES 0

#include <errno.h>
#include <pthread.h>
#include <sys/types.h>

#define PTHREAD_MUTEX_ROBUST 1
#define O_TMPFILE 0
#define MADV_HUGEPAGE (-1) /* refused by madvise(), as kernels without huge pages do */

static inline int pthread_mutexattr_setrobust(pthread_mutexattr_t *attr, int robust) {
    (void)attr, (void)robust;
    return ENOTSUP;
}

static inline int pthread_mutex_consistent(pthread_mutex_t *mutex) {
    (void)mutex;
    return ENOTSUP;
}

static inline int posix_fallocate(int fd, off_t from, off_t size) {
    (void)fd, (void)from, (void)size;
    return ENOTSUP;
}
#endif

#endif
