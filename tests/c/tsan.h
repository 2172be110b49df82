/*
 * Included before everything else in the ThreadSanitizer build. The ThreadSanitizer of gcc 12 and
 * clang 14 does not support pthread_mutex_clocklock(): its locks would look unlocked. In this build
 * only, such waits use pthread_mutex_timedlock(), which it supports.
 */
#ifndef WEIR_TSAN_H
#define WEIR_TSAN_H

#include <pthread.h>
#include <time.h>

static inline int weir_tsan_clocklock(pthread_mutex_t *mutex, clockid_t clock,
                                      const struct timespec *until) {
    struct timespec now, real;
    clock_gettime(clock, &now);
    clock_gettime(CLOCK_REALTIME, &real);
    real.tv_sec += until->tv_sec - now.tv_sec;
    real.tv_nsec += until->tv_nsec - now.tv_nsec;
    if (real.tv_nsec < 0) {
        real.tv_sec--;
        real.tv_nsec += 1000000000;
    } else if (real.tv_nsec >= 1000000000) {
        real.tv_sec++;
        real.tv_nsec -= 1000000000;
    }
    return pthread_mutex_timedlock(mutex, &real);
}

#define pthread_mutex_clocklock weir_tsan_clocklock

#endif
