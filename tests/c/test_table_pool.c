/*
 * The pool of moving-window hits when it is full: which keys are evicted, which are denied, and
 * what that must not cost. Random runs print their seed (WEIR_SEED=N repeats one).
 */
#include "support.h"

#include "table/layout.h"

static void name_key(char *key, size_t size, const char *what, int number) {
    snprintf(key, size, "%s %d", what, number);
}

/* Hits at times one second apart: about 11 to a line, since each step takes 5 bytes. */
static int fill_log(struct weir_table *table, const struct weir_limit *limit, const char *key,
                    int from, int hits) {
    struct weir_check check = check_of(limit, key, 1);
    struct weir_verdict verdict;
    int rc = 0;
    for (int i = 0; i < hits && rc == 0; i++) {
        rc = weir_decide(table, &check, 1, NOW + (from + i) * SECOND, WEIR_HIT, &verdict, NULL);
        if (rc == 0)
            assert_true(verdict.allowed);
        else if (rc != WEIR_EFULL)
            fail_msg("%s", weir_strerror(rc));
    }
    return rc;
}

static void test_expired_logs_make_room_in_the_pool(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&hits=200");
    struct weir_limit brief = limit_of(WEIR_MOVING_WINDOW, 100, 100 * SECOND);
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 1000, DAY);
    char key[32];
    (void)state;
    for (int i = 0; i < 7; i++) {
        name_key(key, sizeof key, "brief", i);
        assert_int_equal(fill_log(table, &brief, key, 0, 100), 0);
    }
    uint64_t used = info_of(table, NOW).lines_used, lines = info_of(table, NOW).lines_max;
    assert_true(used > lines * 3 / 4);
    int64_t hits = (int64_t)lines * 9;
    assert_int_equal(fill_log(table, &limit, "k", 1000, (int)hits), 0);
    assert_int_equal(remaining(table, &limit, "k", NOW + (1000 + hits) * SECOND), 1000 - hits);
    assert_int_equal(info_of(table, NOW).evictions, 0);
    check_sound(table);
    weir_table_close(table);
}

/*
 * Fills the pool with logs of `hits` of 1000 hits, each log one hit longer than the one before.
 * Returns their number.
 */
static int fill_pool(struct weir_table *table, const struct weir_limit *limit, int hits) {
    uint64_t lines = info_of(table, NOW).lines_max;
    char key[32];
    int count = 0;
    for (; info_of(table, NOW).lines_used + 16 < lines; count++, hits++) {
        name_key(key, sizeof key, "small", count);
        assert_int_equal(fill_log(table, limit, key, 0, hits), 0);
    }
    return count;
}

static void test_the_log_that_loses_least_makes_room_when_none_has_expired(void **state) {
    struct weir_table *table = open_table("memory://?keys=512&hits=4000");
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 1000, DAY);
    char key[32];
    (void)state;
    int count = fill_pool(table, &limit, 30);
    assert_int_equal(info_of(table, NOW).evictions, 0);
    struct weir_limit tight = limit_of(WEIR_MOVING_WINDOW, 25, DAY);
    for (int i = 0; i < 16; i++) { /* new, shorter logs, which use more of their limit */
        name_key(key, sizeof key, "new", i);
        assert_int_equal(fill_log(table, &tight, key, 100, 25), 0);
    }
    for (int i = 0; i < 16; i++) {
        name_key(key, sizeof key, "new", i);
        assert_int_equal(remaining(table, &tight, key, NOW + 200 * SECOND), 0);
    }
    uint64_t evictions = info_of(table, NOW).evictions;
    assert_in_range(evictions, 1, 12);
    int gone = 0;
    for (int i = 0; i < count; i++) {
        name_key(key, sizeof key, "small", i);
        int64_t left = remaining(table, &limit, key, NOW + 200 * SECOND);
        gone += left == 1000;
        assert_true(left == 1000 || left == 1000 - 30 - i);
        if (i >= 12) /* those with the most hits are kept */
            assert_int_equal(left, 1000 - 30 - i);
    }
    assert_int_equal(gone, evictions);
    check_sound(table);
    weir_table_close(table);
}

