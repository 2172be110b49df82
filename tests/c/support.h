/*
 * Common parts of the tests of tables: limits in one call, one-check decisions, names that no other
 * run uses, children that report by exit status, random numbers from a printed seed.
 */
#ifndef WEIR_TESTS_SUPPORT_H
#define WEIR_TESTS_SUPPORT_H

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "weir/weir.h"

#define SECOND INT64_C(1000000000)
#define MINUTE (60 * SECOND)
#define DAY (86400 * SECOND)
#define NOW (INT64_C(1700000000) * SECOND) /* the moment at which most tests begin */

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifndef UNDER_ASAN
#define UNDER_ASAN 0
#endif

#if UNDER_TSAN
/* TSan's deadlock detector supports 64 locks at a time; weir_table_check() takes all locks. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "detect_deadlocks=0";
}
#endif

/* For children, in which cmocka's asserts would jump into the copy of the parent's test. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* Prints the reason and skips the test. */
#define SKIP(...)                                                                                  \
    do {                                                                                           \
        print_message("# skipped: " __VA_ARGS__);                                                  \
        print_message("\n");                                                                       \
        skip();                                                                                    \
    } while (0)

/* --------------------------------------------------------------------------------------- random */

static uint64_t seed, random_state;

static inline void seed_random(void) {
    const char *given = getenv("WEIR_SEED");
    seed =
        given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u + (uint64_t)getpid();
    random_state = seed | 1;
    print_message("# WEIR_SEED=%" PRIu64 "\n", seed);
}

/* xorshift64*; one stream per process. */
static inline uint64_t next_random(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

static inline uint64_t random_below(uint64_t bound) {
    return (uint64_t)((unsigned __int128)next_random() * bound >> 64);
}

/* ----------------------------------------------------------------------------------- busy calls */

/*
 * PATIENTLY(call) makes a call of libweir again while it returns WEIR_EBUSY; its value is the last
 * result. It is for calls that compete with other processes or threads for a lock. If the owner of
 * the lock gets no processor for a second, the call returns WEIR_EBUSY, by design, and has changed
 * nothing, so the sums that a test compares do not depend on how often it was made.
 *
 * After BUSY_MAX times, which are two minutes, the lock is taken as never released: the value is
 * WEIR_EBUSY, which the test must not accept.
 */
#define PATIENTLY(...)                                                                             \
    (__extension__({                                                                               \
        int rc_, busy_ = 0;                                                                        \
        do                                                                                         \
            rc_ = (__VA_ARGS__);                                                                   \
        while (is_to_be_repeated(rc_, &busy_, #__VA_ARGS__, __FILE__, __LINE__));                  \
        rc_;                                                                                       \
    }))

#define BUSY_MAX 120

/* Counts WEIR_EBUSY in `*busy`. After the last call, prints how often it was busy, if ever. */
static inline bool is_to_be_repeated(int rc, int *busy, const char *call, const char *file,
                                     int line) {
    if (rc == WEIR_EBUSY && ++*busy < BUSY_MAX)
        return true;
    if (*busy > 0)
        fprintf(stderr, "# %s:%d: %.*s() was busy %d times%s\n", file, line,
                (int)strcspn(call, "("), call, *busy,
                rc == WEIR_EBUSY ? ", so it is not made again" : "");
    return false;
}

/* --------------------------------------------------------------------------------------- tables */

static pid_t tidy_pid;

/* Removes what a failed test left behind: all names that fresh_shm() made in this process. */
static inline void tidy_up(void) {
    char ours[32], path[300];
    struct dirent *entry;
    DIR *directory = getpid() == tidy_pid ? opendir("/dev/shm") : NULL;
    snprintf(ours, sizeof ours, "weir.test-%d-", (int)tidy_pid);
    while (directory && (entry = readdir(directory)))
        if (!strncmp(entry->d_name, ours, strlen(ours))) {
            snprintf(path, sizeof path, "/dev/shm/%s", entry->d_name);
            unlink(path);
        }
    if (directory)
        closedir(directory);
}

/*
 * A shm:// URI that no other process uses, with `options` ("?keys=64", or ""). The buffer is
 * static.
 */
static inline const char *fresh_shm(const char *options) {
    static char uri[300];
    static int count;
    if (tidy_pid != getpid()) {
        tidy_pid = getpid();
        atexit(tidy_up);
    }
    snprintf(uri, sizeof uri, "shm://test-%d-%d%s", (int)getpid(), ++count, options);
    return uri;
}

static inline struct weir_table *open_table(const char *uri) {
    struct weir_table *table;
    struct weir_error error = {.message = "?"};
    if (weir_table_open(uri, &table, &error) < 0)
        fail_msg("%s", error.message);
    return table;
}

static inline void check_sound(struct weir_table *table) {
    struct weir_error error = {.message = "?"};
    int rc = PATIENTLY(weir_table_check(table, &error));
    if (rc < 0)
        fail_msg("WEIR_SEED=%" PRIu64 ": %s: %s", seed, weir_strerror(rc), error.message);
}

static inline struct weir_table_info info_of(struct weir_table *table, int64_t now_ns) {
    struct weir_table_info info;
    assert_int_equal(PATIENTLY(weir_table_info(table, now_ns, &info)), 0);
    return info;
}

/* --------------------------------------------------------------------------------------- checks */

static inline struct weir_limit limit_of(int strategy, int64_t amount, int64_t period_ns) {
    return (struct weir_limit){.amount = amount,
                               .period_ns = period_ns,
                               .multiples = period_ns / SECOND,
                               .unit = WEIR_SECOND,
                               .strategy = strategy};
}

static inline struct weir_check check_of(const struct weir_limit *limit, const char *key,
                                         int64_t cost) {
    return (struct weir_check){.limit = limit, .key = key, .key_len = strlen(key), .cost = cost};
}

/* One check with a cost of 1, or of `cost`. Returns the verdict. */
static inline struct weir_verdict decide_cost(struct weir_table *table,
                                              const struct weir_limit *limit, const char *key,
                                              int64_t cost, int64_t now_ns, enum weir_mode mode) {
    struct weir_check check = check_of(limit, key, cost);
    struct weir_verdict verdict;
    int rc = weir_decide(table, &check, 1, now_ns, mode, &verdict, NULL);
    if (rc < 0)
        fail_msg("WEIR_SEED=%" PRIu64 ": \"%s\": %s", seed, key, weir_strerror(rc));
    return verdict;
}

static inline bool hit(struct weir_table *table, const struct weir_limit *limit, const char *key,
                       int64_t now_ns) {
    return decide_cost(table, limit, key, 1, now_ns, WEIR_HIT).allowed;
}

static inline int64_t remaining(struct weir_table *table, const struct weir_limit *limit,
                                const char *key, int64_t now_ns) {
    return decide_cost(table, limit, key, 1, now_ns, WEIR_TEST).remaining;
}

/* ------------------------------------------------------------------------------------ processes */

/* Runs `body` in a child, which is killed after 1000 s; returns its pid. */
static inline pid_t spawn(int (*body)(void *), void *argument) {
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(1000);
        _exit(body(argument));
    }
    return pid;
}

/* Waits for a child; fails unless it returned 0. */
static inline void expect_success(pid_t pid) {
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        fail_msg("WEIR_SEED=%" PRIu64 ": child ended by signal %d", seed, WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        fail_msg("WEIR_SEED=%" PRIu64 ": child failed (%d)", seed, WEXITSTATUS(status));
}

/* Memory that children share with the test; zeroed. */
static inline void *shared_memory(size_t bytes) {
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);
    return base;
}

static inline int64_t clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

#endif
