/*
 * Striped locks that can be recovered after their owner died.
 *
 * shm:// and file:// use PTHREAD_MUTEX_ROBUST: the kernel reports a dead owner to the next caller
 * (EOWNERDEAD), who undoes the unfinished change (layout.h, struct weir_lock) and continues.
 * memory:// is private to one process, but after fork() the child has locks of threads that do not
 * exist there, so its first call repairs all locks.
 *
 * Cost: one uncontended pthread_mutex_trylock and unlock. Under contention a short spin (a decision
 * holds its locks for some 50 ns), then the futex, for at most one second.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "platform.h"
#include "table/lock.h"
#include "table/undo.h"

#define SPINS 200
#define SLICE_NS 10000000
#define SLICES 100 /* one second in all */

_Atomic uint64_t weir_fork_generation = 1;
bool (*weir_must_not_sleep)(void);

static void count_fork(void) {
    atomic_fetch_add(&weir_fork_generation, 1);
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, count_fork);
}

void weir_fork_watch(struct weir_table *table) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    atomic_store(&table->fork_generation, atomic_load(&weir_fork_generation));
}

int weir_mutex_init(const struct weir_table *table, pthread_mutex_t *mutex) {
    pthread_mutexattr_t attr;
    if (pthread_mutexattr_init(&attr) != 0)
        return WEIR_ENOMEM;
    if (table->backing != WEIR_BACKING_MEMORY) {
        pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    }
    int rc = pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return rc == 0 ? 0 : WEIR_ESYSTEM;
}

int weir_lock_init(struct weir_table *table, uint32_t index) {
    if (weir_has_words(table)) {
        atomic_store(weir_lock_word(weir_lock_at(table, index)), 0);
        return 0;
    }
    return weir_mutex_init(table, &weir_lock_at(table, index)->mutex);
}

/*
 * The caller holds lock `index`, whose owner died. The owner of its coordinator may be dead, too.
 */
static int recover(struct weir_table *table, uint32_t index) {
    struct weir_lock *lock = weir_lock_at(table, index);
    uint64_t txn = atomic_load(&lock->txn);
    if (txn != 0) {
        uint32_t participants = lock->participants <= WEIR_CHECKS_MAX + 1 ? lock->participants : 0;
        for (uint32_t i = 0; i < participants; i++) {
            uint32_t participant = lock->participant[i];
            if (participant <= index || participant >= weir_locks(table))
                continue;
            int rc = weir_lock_take(table, participant); /* recovers the stripe if its owner died */
            if (rc < 0)
                return rc;
            weir_lock_release(table, participant);
        }
        weir_undo_apply(table, index);
        atomic_store(&lock->txn, 0);
    } else if (lock->undo_ready != 0 && lock->coordinator < index &&
               atomic_load(&weir_lock_at(table, lock->coordinator)->txn) == lock->seq) {
        weir_undo_apply(table, index);
    }
    lock->undo_ready = 0;
    return 0;
}

static int acquired(struct weir_table *table, uint32_t index, int rc) {
    if (rc == 0)
        return 0;
    if (rc == EOWNERDEAD) {
        pthread_mutex_t *mutex = &weir_lock_at(table, index)->mutex;
        rc = recover(table, index);
        atomic_fetch_add(&table->header->recoveries, 1);
        if (rc < 0) {
            /*
             * It cannot be repaired now: a stopped process holds the lock of a participant.
             * Unlocking an inconsistent mutex would disable it forever, so mark it consistent and
             * leave txn and undo_ready for a later recoverer: weir_lock_take() checks them again.
             */
            pthread_mutex_consistent(mutex);
            pthread_mutex_unlock(mutex);
            return rc;
        }
        pthread_mutex_consistent(mutex);
        return 0;
    }
    if (rc == EBUSY || rc == ETIMEDOUT)
        return WEIR_EBUSY;
    return WEIR_ECORRUPT;
}

/* A lock that was released unrepaired (see acquired()) is still undo-ready. */
static int finish_repair(struct weir_table *table, uint32_t index) {
    struct weir_lock *lock = weir_lock_at(table, index);
    if (lock->undo_ready == 0)
        return 0;
    int rc = recover(table, index);
    if (rc < 0)
        weir_lock_release(table, index);
    return rc;
}

int weir_lock_try(struct weir_table *table, uint32_t index) {
    struct weir_lock *lock = weir_lock_at(table, index);
    int rc = weir_has_words(table) ? (weir_word_try(weir_lock_word(lock)) ? 0 : EBUSY)
                                   : pthread_mutex_trylock(&lock->mutex);
    rc = acquired(table, index, rc);
    return rc == 0 ? finish_repair(table, index) : rc;
}