/* A long log does not take the lines of shorter ones, nor the rest that is meant for them. */
static void test_greedy_keys_leave_the_logs_of_others_alone(void **state) {
    struct weir_limit large = limit_of(WEIR_MOVING_WINDOW, 1000000, DAY);
    struct weir_limit small = limit_of(WEIR_MOVING_WINDOW, 30, DAY);
    (void)state;
    for (int greedy = 1; greedy <= 5; greedy++) {
        struct weir_table *table = open_table("memory://?keys=256&hits=20000");
        int64_t now_ns = NOW, admitted[5] = {0}, denied[5] = {0};
        char key[32];
        for (int i = 0; i < 10; i++) { /* they exist before */
            name_key(key, sizeof key, "before", i);
            for (int j = 0; j < 30; j++)
                assert_true(hit(table, &small, key, now_ns + j * SECOND));
        }
        for (int i = 0; i < 30000; i++, now_ns += SECOND)
            for (int j = 0; j < greedy; j++) {
                name_key(key, sizeof key, "greedy", j);
                bool allowed = hit(table, &large, key, now_ns + MINUTE);
                admitted[j] += allowed;
                denied[j] += !allowed;
            }
        now_ns += 2 * MINUTE;
        for (int i = 0; i < 5; i++) { /* new keys find room, too */
            name_key(key, sizeof key, "after", i);
            for (int j = 0; j < 30; j++)
                if (!hit(table, &small, key, now_ns + j * SECOND))
                    fail_msg("hit %d of key %d is denied beside %d greedy keys", j, i, greedy);
            assert_false(hit(table, &small, key, now_ns + MINUTE));
        }
        now_ns += 2 * MINUTE;
        for (int i = 0; i < 10; i++) {
            name_key(key, sizeof key, "before", i);
            assert_int_equal(remaining(table, &small, key, now_ns), 0);
        }
        for (int j = 0; j < greedy; j++) {
            name_key(key, sizeof key, "greedy", j);
            assert_true(denied[j] > 0);
            assert_int_equal(remaining(table, &large, key, now_ns), 1000000 - admitted[j]);
            assert_true(admitted[j] * greedy >
                        20000 * 2 / 3); /* and no log is kept shorter than necessary */
        }
        assert_int_equal(info_of(table, now_ns).evictions, 0);
        check_sound(table);
        weir_table_close(table);
    }
}

/* So many greedy keys that no line is free: a short log replaces a long one. */
static void test_a_short_log_finds_room_among_any_number_of_greedy_keys(void **state) {
    struct weir_table *table = open_table("memory://?keys=1024&hits=20000");
    struct weir_limit large = limit_of(WEIR_MOVING_WINDOW, 1000000, DAY);
    struct weir_limit small = limit_of(WEIR_MOVING_WINDOW, 30, DAY);
    int64_t now_ns = NOW;
    char key[32];
    (void)state;
    for (int i = 0; i < 2000; i++, now_ns += SECOND)
        for (int j = 0; j < 60; j++) {
            name_key(key, sizeof key, "greedy", j);
            hit(table, &large, key, now_ns);
        }
    for (int i = 0; i < 50; i++) {
        name_key(key, sizeof key, "honest", i);
        for (int j = 0; j < 30; j++)
            if (!hit(table, &small, key, now_ns + j * SECOND))
                fail_msg("WEIR_SEED=%" PRIu64 ": hit %d of key %d is denied", seed, j, i);
    }
    for (int i = 0; i < 50; i++) {
        name_key(key, sizeof key, "honest", i);
        assert_int_equal(remaining(table, &small, key, now_ns + MINUTE), 0);
    }
    check_sound(table);
    weir_table_close(table);
}

