/*
 * The counters of a table by label, against a naive model that counts every decision; by several
 * processes, and by some that are killed.
 */
#include "stats_support.h"

#include "table/cell.h"
#include "table/hash.h"

/* ---------------------------------------------------------------------------- counters by label */

static void test_hits_count_under_their_label(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_check check = labelled(table, &limit, "10.0.0.1", labels[0]);
    (void)state;
    for (int i = 0; i < 15; i++)
        decide_check(table, &check, NOW, WEIR_HIT);
    assert_counts(table, labels[0], 10, 5, 3,
                  0); /* near: with the 8th, 9th and 10th hit 80 % is used */
    decide_check(table, &check, NOW, WEIR_TEST);
    decide_check(table, &check, NOW, WEIR_REFUND);
    assert_counts(table, labels[0], 10, 5, 3, 0);
    decide_check(table, &check, NOW, WEIR_EACH);
    assert_counts(table, labels[0], 11, 5, 4, 0);
    check.label = 0;
    decide_check(table, &check, NOW, WEIR_HIT);
    assert_counts(table, labels[0], 11, 5, 4, 0);
    check_sound(table);
    weir_table_close(table);
}

static void test_near_is_eight_tenths_of_any_limit(void **state) {
    static const struct {
        int64_t amount, first; /* the first hit that is near */
    } limits[] = {{1, 1}, {2, 2}, {3, 3},  {4, 4},  {5, 4},
                  {6, 5}, {9, 8}, {10, 8}, {11, 9}, {100, 80}};
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct weir_table *table = open_table("memory://?keys=8");
        struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, limits[i].amount, MINUTE);
        struct weir_check check = labelled(table, &limit, "k", labels[0]);
        for (int64_t hits = 1; hits <= limits[i].amount; hits++) {
            decide_check(table, &check, NOW, WEIR_HIT);
            int64_t near = hits < limits[i].first ? 0 : hits - limits[i].first + 1;
            assert_int_equal(counts_of(table, labels[0]).near_limit, near);
        }
        weir_table_close(table);
    }
    struct weir_table *table = open_table("memory://?keys=8");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, INT64_MAX, MINUTE);
    struct weir_check check = labelled(table, &limit, "k", labels[0]);
    decide_check(table, &check, NOW, WEIR_HIT);
    check.cost = INT64_MAX - 1;
    decide_check(table, &check, NOW, WEIR_HIT);
    assert_counts(table, labels[0], 2, 0, 1, 0);
    weir_table_close(table);
}

static void test_of_several_limits_those_that_denied_count(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit[3] = {limit_of(WEIR_FIXED_WINDOW, 100, MINUTE),
                                  limit_of(WEIR_TOKEN_BUCKET, 2, MINUTE),
                                  limit_of(WEIR_MOVING_WINDOW, 2, MINUTE)};
    struct weir_check checks[3];
    struct weir_verdict verdicts[3];
    (void)state;
    for (int i = 0; i < 3; i++)
        checks[i] = labelled(table, &limit[i], "10.0.0.1", labels[i]);
    for (int i = 0; i < 5; i++)
        assert_int_equal(weir_decide(table, checks, 3, NOW, WEIR_HIT, verdicts, NULL), 0);
    assert_counts(table, labels[0], 2, 0, 0, 0);
    assert_counts(table, labels[1], 2, 3, 1, 0);
    assert_counts(table, labels[2], 2, 3, 1, 0);
    assert_int_equal(weir_decide(table, checks, 3, NOW, WEIR_EACH, verdicts, NULL), 0);
    assert_counts(table, labels[0], 3, 0, 0, 0);
    assert_counts(table, labels[1], 2, 4, 1, 0);
    weir_table_close(table);
}

static void test_labels_beyond_the_last_are_other(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 1000, MINUTE);
    char text[40];
    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "label %d", i);
        struct weir_check check = labelled(table, &limit, "k", text);
        assert_int_equal(check.label, i < WEIR_STATS_LABELS - 1 ? i + 1 : WEIR_STATS_LABELS);
        decide_check(table, &check, NOW, WEIR_HIT);
        assert_int_equal(weir_stats_label(table, text, strlen(text)), check.label);
    }
    assert_int_equal(counts_of(table, "label 62").allowed, 1);
    assert_int_equal(counts_of(table, "label 63").allowed, 0);
    assert_int_equal(counts_of(table, "other").allowed, 37);
    assert_int_equal(weir_stats_label(table, "other", 5), WEIR_STATS_LABELS);
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    size_t n = WEIR_STATS_LABELS - 1;
    assert_int_equal(weir_stats_counts(table, counts, &n), WEIR_ETOOMANY);
    check_sound(table);
    weir_table_close(table);
}

