/* A table whose file is truncated while it is open: calls fail, and the process continues. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "support.h"
#include "weir/lost.h"
#include "weir/meter.h"
#include "weir/rules.h"
#include "weir/stats.h"

static char path[64];

/* A new table in a child process, with data in each part. */
static struct weir_table *fill(const char *uri) {
    struct weir_table *table = NULL;
    struct weir_limit fixed = limit_of(WEIR_FIXED_WINDOW, 50, DAY);
    struct weir_limit moving = limit_of(WEIR_MOVING_WINDOW, 50, DAY);
    char key[32];
    MUST(weir_table_open(uri, &table, NULL) == 0);
    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "client %d", i);
        hit(table, &fixed, key, NOW + i);
        for (int j = 0; j < 5; j++)
            hit(table, &moving, key, NOW + i + j * SECOND);
    }
    MUST(weir_rules_set(table, "192.0.2.1", 9, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL) == 0);
    return table;
}

/* Makes call number `which` of those that read a table. Returns whether it was refused. */
static bool call(struct weir_table *table, int which) {
    struct weir_limit limits[2] = {limit_of(WEIR_FIXED_WINDOW, 50, DAY),
                                   limit_of(WEIR_MOVING_WINDOW, 50, DAY)};
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    struct weir_table_info info;
    struct weir_rule rules[16];
    struct weir_error error;
    uint64_t value;
    size_t n = 16, labels = WEIR_STATS_LABELS;
    int rc = 0;
    for (int i = 0; i < 500 && rc == 0 && which < 3; i++) {
        char key[32];
        struct weir_verdict verdicts[2];
        snprintf(key, sizeof key, "client %d", i);
        struct weir_check checks[2] = {check_of(&limits[0], key, 1), check_of(&limits[1], key, 1)};
        rc = which == 0   ? weir_decide(table, checks, 2, NOW + MINUTE, WEIR_HIT, verdicts, NULL)
             : which == 1 ? weir_decide(table, checks, 1, NOW + MINUTE, WEIR_HIT, verdicts, NULL)
                          : weir_clear(table, checks, 2);
    }
    switch (which) {
    case 3:
        rc = weir_table_info(table, NOW, &info);
        break;
    case 4:
        rc = weir_table_check(table, &error);
        break;
    case 5:
        rc = weir_table_reset(table);
        break;
    case 6:
        rc = weir_rules_list(table, rules, &n);
        break;
    case 7:
        rc = weir_rules_set(table, "192.0.2.2", 9, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, &error);
        break;
    case 8:
        rc = weir_stats_counts(table, counts, &labels);
        break;
    case 9:
        rc = weir_meter_add(table, "m", 1, 1, &value);
        break;
    default:
        break;
    }
    MUST(rc >= 0 || rc == WEIR_EFORMAT);
    return rc < 0;
}
#define CALLS 10

/* In a child: the file is cut to `left` bytes, then call number `which` is made twice. */
static int cut_and_call(int which, off_t left, bool guard) {
    char uri[128];
    int status;
    snprintf(path, sizeof path, "/tmp/weir-cut-%d", (int)getpid());
    snprintf(uri, sizeof uri, "file://%s?keys=1024&hits=4096", path);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        alarm(120);
        MUST(!guard || weir_table_guard() == 0);
        struct weir_table *table = fill(uri);
        MUST(weir_table_lost(table) == 0);
        MUST(truncate(path, left) == 0);
        bool refused = call(table, which);
        MUST(call(table, which) >= refused); /* a lost table stays lost */
        MUST(call(table, 0));
        MUST(weir_table_lost(table) == WEIR_EFORMAT);
        struct weir_error error;
        MUST(weir_table_reopen(table, uri, NOW, &error) == 0);
        MUST(weir_table_lost(table) == 0);
        MUST(!call(table, 0));
        MUST(weir_table_check(table, &error) == 0);
        weir_table_close(table);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    unlink(path);
    return status;
}

static void test_a_guarded_process_outlives_the_cut(void **state) {
    static const off_t left[] = {0, 4096, 20000, 100000, 300000};
    (void)state;
    for (int which = 0; which < CALLS; which++)
        for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
            int status = cut_and_call(which, left[i], true);
            if (status != 0)
                fail_msg("call %d of a table cut to %d bytes: status %x", which, (int)left[i],
                         (unsigned)status);
        }
}

