/*
 * Failing system calls: each call that opening a table makes (memory, descriptors, space, locks,
 * randomness) fails in turn, and then at random. The result is a clear error or a table that works.
 * Nothing leaks: no descriptor, no mapping, no block, no name.
 *
 * The linker redirects these calls to this file (-Wl,--wrap in meson.build).
 */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

/* ------------------------------------------------------------------------------ calls that fail */

static bool counting;       /* calls are counted, and fail */
static unsigned calls;      /* since `counting` was set */
static unsigned failing;    /* the number of the call that fails; 0: none */
static unsigned chance;     /* one call in so many fails; 0: none */
static unsigned failed;     /* the number of failed calls */
static bool no_nameless;    /* O_TMPFILE is not supported, as on some file systems */
static const char *culprit; /* the call that failed last */
static int64_t mapped;      /* bytes */
static int blocks;

static bool refuse(const char *name) {
    if (!counting || !(++calls == failing || (chance && random_below(chance) == 0)))
        return false;
    culprit = name;
    failed++;
    return true;
}

/* The names that the linker uses. */
void *__real_calloc(size_t count, size_t size);
void __real_free(void *block);
void *__real_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
int __real_open64(const char *path, int flags, ...);
int __real_fstat64(int fd, struct stat *st);
int __real_flock(int fd, int operation);
int __real_posix_fallocate64(int fd, off_t from, off_t size);
int __real_link(const char *from, const char *to);
int __real_linkat(int from_folder, const char *from, int to_folder, const char *to, int flags);
ssize_t __real_getrandom(void *buffer, size_t size, unsigned flags);
int __real_pthread_mutexattr_init(pthread_mutexattr_t *attr);
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __real_madvise(void *at, size_t size, int advice);

void *__wrap_calloc(size_t count, size_t size);
void __wrap_free(void *block);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t size);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_fstat64(int fd, struct stat *st);
int __wrap_flock(int fd, int operation);
int __wrap_posix_fallocate64(int fd, off_t from, off_t size);
int __wrap_link(const char *from, const char *to);
int __wrap_linkat(int from_folder, const char *from, int to_folder, const char *to, int flags);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags);
int __wrap_pthread_mutexattr_init(pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __wrap_madvise(void *at, size_t size, int advice);

#define REFUSE(name, error, result)                                                                \
    do {                                                                                           \
        if (refuse(name)) {                                                                        \
            errno = (error);                                                                       \
            return (result);                                                                       \
        }                                                                                          \
    } while (0)

void *__wrap_calloc(size_t count, size_t size) {
    REFUSE("calloc", ENOMEM, NULL);
    blocks += counting;
    return __real_calloc(count, size);
}

void __wrap_free(void *block) {
    blocks -= counting && block;
    __real_free(block);
}

void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    REFUSE("mmap", ENOMEM, MAP_FAILED);
    mapped += counting ? (int64_t)size : 0;
    return __real_mmap64(at, size, protection, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t size) {
    mapped -= counting ? (int64_t)size : 0;
    return __real_munmap(at, size);
}

int __wrap_open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    REFUSE("open", EMFILE, -1);
    if (no_nameless && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return __real_open64(path, flags, mode);
}

int __wrap_fstat64(int fd, struct stat *st) {
    REFUSE("fstat", EIO, -1);
    return __real_fstat64(fd, st);
}

int __wrap_flock(int fd, int operation) {
    REFUSE("flock", ENOLCK, -1);
    return __real_flock(fd, operation);
}

int __wrap_posix_fallocate64(int fd, off_t from, off_t size) {
    REFUSE("posix_fallocate", 0, ENOSPC);
    return __real_posix_fallocate64(fd, from, size);
}

int __wrap_link(const char *from, const char *to) {
    REFUSE("link", EACCES, -1);
    return __real_link(from, to);
}

int __wrap_linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REFUSE("linkat", EACCES, -1);
    return __real_linkat(from_folder, from, to_folder, to, flags);
}

ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags) {
    REFUSE("getrandom", ENOSYS, -1);
    return __real_getrandom(buffer, size, flags);
}

int __wrap_pthread_mutexattr_init(pthread_mutexattr_t *attr) {
    REFUSE("pthread_mutexattr_init", 0, ENOMEM);
    return __real_pthread_mutexattr_init(attr);
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr) {
    REFUSE("pthread_mutex_init", 0, EAGAIN);
    return __real_pthread_mutex_init(mutex, attr);
}

int __wrap_madvise(void *at, size_t size, int advice) {
    REFUSE("madvise", EINVAL, -1);
    return __real_madvise(at, size, advice);
}

/* ------------------------------------------------------------------------------------ leftovers */

static char folder[32];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/weir-alloc-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder);
}

