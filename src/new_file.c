/*
 * Files that several processes create at the same time; see new_file.h.
 *
 * The lock is a flock() of the folder. It only saves space: a process that cannot get it, because
 * another user holds it or the folder is not readable, creates its file without it. The first
 * link() to the name succeeds.
 */
#include "new_file.h"

#include "crypto/crypto.h"
#include "platform.h"
#include "uri.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS INT64_C(2000000)

/* Writes the folder of a path to `folder`. */
static void folder_of(const char *path, char folder[WEIR_PATH_MAX]) {
    const char *slash = strrchr(path, '/');
    snprintf(folder, WEIR_PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

int weir_new_file(const char *path, char *temporary, size_t size) {
    char folder[WEIR_PATH_MAX];
    folder_of(path, folder);
    temporary[0] = '\0';
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    uint64_t random = 0;
    weir_random(&random, sizeof random);
    snprintf(temporary, size, "%s.%llx", path, (unsigned long long)random);
    return open(temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
}

int weir_new_file_name(int fd, const char *temporary, const char *path) {
    char self[64];
    if (temporary[0])
        return link(temporary, path);
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

int weir_new_file_begin(const char *path, int64_t wait_ns) {
    const struct timespec slice = {0, SLICE_NS};
    char folder[WEIR_PATH_MAX];
    folder_of(path, folder);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (int64_t waited = 0; waited < wait_ns; waited += SLICE_NS) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        if (errno != EWOULDBLOCK && errno != EINTR)
            break;
        nanosleep(&slice, NULL);
    }
    close(fd);
    return -1;
}

void weir_new_file_end(int lock) {
    if (lock < 0)
        return;
    flock(lock,
          LOCK_UN); /* another thread may have forked a child that holds the descriptor, too */
    close(lock);
}
