/*
 * Opening, creating and removing one table at the same time: concurrent creators, a lock that
 * another process holds, and a file that is removed while it is being opened.
 */
#include "refused.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>

#define RACERS 8

struct race {
    const char *uri;
    _Atomic int ready;
    _Atomic int go;
};

static int race(void *argument) {
    struct race *race = argument;
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 100, DAY);
    struct weir_check check = check_of(&limit, "k", 1);
    struct weir_verdict verdict;
    struct weir_table *table;
    race->ready++;
    while (!race->go)
        ;
    MUST(PATIENTLY(weir_table_open(race->uri, &table, NULL)) == 0);
    for (int i = 0; i < 5; i++) {
        MUST(PATIENTLY(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL)) == 0);
        MUST(verdict.allowed);
    }
    return 0;
}

static void test_those_who_race_to_make_a_table_share_one(void **state) {
    struct race *shared = shared_memory(sizeof *shared);
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 100, DAY);
    (void)state;
    for (int round = 0; round < 40; round++) {
        pid_t pid[RACERS];
        char uri[300];
        snprintf(uri, sizeof uri, "%s", fresh_shm("?keys=64&hits=200"));
        *shared = (struct race){.uri = uri};
        for (int i = 0; i < RACERS; i++)
            pid[i] = spawn(race, shared);
        while (shared->ready < RACERS)
            sched_yield();
        shared->go = 1;
        for (int i = 0; i < RACERS; i++)
            expect_success(pid[i]);
        struct weir_table *table = open_table(uri);
        assert_int_equal(remaining(table, &limit, "k", NOW), 100 - 5 * RACERS);
        check_sound(table);
        weir_table_close(table);
        assert_int_equal(weir_table_unlink(uri, NULL), 0);
    }
    munmap(shared, sizeof *shared);
}

static int make_and_remove(void *argument) {
    struct race *race = argument;
    while (!race->go) {
        struct weir_table *table;
        struct weir_error error;
        MUST(PATIENTLY(weir_table_open(race->uri, &table, &error)) == 0);
        weir_table_close(table);
        int rc = weir_table_unlink(race->uri, &error);
        MUST(rc == 0 || rc == WEIR_ENOENT);
    }
    return 0;
}

/* Opening while others remove returns a table that has its name at that moment, or a new one. */
static void test_making_and_removing_at_once_never_fails(void **state) {
    struct race *shared = shared_memory(sizeof *shared);
    char uri[300];
    pid_t pid[4];
    (void)state;
    snprintf(uri, sizeof uri, "%s", fresh_shm("?keys=64&hits=200"));
    shared->uri = uri;
    for (int i = 0; i < 4; i++)
        pid[i] = spawn(make_and_remove, shared);
    usleep(300000); /* a marked sleep: the duration of the test */
    shared->go = 1;
    for (int i = 0; i < 4; i++)
        expect_success(pid[i]);
    weir_table_unlink(uri, NULL);
    munmap(shared, sizeof *shared);
}

static int held_fd; /* of the test process; its child inherits it */

static int open_and_hit(void *argument) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 100, DAY);
    struct weir_check check = check_of(&limit, "k", 1);
    struct weir_verdict verdict;
    struct weir_table *table;
    MUST(weir_table_open(argument, &table, NULL) == 0);
    MUST(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL) == 0 && verdict.allowed);
    weir_table_close(table);
    return 0;
}

/* Whether `pid` has the file open, and so waits for the lock. */
static bool has_open(pid_t pid, const char *path) {
    char name[64], target[4096], real[4096];
    assert_non_null(realpath(path, real));
    for (int fd = 0; fd < 64; fd++) {
        snprintf(name, sizeof name, "/proc/%d/fd/%d", (int)pid, fd);
        ssize_t len = readlink(name, target, sizeof target - 1);
        if (len < 0)
            continue;
        target[len] = '\0';
        if (fd != held_fd && strcmp(target, real) == 0)
            return true;
    }
    return false;
}

static void test_a_lock_that_another_keeps_is_an_error(void **state) {
    struct weir_table *table;
    struct weir_error error;
    (void)state;
    weir_table_close(open_table(uri_of("it", "?keys=64&hits=200")));
    int fd = open(path_of("it"), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    weir_open_wait_ns = 20000000;
    assert_int_equal(weir_table_open(uri_of("it", ""), &table, &error), WEIR_EBUSY);
    assert_non_null(strstr(error.message, "another process keeps it locked"));
    weir_open_wait_ns = INT64_C(5000000000);
    flock(fd, LOCK_UN);
    close(fd);
    weir_table_close(open_table(uri_of("it", "")));
}

static void test_a_file_removed_while_being_opened_is_not_joined(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 100, DAY);
    char uri[160];
    (void)state;
    snprintf(uri, sizeof uri, "%s", uri_of("it", "?keys=64&hits=200"));
    weir_table_close(open_table(uri));
    int fd = open(path_of("it"), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0); /* as a process does that opens the table alone */
    held_fd = fd;
    weir_open_wait_ns = 120 * SECOND; /* the child waits, however long this process takes */
    pid_t pid = spawn(open_and_hit, uri);
    while (!has_open(pid, path_of("it")))
        sched_yield();
    assert_int_equal(weir_table_unlink(uri, NULL), 0);
    struct weir_table *table = open_table(uri);
    flock(fd, LOCK_UN);
    close(fd);
    expect_success(pid);
    weir_open_wait_ns = 5 * SECOND;
    assert_int_equal(remaining(table, &limit, "k", NOW), 99);
    weir_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AFTER_WHICH_IT_GOES(test_those_who_race_to_make_a_table_share_one),
        AFTER_WHICH_IT_GOES(test_a_file_removed_while_being_opened_is_not_joined),
        AFTER_WHICH_IT_GOES(test_a_lock_that_another_keeps_is_an_error),
        AFTER_WHICH_IT_GOES(test_making_and_removing_at_once_never_fails),
    };
    seed_random();
    return cmocka_run_group_tests_name("racing makers", tests, make_folder, remove_folder);
}