static int entries(const char *path) {
    DIR *directory = opendir(path);
    int count = 0;
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

/*
 * Opens `uri` while calls fail. If a table is returned, it must work. Returns whether one was.
 */
static bool open_once(const char *uri) {
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 1000, DAY);
    struct weir_table *table = (struct weir_table *)&limit;
    struct weir_error error = {.message = ""};
    int descriptors = entries("/proc/self/fd"), names = entries(folder);
    mapped = blocks = 0;
    calls = failed = 0;
    counting = true;
    int rc = weir_table_open(uri, &table, &error);
    counting = false;
    if (rc == 0) {
        decide_cost(table, &limit, "k", 1, NOW, WEIR_HIT);
        decide_cost(table, &limit, "k", 1, NOW, WEIR_REFUND);
        check_sound(table);
        assert_int_equal(entries(folder),
                         strncmp(uri, "memory", 6) ? 1 : names); /* no other name */
        counting = true;
        weir_table_close(table);
        counting = false;
    } else {
        assert_null(table);
        assert_true(rc == WEIR_ENOMEM || rc == WEIR_ENOSPC || rc == WEIR_ESYSTEM ||
                    rc == WEIR_EACCES);
        assert_int_equal(error.code, rc);
        if (strncmp(error.message, "out of memory", 13) != 0)
            assert_non_null(strstr(error.message, "://"));
        assert_true(failed > 0);
        assert_int_equal(entries(folder), names);
    }
    if (mapped != 0 || blocks != 0 || entries("/proc/self/fd") != descriptors)
        fail_msg("%s, call %u (%s) failed: %" PRId64 " bytes stay mapped, %d blocks allocated, %d "
                 "descriptors open",
                 uri, failing, culprit, mapped, blocks, entries("/proc/self/fd") - descriptors);
    return rc == 0;
}

/* Each call of an opening fails in turn. */
static void fail_each(const char *uri, bool exists) {
    unsigned errors = 0;
    chance = 0;
    for (failing = 1;; failing++) {
        culprit = NULL;
        bool came = open_once(uri);
        errors += !came;
        if (came && !exists)
            weir_table_unlink(uri, NULL);
        if (!culprit)
            break; /* the opening makes fewer calls than that */
    }
    failing = 0;
    assert_true(errors > 3);
}

static const char *file_uri(void) {
    static char uri[64];
    snprintf(uri, sizeof uri, "file://%s/it?keys=64&hits=200", folder);
    return uri;
}

static void test_a_table_in_memory_that_cannot_be_made_leaves_nothing(void **state) {
    (void)state;
    fail_each("memory://?keys=64", false);
    fail_each("memory://?keys=131072", false); /* large enough for huge pages */
}

static void test_a_file_that_cannot_be_made_leaves_nothing(void **state) {
    (void)state;
    fail_each(file_uri(), false);
}

static void test_a_file_system_without_nameless_files_is_left_clean(void **state) {
    (void)state;
    no_nameless = true;
    fail_each(file_uri(), false);
    no_nameless = false;
}

static void test_a_table_that_cannot_be_opened_stays_as_it_was(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, DAY);
    (void)state;
    struct weir_table *table = open_table(file_uri());
    assert_true(hit(table, &limit, "other", NOW));
    fail_each(file_uri(), true); /* beside another that has it open */
    weir_table_close(table);
    fail_each(file_uri(), true); /* alone */
    table = open_table(file_uri());
    assert_int_equal(remaining(table, &limit, "other", NOW), 9);
    check_sound(table);
    weir_table_close(table);
    weir_table_unlink(file_uri(), NULL);
}

static void test_failures_at_random_leak_nothing(void **state) {
    (void)state;
    int came = 0, rounds = 3000;
    for (int i = 0; i < rounds; i++) {
        chance = 2 + (unsigned)random_below(40);
        no_nameless = random_below(2);
        const char *uri = random_below(4) ? file_uri() : "memory://?keys=64";
        came += open_once(uri);
        if (random_below(2))
            weir_table_unlink(file_uri(), NULL);
    }
    chance = 0;
    no_nameless = false;
    weir_table_unlink(file_uri(), NULL);
    assert_in_range(came, rounds / 20, rounds * 19 / 20);
}

static void test_a_check_without_memory_says_so(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_error error;
    (void)state;
    failing = 1, calls = 0, counting = true;
    int rc = weir_table_check(table, &error);
    counting = false, failing = 0;
    assert_int_equal(rc, WEIR_ENOMEM);
    assert_string_equal(error.message, "memory://: out of memory");
    check_sound(table);
    weir_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_table_in_memory_that_cannot_be_made_leaves_nothing),
        cmocka_unit_test(test_a_file_that_cannot_be_made_leaves_nothing),
        cmocka_unit_test(test_a_file_system_without_nameless_files_is_left_clean),
        cmocka_unit_test(test_a_table_that_cannot_be_opened_stays_as_it_was),
        cmocka_unit_test(test_failures_at_random_leak_nothing),
        cmocka_unit_test(test_a_check_without_memory_says_so),
    };
    seed_random();
    return cmocka_run_group_tests_name("refusing system", tests, make_folder, remove_folder);
}
