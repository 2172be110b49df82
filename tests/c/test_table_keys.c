/*
 * Which keys a table holds, what it removes, and how handles and processes share it, for each
 * backing.
 */
#include "backings.h"

#include "table/cell.h"
#include "table/hash.h"

/* ----------------------------------------------------------------------------------------- keys */

static bool hit_bytes(struct weir_table *table, const struct weir_limit *limit, const void *key,
                      size_t key_len) {
    struct weir_check check = {.limit = limit, .key = key, .key_len = key_len, .cost = 1};
    struct weir_verdict verdict;
    assert_int_equal(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL), 0);
    return verdict.allowed;
}

static void test_keys_are_any_bytes(void **state) {
    static const struct {
        const char *key;
        size_t len;
    } keys[] = {{NULL, 0},
                {"\0", 1},
                {"\0\0", 2},
                {"a", 1},
                {"a\0", 2},
                {"a\0b", 3},
                {"a\n", 2},
                {"a\r\n", 3},
                {"\xff\xfe", 2},
                {"\xc3\xa9", 2},
                {"e\xcc\x81", 3},
                {"12345678", 8},
                {"12345678\0", 9},
                {"123456789abcdef0123456789abcdef0123456789abcdef0", 48},
                {"123456789abcdef0123456789abcdef0123456789abcdef01", 49}};
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 1, MINUTE);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_true(hit_bytes(table_of(state), &limit, keys[i].key, keys[i].len));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_false(hit_bytes(table_of(state), &limit, keys[i].key, keys[i].len));
}

static void test_long_keys_count_to_their_last_byte(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 1, MINUTE);
    char *key = calloc(1, WEIR_KEY_MAX + 1);
    assert_non_null(key);
    const size_t sizes[] = {(size_t)1 << 20, WEIR_KEY_MAX};
    for (int i = 0; i < 2; i++) {
        assert_true(hit_bytes(table_of(state), &limit, key, sizes[i]));
        assert_false(hit_bytes(table_of(state), &limit, key, sizes[i]));
        key[sizes[i] - 1] = 1;
        assert_true(hit_bytes(table_of(state), &limit, key, sizes[i]));
        key[sizes[i] - 1] = 0;
    }
    struct weir_check check = {.limit = &limit, .key = key, .key_len = WEIR_KEY_MAX + 1, .cost = 1};
    struct weir_verdict verdict;
    assert_int_equal(weir_decide(table_of(state), &check, 1, NOW, WEIR_HIT, &verdict, NULL),
                     WEIR_EINVAL);
    free(key);
}

/* ---------------------------------------------------------------------------------- removal */

static void test_clear_removes_only_these(void **state) {
    struct weir_limit limits[WEIR_STRATEGIES];
    struct weir_check checks[WEIR_STRATEGIES];
    for (int i = 0; i < WEIR_STRATEGIES; i++) {
        limits[i] = limit_of(i, 30, MINUTE);
        checks[i] = check_of(&limits[i], "gone", 1);
        for (int j = 0; j < 30; j++) {
            hit(table_of(state), &limits[i], "gone", NOW + j);
            hit(table_of(state), &limits[i], "stays", NOW + j);
        }
    }
    for (int twice = 0; twice < 2; twice++)
        assert_int_equal(weir_clear(table_of(state), checks, WEIR_STRATEGIES), 0);
    for (int i = 0; i < WEIR_STRATEGIES; i++) {
        assert_int_equal(remaining(table_of(state), &limits[i], "stays", NOW + 30), 0);
        assert_int_equal(remaining(table_of(state), &limits[i], "gone", NOW + 30),
                         i == WEIR_LEAKY_BUCKET ? 1 : 30);
    }
    assert_int_equal(info_of(table_of(state), NOW).keys, WEIR_STRATEGIES);
}

static void test_reset_removes_everything(void **state) {
    for (int i = 0; i < 500; i++) {
        struct weir_limit limit = limit_of(i % WEIR_STRATEGIES, 30, MINUTE);
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        for (int j = 0; j < 12; j++)
            hit(table_of(state), &limit, key, NOW + j * SECOND);
    }
    struct weir_table_info info = info_of(table_of(state), NOW);
    assert_int_equal(info.keys + info.evictions, 500);
    assert_true(info.lines_used >= 500 / WEIR_STRATEGIES);
    assert_int_equal(weir_table_reset(table_of(state)), 0);
    info = info_of(table_of(state), NOW);
    assert_int_equal(info.keys, 0);
    assert_int_equal(info.lines_used, 0);
}

static void test_info_counts_what_is_there(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 5, MINUTE);
    struct weir_limit log = limit_of(WEIR_MOVING_WINDOW, 1000, MINUTE);
    struct weir_table_info info = info_of(table_of(state), NOW);
    assert_int_equal(info.keys_max, 1024);
    assert_int_equal(info.keys, 0);
    assert_int_equal(info.evictions, 0);
    assert_int_equal(info.recoveries, 0);
    assert_int_equal(info.lines_used, 0);
    assert_true(info.lines_max * 14 >= 2000);
    assert_int_equal(info.bytes, table_of(state)->bytes);
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        hit(table_of(state), &limit, key, NOW);
    }
    for (int i = 0; i < 1000; i++)
        assert_true(hit(table_of(state), &log, "log", NOW + i * SECOND / 20));
    info = info_of(table_of(state), NOW);
    assert_int_equal(info.keys, 101);
    assert_in_range(info.lines_used, 1000 / 15, 1000 / 12);
    info = info_of(table_of(state), NOW + MINUTE);
    assert_int_equal(info.keys, 1); /* the windows have ended, the log's last hit has not left */
    assert_int_equal(weir_table_info(NULL, NOW, &info), WEIR_EINVAL);
    assert_int_equal(weir_table_info(table_of(state), NOW, NULL), WEIR_EINVAL);
    assert_int_equal(weir_table_check(NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_table_reset(NULL), WEIR_EINVAL);
}