/*
 * pthread_mutex_clocklock() exists since glibc 2.30. A build against an older glibc (the wheels)
 * uses it if the glibc at run time has it; musl and macOS have none. pthread_mutex_timedlock() is
 * no alternative: it waits by the wall clock, which can step.
 */
#if defined(WEIR_HAVE_CLOCKLOCK)
static int (*const clocklock)(pthread_mutex_t *, clockid_t,
                              const struct timespec *) = pthread_mutex_clocklock;
#elif defined(__GLIBC__)
extern int found_clocklock(pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) __asm__("pthread_mutex_clocklock")
    __attribute__((weak));
#define clocklock found_clocklock
#else
static int (*const clocklock)(pthread_mutex_t *, clockid_t, const struct timespec *) = NULL;
#endif

/* Tries until SLICES * SLICE_NS have passed, with growing pauses. */
static int poll_for(pthread_mutex_t *mutex) {
    struct timespec now, pause = {0, 20000};
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t end_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec + (int64_t)SLICES * SLICE_NS;
    do {
        int rc = pthread_mutex_trylock(mutex);
        if (rc != EBUSY)
            return rc;
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < 500000)
            pause.tv_nsec *= 2;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec < end_ns);
    return pthread_mutex_trylock(mutex);
}

static bool must_not_sleep(void) {
    return weir_must_not_sleep && weir_must_not_sleep();
}

static int wait_for(pthread_mutex_t *mutex) {
    for (int i = 0; i < SPINS; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
        int rc = pthread_mutex_trylock(mutex);
        if (rc != EBUSY)
            return rc;
    }
    if (must_not_sleep())
        return EBUSY;
    if (!clocklock)
        return poll_for(mutex);
    /*
     * It waits in slices, because a wake-up can be lost: if a waiter is killed after it was woken
     * and before it takes the lock, the other waiters sleep although the lock is free. Each slice
     * begins with a try.
     */
    for (int slice = 0; slice < SLICES; slice++) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += SLICE_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        int rc = clocklock(mutex, CLOCK_MONOTONIC, &until);
        if (rc != ETIMEDOUT)
            return rc;
    }
    return pthread_mutex_trylock(mutex);
}

int weir_mutex_take(pthread_mutex_t *mutex) {
    int rc = pthread_mutex_trylock(mutex);
    return rc == EBUSY ? wait_for(mutex) : rc;
}

int weir_lock_take_slow(struct weir_table *table, uint32_t index, int rc) {
    struct weir_lock *lock = weir_lock_at(table, index);
    if (rc == EBUSY)
        rc = weir_has_words(table) ? weir_word_wait(weir_lock_word(lock), must_not_sleep())
                                   : wait_for(&lock->mutex);
    rc = acquired(table, index, rc);
    return rc == 0 ? finish_repair(table, index) : rc;
}

int weir_lock_all(struct weir_table *table) {
    for (uint32_t i = 0; i < weir_locks(table); i++) {
        int rc = weir_lock_take(table, i);
        if (rc < 0) {
            while (i-- > 0)
                weir_lock_release(table, i);
            return rc;
        }
    }
    return 0;
}

void weir_release_all(struct weir_table *table) {
    for (uint32_t i = weir_locks(table); i-- > 0;)
        weir_lock_release(table, i);
}

int weir_locks_repair(struct weir_table *table) {
    /* Participants before their coordinator: its txn determines whether they are undone. */
    for (uint32_t i = weir_locks(table); i-- > 0;) {
        struct weir_lock *lock = weir_lock_at(table, i);
        if (lock->undo_ready != 0 && lock->coordinator <= i &&
            atomic_load(&weir_lock_at(table, lock->coordinator)->txn) == lock->seq)
            weir_undo_apply(table, i);
    }
    for (uint32_t i = 0; i < weir_locks(table); i++) {
        struct weir_lock *lock = weir_lock_at(table, i);
        atomic_store(&lock->txn, 0);
        lock->undo_ready = 0;
        int rc = weir_lock_init(table, i);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/*
 * In a forked child, the generation differs from the handle's. One thread repairs the locks; the
 * others wait. In the meantime the handle's generation has its highest bit set, which a further
 * fork finds to differ again.
 */
int weir_after_fork_slow(struct weir_table *table) {
    uint64_t now = atomic_load(&weir_fork_generation);
    uint64_t seen = atomic_load(&table->fork_generation);
    if (seen == now)
        return 0;
    /* The highest bit means "being repaired"; the others are the generation. */
    uint64_t repairing = now | UINT64_C(1) << 63;
    while (seen != now) {
        if (seen != repairing &&
            atomic_compare_exchange_strong(&table->fork_generation, &seen, repairing)) {
            int rc = table->repair(table);
            atomic_store(&table->fork_generation, now);
            return rc;
        }
        seen = atomic_load(&table->fork_generation);
    }
    return 0;
}
