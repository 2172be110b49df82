/*
 * Waiting for a word lock: spins for the time of some decisions, then sleeps, for at most one
 * second.
 */
#include "table/word_lock.h"

#include <errno.h>
#include <stddef.h>

#if WEIR_WORD_LOCKS

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPINS 200
#define SLICE_NS 10000000
#define LONGEST_NS 1000000000

static int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int weir_word_wait(_Atomic uint32_t *word, bool spin_only) {
    for (int i = 0; i < SPINS; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
        if (atomic_load_explicit(word, memory_order_relaxed) == 0 && weir_word_try(word))
            return 0;
    }
    if (spin_only)
        return EBUSY;
    int64_t end_ns = clock_ns() + LONGEST_NS;
    do {
        static const struct timespec slice = {0, SLICE_NS};
        if (atomic_exchange_explicit(word, 2, memory_order_acquire) == 0)
            return 0; /* with 2 instead of 1: at worst, one unnecessary wake-up */
        (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, &slice, NULL, 0);
    } while (clock_ns() < end_ns);
    return atomic_exchange_explicit(word, 2, memory_order_acquire) == 0 ? 0 : EBUSY;
}

void weir_word_wake(_Atomic uint32_t *word) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#endif
