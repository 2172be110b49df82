/*
 * The locks of private tables, whose owners cannot die separately: a word and a futex (Drepper,
 * "Futexes are tricky", 2005), in the place of the robust mutex of shared tables. A process with
 * one thread takes them without atomic read-modify-write instructions.
 *
 *     0  free      1  held      2  held, and another thread may wait
 */
#ifndef WEIR_WORD_LOCK_H
#define WEIR_WORD_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__linux__)
#define WEIR_WORD_LOCKS 1
#else
#define WEIR_WORD_LOCKS 0
#endif

/*
 * Exists since glibc 2.32. A build against an older glibc (the wheels) uses that of the run time,
 * if any.
 */
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#define weir_one_thread() (__libc_single_threaded != 0)
#else
extern char __libc_single_threaded __attribute__((weak));
#define weir_one_thread() (&__libc_single_threaded != (char *)0 && __libc_single_threaded != 0)
#endif
#endif
#ifndef weir_one_thread
#define weir_one_thread() false
#endif

/* 0, or EBUSY after one second, or with `spin_only` after some spinning. */
int weir_word_wait(_Atomic uint32_t *word, bool spin_only);
void weir_word_wake(_Atomic uint32_t *word);

static inline bool weir_word_try(_Atomic uint32_t *word) {
    uint32_t is_free = 0;
    if (weir_one_thread()) {
        if (atomic_load_explicit(word, memory_order_relaxed) != 0)
            return false;
        atomic_store_explicit(word, 1, memory_order_relaxed);
        return true;
    }
    return atomic_compare_exchange_strong_explicit(word, &is_free, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

static inline void weir_word_release(_Atomic uint32_t *word) {
    if (weir_one_thread())
        atomic_store_explicit(word, 0, memory_order_relaxed);
    else if (atomic_exchange_explicit(word, 0, memory_order_release) == 2)
        weir_word_wake(word);
}

#endif