static void test_labels_have_bounds(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    char text[WEIR_LABEL_MAX + 2];
    struct weir_verdict verdict;
    (void)state;
    memset(text, 'x', sizeof text);
    assert_int_equal(weir_stats_label(table, text, WEIR_LABEL_MAX + 1), WEIR_EINVAL);
    assert_int_equal(weir_stats_label(table, text, 0), WEIR_EINVAL);
    assert_int_equal(weir_stats_label(table, "a\0b", 3), WEIR_EINVAL);
    assert_int_equal(weir_stats_label(table, text, WEIR_LABEL_MAX), 1);
    assert_int_equal(weir_stats_label(table, text, WEIR_LABEL_MAX - 1),
                     2); /* no prefix of another */
    struct weir_check check = check_of(&limit, "k", 1);
    for (int i = 0; i < 2; i++) {
        check.label = i ? -1 : WEIR_STATS_LABELS + 1;
        assert_int_equal(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    }
    check.label = 0, check.flags = 1 << 30;
    assert_int_equal(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    weir_table_close(table);
}

/* Random decisions of all kinds, compared with counts that a simple model makes. */
static void test_random_decisions_count_as_a_model_does(void **state) {
    struct weir_table *table = open_table("memory://?keys=256&hits=2000");
    struct weir_limit limit[15];
    struct weir_stats_counts model[3] = {0};
    char key[8][16];
    (void)state;
    for (int i = 0; i < 15; i++)
        limit[i] = limit_of(i % 5, 3 + i, (1 + i % 4) * MINUTE);
    for (int i = 0; i < 8; i++)
        snprintf(key[i], sizeof key[i], "10.0.0.%d", i);
    int64_t now_ns = NOW;
    for (int round = 0; round < 20000; round++) {
        struct weir_check checks[4];
        struct weir_verdict verdicts[4];
        uint32_t n = 1 + (uint32_t)random_below(4);
        enum weir_mode mode = (enum weir_mode)random_below(4);
        int label[4];
        bool denied = false;
        for (uint32_t i = 0; i < n; i++) {
            label[i] = (int)random_below(3);
            checks[i] =
                labelled(table, &limit[random_below(15)], key[random_below(8)], labels[label[i]]);
            checks[i].cost = (int64_t)random_below(3);
            checks[i].flags = random_below(4) ? 0 : WEIR_CHECK_PEEK;
        }
        now_ns += (int64_t)random_below(SECOND / 4);
        assert_int_equal(weir_decide(table, checks, n, now_ns, mode, verdicts, NULL), 0);
        for (uint32_t i = 0; i < n; i++)
            denied |= !verdicts[i].allowed;
        for (uint32_t i = 0; i < n; i++) {
            struct weir_stats_counts *counts = &model[label[i]];
            if (mode == WEIR_TEST || mode == WEIR_REFUND)
                continue;
            if (!verdicts[i].allowed) {
                counts->denied++;
            } else if ((!denied || mode == WEIR_EACH) && !checks[i].flags) {
                counts->allowed++;
                counts->near_limit +=
                    10 * (verdicts[i].limit - verdicts[i].remaining) >= 8 * verdicts[i].limit;
            }
        }
    }
    for (int i = 0; i < 3; i++)
        assert_counts(table, labels[i], model[i].allowed, model[i].denied, model[i].near_limit, 0);
    print_message("# %" PRIu64 " allowed, %" PRIu64 " denied, %" PRIu64 " near\n", model[0].allowed,
                  model[0].denied, model[0].near_limit);
    assert_true(model[0].allowed > 100 && model[0].denied > 100 && model[0].near_limit > 10);
    check_sound(table);
    weir_table_close(table);
}

static void test_what_was_decided_elsewhere_is_noted(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_check checks[2] = {labelled(table, &limit, "10.0.0.1", labels[0]),
                                   labelled(table, &limit, "10.0.0.2", labels[1])};
    struct weir_verdict verdicts[2] = {{.allowed = 1, .limit = 10, .remaining = 2},
                                       {.allowed = 1, .limit = 10, .remaining = 3}};
    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(weir_stats_record(table, checks, 2, NOW + i, verdicts, 0), 0);
    assert_counts(table, labels[0], 100, 0, 100, 0);
    assert_counts(table, labels[1], 100, 0, 0, 0);
    verdicts[1].allowed = 0;
    for (int i = 0; i < 10; i++)
        assert_int_equal(weir_stats_record(table, checks, 2, NOW + i, verdicts, i < 3), 0);
    assert_counts(table, labels[0], 100, 0, 100, 0);
    assert_counts(table, labels[1], 100, 7, 0, 3);
    assert_int_equal(top_client_of(table, WEIR_BY_ALLOWED, "10.0.0.1").allowed, 100);
    assert_int_equal(top_client_of(table, WEIR_BY_DENIED, "10.0.0.2").denied, 7);
    assert_int_equal(info_of(table, NOW).keys, 0); /* no counter was changed */
    assert_int_equal(weir_stats_record(table, checks, 0, NOW, verdicts, 0), WEIR_EINVAL);
    assert_int_equal(weir_stats_record(table, checks, 2, -1, verdicts, 0), WEIR_EINVAL);
    check_sound(table);
    weir_table_close(table);
}

/* ------------------------------------------------------------------------------------ processes */

#define WORKERS 6
#define PER_WORKER 20000

struct crowd {
    char uri[300];
    struct weir_limit limit[3];
    _Atomic uint64_t asked[WORKERS], allowed[WORKERS][3], denied[WORKERS][3];
};

static int decide_and_count(void *argument) {
    struct crowd *crowd = argument;
    struct weir_table *table;
    struct weir_verdict verdicts[3];
    char key[16];
    MUST(weir_table_open(crowd->uri, &table, NULL) == 0);
    uint32_t me = 0;
    while (crowd->asked[me]++ != 0)
        me++;
    random_state ^= (uint64_t)me << 32;
    for (int i = 0; i < PER_WORKER; i++) {
        struct weir_check checks[3];
        snprintf(key, sizeof key, "10.0.0.%u", (unsigned)random_below(200));
        for (int j = 0; j < 3; j++) {
            checks[j] = check_of(&crowd->limit[j], key, 1);
            checks[j].client = key;
            checks[j].client_len = checks[j].key_len;
            checks[j].label = PATIENTLY(weir_stats_label(table, labels[j], strlen(labels[j])));
            MUST(checks[j].label > 0 && checks[j].label <= 3);
        }
        struct weir_decision decision;
        MUST(PATIENTLY(weir_decide(table, checks, 3, NOW + i, WEIR_HIT, verdicts, &decision)) == 0);
        for (int j = 0; j < 3; j++)
            if (!verdicts[j].allowed)
                crowd->denied[me][j]++;
            else if (decision.allowed)
                crowd->allowed[me][j]++;
    }
    return 0;
}

static void test_processes_count_the_same_labels_exactly(void **state) {
    struct crowd *crowd = shared_memory(sizeof *crowd);
    pid_t pid[WORKERS];
    (void)state;
    snprintf(crowd->uri, sizeof crowd->uri, "%s", fresh_shm("?keys=1024&hits=200000"));
    struct weir_table *table = open_table(crowd->uri);
    crowd->limit[0] = limit_of(WEIR_FIXED_WINDOW, 500, MINUTE);
    crowd->limit[1] = limit_of(WEIR_TOKEN_BUCKET, 400, MINUTE);
    crowd->limit[2] = limit_of(WEIR_MOVING_WINDOW, 400, MINUTE);
    for (int i = 0; i < WORKERS; i++)
        pid[i] = spawn(decide_and_count, crowd);
    for (int i = 0; i < WORKERS; i++)
        expect_success(pid[i]);
    for (int j = 0; j < 3; j++) {
        uint64_t allowed = 0, denied = 0;
        for (int i = 0; i < WORKERS; i++)
            allowed += crowd->allowed[i][j], denied += crowd->denied[i][j];
        assert_int_equal(counts_of(table, labels[j]).allowed, allowed);
        assert_int_equal(counts_of(table, labels[j]).denied, denied);
        assert_true(allowed > 1000 && (j == 0 || denied > 1000));
    }
    check_sound(table);
    weir_table_close(table);
    weir_table_unlink(crowd->uri, NULL);
    munmap(crowd, sizeof *crowd);
}

struct victims {
    char uri[300];
    struct weir_limit limit;
    _Atomic uint64_t done;
};

/* Uses new labels, limits and clients until it is killed. */
static int scribble(void *argument) {
    struct victims *victims = argument;
    struct weir_table *table;
    struct weir_verdict verdict;
    char key[24], label[24];
    MUST(weir_table_open(victims->uri, &table, NULL) == 0);
    random_state ^= (uint64_t)getpid() << 20;
    for (;;) {
        snprintf(key, sizeof key, "10.%u.0.1", (unsigned)random_below(2000));
        snprintf(label, sizeof label, "label %u", (unsigned)random_below(20));
        struct weir_check check = check_of(&victims->limit, key, 1);
        check.client = key;
        check.client_len = check.key_len;
        check.label = PATIENTLY(weir_stats_label(table, label, strlen(label)));
        MUST(check.label > 0);
        struct weir_limit limit = victims->limit;
        limit.amount = 1 + (int64_t)random_below(30);
        size_t after_len = check.key_len % 3;
        int64_t now_ns = NOW + (int64_t)random_below(MINUTE);
        MUST(PATIENTLY(weir_stats_register(table, &limit, "x", 1, key, after_len)) == 0);
        MUST(PATIENTLY(weir_decide(table, &check, 1, now_ns, WEIR_HIT, &verdict, NULL)) == 0);
        victims->done++;
    }
}

static void kill_victim(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("WEIR_SEED=%" PRIu64 ": a process ended by itself (%#x)", seed, (unsigned)status);
}

/* Fails if a process ends before. */
static void wait_until_done(const struct victims *victims, uint64_t until) {
    while (victims->done < until) {
        assert_int_equal(waitpid(-1, NULL, WNOHANG), 0);
        usleep(50); /* a marked sleep: running processes continue */
    }
}

static void test_a_killed_process_leaves_consistent_statistics(void **state) {
    struct victims *victims = shared_memory(sizeof *victims);
    enum { AT_ONCE = 4, KILLS = 300 };
    pid_t pid[AT_ONCE];
    (void)state;
    snprintf(victims->uri, sizeof victims->uri, "%s", fresh_shm("?keys=8192"));
    struct weir_table *table = open_table(victims->uri);
    victims->limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    for (int i = 0; i < AT_ONCE; i++)
        pid[i] = spawn(scribble, victims);
    for (int i = 0; i < KILLS; i++) {
        uint32_t who = (uint32_t)random_below(AT_ONCE);
        wait_until_done(victims, victims->done + 20 + random_below(200));
        kill_victim(pid[who]);
        pid[who] = spawn(scribble, victims);
        if (i % 20 == 0)
            check_sound(table);
    }
    for (int i = 0; i < AT_ONCE; i++)
        kill_victim(pid[i]);
    check_sound(table);
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    size_t n = WEIR_STATS_LABELS;
    uint64_t sum = 0;
    assert_int_equal(weir_stats_counts(table, counts, &n), 0);
    assert_int_equal(n, 20);
    for (size_t i = 0; i < n; i++)
        sum += counts[i].allowed + counts[i].denied;
    assert_true(sum >= victims->done && sum <= victims->done + KILLS + AT_ONCE);
    n = 0;
    assert_int_equal(weir_stats_registry(table, NULL, &n), 0);
    assert_true(n >= 30 && n <= 90);
    weir_table_close(table);
    weir_table_unlink(victims->uri, NULL);
    munmap(victims, sizeof *victims);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hits_count_under_their_label),
        cmocka_unit_test(test_near_is_eight_tenths_of_any_limit),
        cmocka_unit_test(test_of_several_limits_those_that_denied_count),
        cmocka_unit_test(test_labels_beyond_the_last_are_other),
        cmocka_unit_test(test_labels_have_bounds),
        cmocka_unit_test(test_random_decisions_count_as_a_model_does),
        cmocka_unit_test(test_what_was_decided_elsewhere_is_noted),
        cmocka_unit_test(test_processes_count_the_same_labels_exactly),
        cmocka_unit_test(test_a_killed_process_leaves_consistent_statistics),
    };
    seed_random();
    return cmocka_run_group_tests_name("statistics", tests, NULL, NULL);
}
