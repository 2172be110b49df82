/*
 * The locks of a table: one for each stripe, and one for the pool, which is the last.
 */
#ifndef WEIR_LOCK_H
#define WEIR_LOCK_H

#include <errno.h>

#include "table/table.h"
#include "table/word_lock.h"

/* Number of locks: the stripes and the pool, which is the last. */
static inline uint32_t weir_locks(const struct weir_table *table) {
    return table->stripe_mask + 2;
}

static inline struct weir_lock *weir_lock_at(struct weir_table *table, uint32_t index) {
    return index <= table->stripe_mask ? &table->stripe[index].lock : &table->pool->lock;
}

/* Initializes a mutex for the backing of the table. 0, WEIR_ENOMEM, WEIR_ESYSTEM. */
int weir_mutex_init(const struct weir_table *table, pthread_mutex_t *mutex);
int weir_mutex_take(pthread_mutex_t *mutex); /* 0, EOWNERDEAD, or another errno after one second */
/*
 * NULL, or whether this thread must not sleep, because it holds a lock that others need (Python's
 * GIL): a lock that is not free after some spinning is WEIR_EBUSY then. The caller releases its
 * locks and tries again.
 */
extern bool (*weir_must_not_sleep)(void);
int weir_lock_init(struct weir_table *table, uint32_t index);
int weir_lock_take_slow(struct weir_table *table, uint32_t index, int rc);
int weir_lock_try(struct weir_table *table,
                  uint32_t index); /* 0, WEIR_EBUSY at once, WEIR_ECORRUPT */
int weir_lock_all(struct weir_table *table);
void weir_release_all(struct weir_table *table);
/* Repairs all locks after all openers crashed, or in a forked child. No other user may exist. */
int weir_locks_repair(struct weir_table *table);
int weir_after_fork_slow(struct weir_table *table);
void weir_fork_watch(struct weir_table *table);

extern _Atomic uint64_t weir_fork_generation;

/*
 * Must precede the first lock of each call: in a forked child, repairs the locks of a private
 * table.
 */
static inline int weir_after_fork(struct weir_table *table) {
    return atomic_load_explicit(&table->fork_generation, memory_order_acquire) ==
                   atomic_load_explicit(&weir_fork_generation, memory_order_relaxed)
               ? 0
               : weir_after_fork_slow(table);
}

/* Whether the locks are words instead of mutexes, as in private tables. */
static inline bool weir_has_words(const struct weir_table *table) {
    return WEIR_WORD_LOCKS && table->backing == WEIR_BACKING_MEMORY;
}

static inline _Atomic uint32_t *weir_lock_word(struct weir_lock *lock) {
    return (_Atomic uint32_t *)(void *)&lock->mutex;
}

static inline int weir_lock_take_at(struct weir_table *table, struct weir_lock *lock,
                                    uint32_t index) {
    int rc = weir_has_words(table) ? (weir_word_try(weir_lock_word(lock)) ? 0 : EBUSY)
                                   : pthread_mutex_trylock(&lock->mutex);
    return __builtin_expect(rc == 0 && lock->undo_ready == 0, 1)
               ? 0
               : weir_lock_take_slow(table, index, rc);
}

/* Takes a lock, and recovers it if its owner died. 0, WEIR_EBUSY, WEIR_ECORRUPT. */
static inline int weir_lock_take(struct weir_table *table, uint32_t index) {
    return weir_lock_take_at(table, weir_lock_at(table, index), index);
}

/* The same for the lock of a stripe. */
static inline int weir_stripe_take(struct weir_table *table, uint32_t stripe) {
    return weir_lock_take_at(table, &table->stripe[stripe].lock, stripe);
}

static inline void weir_lock_release_at(const struct weir_table *table, struct weir_lock *lock) {
    if (weir_has_words(table))
        weir_word_release(weir_lock_word(lock));
    else
        pthread_mutex_unlock(&lock->mutex);
}

static inline void weir_lock_release(struct weir_table *table, uint32_t index) {
    weir_lock_release_at(table, weir_lock_at(table, index));
}

#endif