static void test_a_full_pool_never_costs_a_key_its_own_log(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&hits=14");
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 1000000, DAY);
    struct weir_limit window = limit_of(WEIR_FIXED_WINDOW, 100, DAY);
    struct weir_check checks[2] = {check_of(&window, "k", 1), check_of(&limit, "k", 1)};
    struct weir_verdict verdicts[2];
    (void)state;
    int hits = 0;
    while (hit(table, &limit, "k", NOW + hits * SECOND))
        hits++;
    assert_true(hits >= 64 * 10);
    int64_t now_ns = NOW + hits * SECOND;
    for (int i = 0; i < 20; i++) { /* nor does a decision over several limits */
        for (int mode = WEIR_HIT; mode <= WEIR_EACH; mode += WEIR_EACH - WEIR_HIT) {
            struct weir_decision decision;
            assert_int_equal(weir_decide(table, checks, 2, now_ns + i, (enum weir_mode)mode,
                                         verdicts, &decision),
                             0);
            assert_false(decision.allowed);
            assert_int_equal(decision.deciding, 1);
            assert_false(verdicts[1].allowed);
            /* until the oldest hit leaves */
            assert_int_equal(verdicts[1].retry_after_ns, NOW + DAY - (now_ns + i));
        }
        assert_int_equal(remaining(table, &limit, "k", now_ns), 1000000 - hits);
        assert_int_equal(remaining(table, &window, "k", now_ns), 100);
    }
    assert_int_equal(info_of(table, NOW).evictions, 0);
    /* a hit that needs no line is still admitted, and expired hits make room */
    assert_true(hit(table, &window, "k", now_ns));
    assert_true(hit(table, &limit, "k", now_ns - SECOND));
    assert_int_equal(fill_log(table, &limit, "k", 86400 + hits / 2, hits / 3), 0);
    check_sound(table);
    weir_table_close(table);
}

/*
 * One client with a limit larger than the pool takes its share, is denied, and no other client
 * loses a hit.
 */
static void test_one_key_cannot_take_the_whole_pool(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&hits=2000");
    struct weir_limit large = limit_of(WEIR_MOVING_WINDOW, 1000000, DAY);
    struct weir_limit small = limit_of(WEIR_MOVING_WINDOW, 30, DAY);
    char key[32];
    (void)state;
    int64_t now_ns = NOW, admitted = 0;
    int64_t lines = (int64_t)info_of(table, NOW).lines_max;
    for (; admitted < lines * 10; now_ns += SECOND)
        admitted += hit(table, &large, "greedy", now_ns);
    for (int i = 0; i < 8; i++) {
        name_key(key, sizeof key, "other", i);
        for (int j = 0; j < 30; j++)
            assert_true(hit(table, &small, key, now_ns + j * SECOND));
    }
    now_ns += 30 * SECOND;
    uint64_t evictions = info_of(table, now_ns).evictions;
    for (int i = 0; i < 5000; i++, now_ns += SECOND)
        admitted += hit(table, &large, "greedy", now_ns);
    assert_int_equal(info_of(table, now_ns).evictions, evictions);
    assert_true(admitted < lines * 14);
    for (int i = 0; i < 8; i++) {
        name_key(key, sizeof key, "other", i);
        assert_false(hit(table, &small, key, now_ns));
    }
    check_sound(table);
    weir_table_close(table);
}

static void test_two_keys_that_fill_the_pool_keep_what_they_used(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&hits=14");
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 400, DAY);
    int64_t now_ns = NOW, admitted[2] = {0, 0};
    (void)state;
    /* both in one decision: neither can take the other's lines */
    struct weir_check checks[2] = {check_of(&limit, "a", 1), check_of(&limit, "b", 1)};
    for (int i = 0; i < 1000; i++, now_ns += SECOND) {
        struct weir_verdict verdicts[2];
        int rc = weir_decide(table, checks, 2, now_ns, WEIR_HIT, verdicts, NULL);
        assert_int_equal(rc, 0);
        for (int j = 0; j < 2; j++)
            admitted[j] += rc == 0 && verdicts[0].allowed && verdicts[1].allowed;
    }
    for (int j = 0; j < 2; j++)
        assert_int_equal(remaining(table, &limit, j ? "b" : "a", now_ns), 400 - admitted[j]);
    assert_true(admitted[0] > 300);
    assert_int_equal(info_of(table, NOW).evictions, 0);
    check_sound(table);
    weir_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expired_logs_make_room_in_the_pool),
        cmocka_unit_test(test_the_log_that_loses_least_makes_room_when_none_has_expired),
        cmocka_unit_test(test_greedy_keys_leave_the_logs_of_others_alone),
        cmocka_unit_test(test_a_short_log_finds_room_among_any_number_of_greedy_keys),
        cmocka_unit_test(test_a_full_pool_never_costs_a_key_its_own_log),
        cmocka_unit_test(test_one_key_cannot_take_the_whole_pool),
        cmocka_unit_test(test_two_keys_that_fill_the_pool_keep_what_they_used),
    };
    seed_random();
    return cmocka_run_group_tests_name("full pool", tests, NULL, NULL);
}