/* -------------------------------------------------------------------------------------- sharing */

static void test_another_handle_sees_the_same_counters(void **state) {
    struct backing *backing = *state;
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 100, MINUTE);
    bool private = !strncmp(backing->uri, "memory", 6);
    /* no size given: opens the existing table */
    struct weir_table *other = open_table(private ? "memory://?keys=64" : backing->uri);
    for (int i = 0; i < 50; i++)
        assert_true(hit(i % 2 ? backing->table : other, &limit, "k", NOW + i));
    assert_int_equal(remaining(backing->table, &limit, "k", NOW + 50), private ? 75 : 50);
    weir_table_close(backing->table);
    backing->table = other;
    assert_int_equal(remaining(other, &limit, "k", NOW + 50), private ? 75 : 50);
}

static void test_reopened_alone_it_remembers(void **state) {
    struct backing *backing = *state;
    if (!strncmp(backing->uri, "memory", 6))
        return;
    struct weir_limit limits[WEIR_STRATEGIES];
    struct weir_verdict before[WEIR_STRATEGIES];
    for (int i = 0; i < WEIR_STRATEGIES; i++) {
        limits[i] = limit_of(i, 1000, MINUTE);
        for (int j = 0; j < 700; j++)
            hit(backing->table, &limits[i], "k", NOW + j);
        before[i] = decide_cost(backing->table, &limits[i], "k", 400, NOW + 700, WEIR_TEST);
    }
    weir_table_close(backing->table);
    backing->table = open_table(backing->uri);
    for (int i = 0; i < WEIR_STRATEGIES; i++) {
        struct weir_verdict after =
            decide_cost(backing->table, &limits[i], "k", 400, NOW + 700, WEIR_TEST);
        assert_memory_equal(&after, &before[i], sizeof after);
    }
}

static int hit_from_a_child(void *argument) {
    const struct backing *backing = argument;
    struct weir_limit limit = limit_of(WEIR_TOKEN_BUCKET, 100, DAY);
    struct weir_check check = check_of(&limit, "k", 1);
    struct weir_verdict verdict;
    struct weir_table *table;
    MUST(weir_table_open(backing->uri, &table, NULL) == 0);
    for (int i = 0; i < 10; i++) {
        MUST(PATIENTLY(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL)) == 0);
        MUST(verdict.allowed);
    }
    weir_table_close(table);
    return 0;
}

static void test_another_process_sees_the_same_counters(void **state) {
    struct backing *backing = *state;
    struct weir_limit limit = limit_of(WEIR_TOKEN_BUCKET, 100, DAY);
    pid_t pid[4];
    for (int i = 0; i < 4; i++)
        pid[i] = spawn(hit_from_a_child, backing);
    for (int i = 0; i < 4; i++)
        expect_success(pid[i]);
    assert_int_equal(remaining(backing->table, &limit, "k", NOW),
                     strncmp(backing->uri, "memory", 6) ? 60 : 100);
}

static void test_a_removed_name_leaves_the_open_table_alone(void **state) {
    struct backing *backing = *state;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_error error;
    if (!strncmp(backing->uri, "memory", 6)) {
        assert_int_equal(weir_table_unlink(backing->uri, &error), WEIR_ENOENT);
        return;
    }
    assert_true(hit(backing->table, &limit, "k", NOW));
    assert_int_equal(weir_table_unlink(backing->uri, &error), 0);
    assert_int_equal(weir_table_unlink(backing->uri, &error), WEIR_ENOENT);
    assert_non_null(strstr(error.message, backing->uri));
    char uri[300];
    snprintf(uri, sizeof uri, "%s?keys=64", backing->uri);
    struct weir_table *next = open_table(uri);
    assert_true(hit(backing->table, &limit, "k", NOW));
    assert_false(hit(backing->table, &limit, "k", NOW));
    assert_int_equal(remaining(next, &limit, "k", NOW), 2);
    check_sound(next);
    weir_table_close(next);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_BACKING(test_keys_are_any_bytes),
        ON_EACH_BACKING(test_long_keys_count_to_their_last_byte),
        ON_EACH_BACKING(test_clear_removes_only_these),
        ON_EACH_BACKING(test_reset_removes_everything),
        ON_EACH_BACKING(test_info_counts_what_is_there),
        ON_EACH_BACKING(test_another_handle_sees_the_same_counters),
        ON_EACH_BACKING(test_reopened_alone_it_remembers),
        ON_EACH_BACKING(test_another_process_sees_the_same_counters),
        ON_EACH_BACKING(test_a_removed_name_leaves_the_open_table_alone),
    };
    seed_random();
    return cmocka_run_group_tests_name("keys", tests, NULL, NULL);
}
