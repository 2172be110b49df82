/* Random bytes from the kernel. Its generator is initialized before user processes start. */
#include "crypto/crypto.h"

#include <sys/types.h>

#if defined(__APPLE__)
#include <sys/random.h>
int weir_random(void *to, size_t len) {
    return getentropy(to, len);
}
#elif defined(__linux__)
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(WEIR_HAVE_GETRANDOM)
#include <sys/random.h>
#else
/* glibc before 2.25 has no wrapper; the call itself is as old as Linux 3.17. */
static ssize_t getrandom(void *to, size_t len, unsigned flags) {
    return (ssize_t)syscall(SYS_getrandom, to, len, flags);
}
#endif

int weir_random(void *to, size_t len) {
    ssize_t got;
    do /* up to 256 bytes are returned completely or not at all */
        got = getrandom(to, len, 0);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)len ? 0 : -1;
}
#else
#error "Weir needs Linux or macOS"
#endif