/* A file that was extended again reads as zeros, which look like a table without counts. */
static void test_a_table_that_was_extended_again_refuses_at_once(void **state) {
    static const off_t left[] = {0, 4096, 20000, 100000, -1};
    char uri[128];
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 1, DAY);
    struct weir_verdict verdict;
    (void)state;
    snprintf(path, sizeof path, "/tmp/weir-cut-%d", (int)getpid());
    snprintf(uri, sizeof uri, "file://%s?keys=1024", path);
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        struct stat st;
        struct weir_table *table = open_table(uri), *other;
        struct weir_check check = {.limit = &limit, .key = "a", .key_len = 1, .cost = 1};
        assert_true(hit(table, &limit, "a", NOW));
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, left[i] < 0 ? st.st_size - 64 : left[i]), 0);
        assert_int_equal(truncate(path, st.st_size), 0);
        assert_int_equal(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL),
                         WEIR_EFORMAT);
        assert_int_equal(weir_table_lost(table), WEIR_EFORMAT);
        assert_int_equal(weir_table_open(uri, &other, NULL), WEIR_EFORMAT);
        weir_table_close(table);
        assert_int_equal(unlink(path), 0);
    }
}

/* The data may now belong to another program. */
static void test_a_file_with_other_data_is_not_removed(void **state) {
    char uri[128], text[8];
    struct weir_error error;
    (void)state;
    snprintf(path, sizeof path, "/tmp/weir-cut-%d", (int)getpid());
    snprintf(uri, sizeof uri, "file://%s?keys=1024", path);
    struct weir_table *table = open_table(uri);
    int fd = open(path, O_RDWR | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "my data\n", 8), 8);
    assert_int_equal(weir_table_reopen(table, uri, NOW, &error), WEIR_EFORMAT);
    assert_non_null(strstr(error.message, "has other data now; remove it"));
    assert_int_equal(pread(fd, text, 8, 0), 8);
    assert_memory_equal(text, "my data\n", 8);
    close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(weir_table_reopen(table, uri, NOW, &error), 0);
    weir_table_close(table);
    unlink(path);
}

static void test_one_that_is_not_guarded_ends(void **state) {
    (void)state;
    if (UNDER_ASAN || UNDER_TSAN)
        SKIP("the sanitizer has its own handler");
    int status = cut_and_call(0, 0, false);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

static void test_a_removed_table_is_opened_again_with_its_rules(void **state) {
    char uri[128];
    struct weir_table *table, *other;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 1, DAY);
    struct weir_rule rule;
    (void)state;
    snprintf(path, sizeof path, "/tmp/weir-cut-%d", (int)getpid());
    snprintf(uri, sizeof uri, "file://%s?keys=1024", path);
    table = open_table(uri);
    assert_true(hit(table, &limit, "a", NOW));
    assert_int_equal(weir_rules_set(table, "192.0.2.1", 9, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL),
                     0);
    assert_int_equal(weir_table_reopen(table, uri, NOW, NULL), 0);
    assert_false(hit(table, &limit, "a", NOW)); /* nothing was lost */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(weir_table_lost(table), WEIR_ENOENT);
    assert_int_equal(weir_table_reopen(table, uri, NOW, NULL), 0);
    other = open_table(uri);
    assert_true(hit(other, &limit, "a", NOW));
    assert_false(hit(table, &limit, "a", NOW));
    assert_int_equal(weir_rules_find(other, "192.0.2.1", 9, NOW, &rule), WEIR_RULE_BLOCK);
    weir_table_close(other);
    weir_table_close(table);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guarded_process_outlives_the_cut),
        cmocka_unit_test(test_a_table_that_was_extended_again_refuses_at_once),
        cmocka_unit_test(test_a_file_with_other_data_is_not_removed),
        cmocka_unit_test(test_one_that_is_not_guarded_ends),
        cmocka_unit_test(test_a_removed_table_is_opened_again_with_its_rules),
    };
    return cmocka_run_group_tests_name("cut", tests, NULL, NULL);
}
