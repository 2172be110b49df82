/*
 * A copy of the input that ends directly before a PROT_NONE page, so reading one byte too far
 * crashes, even without a sanitizer.
 */
#ifndef WEIR_GUARDED_H
#define WEIR_GUARDED_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guarded {
    char *bytes;
    size_t len;
    void *mapping;
    size_t mapped;
};

static inline struct guarded guarded_copy(const void *bytes, size_t len) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (len + page - 1) / page * page;
    struct guarded copy = {.len = len, .mapped = body + page};
    copy.mapping =
        mmap(NULL, copy.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy.mapping == MAP_FAILED || mprotect((char *)copy.mapping + body, page, PROT_NONE) != 0)
        abort();
    copy.bytes = (char *)copy.mapping + body - len;
    if (len > 0)
        memcpy(copy.bytes, bytes, len);
    return copy;
}

static inline void guarded_free(struct guarded *copy) {
    munmap(copy->mapping, copy->mapped);
}

#endif
