/*
 * Decisions over several limits, and that a test changes nothing, in a table of each backing.
 */
#include "backings.h"

#include "table/cell.h"
#include "table/hash.h"

/* ------------------------------------------------------------------------------------ decisions */

static void test_admits_exactly_the_amount(void **state) {
    for (int strategy = 0; strategy < WEIR_STRATEGIES; strategy++) {
        struct weir_limit limit = limit_of(strategy, 10, MINUTE);
        int admitted = 0;
        for (int i = 0; i < 15; i++)
            admitted += hit(table_of(state), &limit, "k", NOW);
        /* a leaky bucket admits one and lets none wait: max_delay is 0 here */
        assert_int_equal(admitted, strategy == WEIR_LEAKY_BUCKET ? 1 : 10);
    }
}

static void test_limits_of_one_key_count_apart(void **state) {
    struct weir_limit limits[] = {
        limit_of(WEIR_FIXED_WINDOW, 3, MINUTE),
        limit_of(WEIR_FIXED_WINDOW, 4, MINUTE),
        limit_of(WEIR_FIXED_WINDOW, 3, DAY),
        limit_of(WEIR_MOVING_WINDOW, 3, MINUTE),
        limit_of(WEIR_TOKEN_BUCKET, 3, MINUTE),
        limit_of(WEIR_TOKEN_BUCKET, 3, MINUTE),
        limit_of(WEIR_SLIDING_WINDOW_COUNTER, 3, MINUTE),
    };
    limits[5].burst = 5;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        int admitted = 0;
        for (int hits = 0; hits < 9; hits++)
            admitted += hit(table_of(state), &limits[i], "k", NOW);
        assert_int_equal(admitted, limits[i].burst ? limits[i].burst : limits[i].amount);
    }
}

/* Three limits of one key; the middle one is used up. */
struct trio {
    struct weir_limit limit[3];
    struct weir_check check[3];
    struct weir_verdict verdict[3];
    struct weir_decision decision;
};

static void make_trio(struct trio *trio, struct weir_table *table) {
    trio->limit[0] = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    trio->limit[1] = limit_of(WEIR_MOVING_WINDOW, 2, 2 * MINUTE);
    trio->limit[2] = limit_of(WEIR_TOKEN_BUCKET, 5, SECOND);
    for (int i = 0; i < 3; i++)
        trio->check[i] = check_of(&trio->limit[i], "k", 1);
    for (int i = 0; i < 2; i++)
        assert_true(hit(table, &trio->limit[1], "k", NOW));
}

static void decide_trio(struct trio *trio, struct weir_table *table, enum weir_mode mode) {
    assert_int_equal(weir_decide(table, trio->check, 3, NOW, mode, trio->verdict, &trio->decision),
                     0);
}

static void test_one_denial_charges_none(void **state) {
    struct trio trio;
    make_trio(&trio, table_of(state));
    for (int i = 0; i < 20; i++) {
        decide_trio(&trio, table_of(state), WEIR_HIT);
        assert_int_equal(trio.decision.allowed, 0);
        assert_int_equal(trio.decision.deciding, 1);
        assert_int_equal(trio.verdict[0].allowed, 1);
        assert_int_equal(trio.verdict[0].remaining, 10);
        assert_int_equal(trio.verdict[0].reset_at_ns, NOW);
        assert_int_equal(trio.verdict[1].allowed, 0);
        assert_int_equal(trio.verdict[1].retry_after_ns, 2 * MINUTE);
        assert_int_equal(trio.verdict[2].remaining, 5);
    }
    assert_int_equal(info_of(table_of(state), NOW).keys, 1);
}

static void test_each_charges_those_that_have_room(void **state) {
    struct trio trio;
    make_trio(&trio, table_of(state));
    decide_trio(&trio, table_of(state), WEIR_EACH);
    assert_int_equal(trio.decision.allowed, 0);
    assert_int_equal(trio.decision.deciding, 1);
    assert_int_equal(remaining(table_of(state), &trio.limit[0], "k", NOW), 9);
    assert_int_equal(remaining(table_of(state), &trio.limit[1], "k", NOW), 0);
    assert_int_equal(remaining(table_of(state), &trio.limit[2], "k", NOW), 4);
}

static void test_refund_gives_back_never_above_full(void **state) {
    struct trio trio;
    make_trio(&trio, table_of(state));
    trio.check[0].cost = 7;
    trio.check[1].cost = 1;
    trio.check[2].cost = INT64_MAX;
    decide_trio(&trio, table_of(state), WEIR_REFUND);
    assert_int_equal(trio.decision.allowed, 1);
    assert_int_equal(trio.verdict[0].remaining, 10);
    assert_int_equal(trio.verdict[1].remaining, 1);
    assert_int_equal(trio.verdict[2].remaining, 5);
    decide_trio(&trio, table_of(state), WEIR_REFUND);
    assert_int_equal(trio.verdict[1].remaining, 2);
    assert_int_equal(info_of(table_of(state), NOW).keys, 0);
    assert_int_equal(info_of(table_of(state), NOW).lines_used, 0);
}

static void test_of_those_that_deny_the_furthest_decides(void **state) {
    struct weir_limit limits[] = {limit_of(WEIR_FIXED_WINDOW, 1, SECOND),
                                  limit_of(WEIR_FIXED_WINDOW, 1, DAY),
                                  limit_of(WEIR_FIXED_WINDOW, 1, MINUTE)};
    struct weir_check checks[3];
    struct weir_verdict verdicts[3];
    struct weir_decision decision;
    for (int i = 0; i < 3; i++)
        checks[i] = check_of(&limits[i], "k", 1);
    assert_int_equal(weir_decide(table_of(state), checks, 3, NOW, WEIR_HIT, verdicts, &decision),
                     0);
    assert_int_equal(decision.allowed, 1);
    assert_int_equal(decision.deciding, 0); /* all allowed: the shortest period */
    assert_int_equal(weir_decide(table_of(state), checks, 3, NOW, WEIR_HIT, verdicts, &decision),
                     0);
    assert_int_equal(decision.allowed, 0);
    assert_int_equal(decision.deciding, 1);
    checks[2].cost = 2; /* never */
    assert_int_equal(weir_decide(table_of(state), checks, 3, NOW, WEIR_HIT, verdicts, &decision),
                     0);
    assert_int_equal(decision.deciding, 2);
    assert_true(verdicts[2].retry_after_ns == WEIR_NEVER);
}

static void test_two_checks_of_one_key_are_charged_one_after_the_other(void **state) {
    for (int strategy = 0; strategy < WEIR_LEAKY_BUCKET; strategy++) {
        struct weir_limit limit = limit_of(strategy, 5, MINUTE);
        struct weir_check checks[2] = {check_of(&limit, "twice", 2), check_of(&limit, "twice", 2)};
        struct weir_verdict verdicts[2];
        struct weir_decision decision;
        for (int i = 0; i < 2; i++) { /* a test first: it charges nothing */
            assert_int_equal(weir_decide(table_of(state), checks, 2, NOW, i ? WEIR_HIT : WEIR_TEST,
                                         verdicts, &decision),
                             0);
            assert_int_equal(decision.allowed, 1);
        }
        assert_int_equal(verdicts[0].remaining, 3);
        assert_int_equal(verdicts[1].remaining, 1);
        assert_int_equal(remaining(table_of(state), &limit, "twice", NOW), 1);
        checks[0].cost = checks[1].cost = 1; /* each would fit, both do not */
        for (int i = 0; i < 2; i++) {
            assert_int_equal(weir_decide(table_of(state), checks, 2, NOW, i ? WEIR_HIT : WEIR_TEST,
                                         verdicts, &decision),
                             0);
            assert_int_equal(decision.allowed, 0);
            assert_int_equal(decision.deciding, 1);
            assert_int_equal(verdicts[0].allowed, 1);
        }
        assert_int_equal(remaining(table_of(state), &limit, "twice", NOW), 1);
    }
}

static void test_as_many_limits_as_there_may_be(void **state) {
    struct weir_limit limits[WEIR_CHECKS_MAX + 1];
    struct weir_check checks[WEIR_CHECKS_MAX + 1];
    struct weir_verdict verdicts[WEIR_CHECKS_MAX + 1];
    struct weir_decision decision;
    for (int i = 0; i <= WEIR_CHECKS_MAX; i++) {
        limits[i] = limit_of(i % WEIR_LEAKY_BUCKET, 3, (i + 1) * MINUTE);
        checks[i] = check_of(&limits[i], "many", 1);
    }
    for (int round = 0; round < 5; round++) {
        assert_int_equal(weir_decide(table_of(state), checks, WEIR_CHECKS_MAX, NOW + round,
                                     WEIR_HIT, verdicts, &decision),
                         0);
        assert_int_equal(decision.allowed, round < 3);
    }
    assert_int_equal(info_of(table_of(state), NOW).keys, WEIR_CHECKS_MAX);
    assert_int_equal(weir_decide(table_of(state), checks, WEIR_CHECKS_MAX + 1, NOW, WEIR_HIT,
                                 verdicts, &decision),
                     WEIR_ETOOMANY);
}

static void test_cost_above_the_amount_is_denied_for_ever(void **state) {
    for (int strategy = 0; strategy < WEIR_STRATEGIES; strategy++) {
        struct weir_limit limit = limit_of(strategy, 10, MINUTE);
        struct weir_verdict verdict = decide_cost(table_of(state), &limit, "k", 11, NOW, WEIR_HIT);
        assert_int_equal(verdict.allowed, 0);
        assert_true(verdict.retry_after_ns == WEIR_NEVER);
        assert_int_equal(info_of(table_of(state), NOW).keys, 0);
        verdict = decide_cost(table_of(state), &limit, "k", 0, NOW, WEIR_HIT);
        assert_int_equal(verdict.allowed, 1);
        assert_int_equal(info_of(table_of(state), NOW).keys, 0);
    }
}

static void test_largest_amounts_do_not_overflow(void **state) {
    for (int strategy = 0; strategy < WEIR_STRATEGIES; strategy++) {
        struct weir_limit limit = limit_of(strategy, INT64_MAX, WEIR_PERIOD_MAX_NS);
        int64_t now_ns = strategy % 2 ? WEIR_NOW_MAX : 0;
        struct weir_verdict verdict =
            decide_cost(table_of(state), &limit, "huge", INT64_MAX - 1, now_ns, WEIR_HIT);
        assert_int_equal(verdict.allowed, 1);
        if (strategy == WEIR_LEAKY_BUCKET)
            continue;
        assert_int_equal(verdict.remaining, 1);
        assert_true(hit(table_of(state), &limit, "huge", now_ns));
        assert_false(hit(table_of(state), &limit, "huge", now_ns));
        assert_int_equal(
            decide_cost(table_of(state), &limit, "huge", INT64_MAX, now_ns, WEIR_REFUND).remaining,
            INT64_MAX);
    }
}

static void test_arguments_out_of_range_are_refused(void **state) {
    struct weir_table *table = table_of(state);
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 1, MINUTE), bad;
    struct weir_check check = check_of(&limit, "k", 1), wrong;
    struct weir_verdict verdict;
    assert_int_equal(weir_decide(NULL, &check, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    assert_int_equal(weir_decide(table, NULL, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    assert_int_equal(weir_decide(table, &check, 0, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    assert_int_equal(weir_decide(table, &check, 1, -1, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    assert_int_equal(weir_decide(table, &check, 1, WEIR_NOW_MAX + 1, WEIR_HIT, &verdict, NULL),
                     WEIR_EINVAL);
    assert_int_equal(weir_decide(table, &check, 1, NOW, (enum weir_mode)4, &verdict, NULL),
                     WEIR_EINVAL);
    assert_int_equal(weir_decide(table, &check, 1, NOW, WEIR_HIT, NULL, NULL), WEIR_EINVAL);
    wrong = check, wrong.cost = -1;
    assert_int_equal(weir_decide(table, &wrong, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    wrong = check, wrong.key = NULL;
    assert_int_equal(weir_decide(table, &wrong, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    wrong = check, wrong.limit = NULL;
    assert_int_equal(weir_decide(table, &wrong, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
    wrong = check, wrong.limit = &bad;
    for (int i = 0; i < 7; i++) {
        bad = limit;
        i == 0   ? (bad.amount = -1)
        : i == 1 ? (bad.period_ns = 0)
        : i == 2 ? (bad.period_ns = WEIR_PERIOD_MAX_NS + 1)
        : i == 3 ? (bad.burst = -1)
        : i == 4 ? (bad.max_delay_ns = -1)
        : i == 5 ? (bad.strategy = -1)
                 : (bad.strategy = WEIR_STRATEGIES);
        assert_int_equal(weir_decide(table, &wrong, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EINVAL);
        assert_int_equal(weir_clear(table, &wrong, 1), WEIR_EINVAL);
    }
    assert_int_equal(info_of(table, NOW).keys, 0);
}

/* ---------------------------------------------------------------------------------------- tests */

static void test_a_test_changes_not_one_byte(void **state) {
    struct weir_table *table = table_of(state);
    struct weir_limit limits[WEIR_STRATEGIES], unseen = limit_of(WEIR_MOVING_WINDOW, 7, SECOND);
    struct weir_check checks[WEIR_STRATEGIES + 1];
    struct weir_verdict verdicts[WEIR_STRATEGIES + 1];
    for (int i = 0; i < WEIR_STRATEGIES; i++) {
        limits[i] = limit_of(i, 40, MINUTE);
        checks[i] = check_of(&limits[i], "k", 1);
        for (int j = 0; j < 50; j++) /* some denied; the moving window's log has several lines */
            hit(table, &limits[i], "k", NOW + j * SECOND);
    }
    checks[WEIR_STRATEGIES] = check_of(&unseen, "unseen", 1);
    check_sound(table); /* takes each lock once: glibc notes the first time */
    unsigned char *before = malloc(table->bytes);
    assert_non_null(before);
    memcpy(before, table->header, table->bytes);
    /* now, much later, after everything has expired, and before the first hit */
    const int64_t times[] = {NOW + 50 * SECOND, NOW + 75 * SECOND, NOW + DAY, NOW - DAY, 0};
    for (size_t t = 0; t < sizeof times / sizeof times[0]; t++) {
        for (int64_t cost = 0; cost <= 41; cost += 41) {
            for (int i = 0; i <= WEIR_STRATEGIES; i++) {
                checks[i].cost = cost;
                assert_int_equal(
                    weir_decide(table, &checks[i], 1, times[t], WEIR_TEST, verdicts, NULL), 0);
            }
            assert_int_equal(weir_decide(table, checks, WEIR_STRATEGIES + 1, times[t], WEIR_TEST,
                                         verdicts, NULL),
                             0);
        }
        for (size_t at = 0; at < table->bytes; at++)
            if (((unsigned char *)table->header)[at] != before[at])
                fail_msg("byte %zu changed, at time %zu", at, t);
    }
    free(before);
}

static void test_a_test_answers_as_the_hit_that_follows(void **state) {
    for (int strategy = 0; strategy < WEIR_STRATEGIES; strategy++) {
        struct weir_limit limit = limit_of(strategy, 5, MINUTE);
        for (int i = 0; i < 200; i++) {
            int64_t now_ns = NOW + (int64_t)random_below(10) * 7 * SECOND + i * 5 * SECOND;
            int64_t cost = (int64_t)random_below(4);
            struct weir_verdict test =
                decide_cost(table_of(state), &limit, "k", cost, now_ns, WEIR_TEST);
            struct weir_verdict real =
                decide_cost(table_of(state), &limit, "k", cost, now_ns, WEIR_HIT);
            assert_int_equal(test.allowed, real.allowed);
            assert_int_equal(test.retry_after_ns, real.retry_after_ns);
            assert_int_equal(test.delay_ns, real.delay_ns);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_BACKING(test_admits_exactly_the_amount),
        ON_EACH_BACKING(test_limits_of_one_key_count_apart),
        ON_EACH_BACKING(test_one_denial_charges_none),
        ON_EACH_BACKING(test_each_charges_those_that_have_room),
        ON_EACH_BACKING(test_refund_gives_back_never_above_full),
        ON_EACH_BACKING(test_of_those_that_deny_the_furthest_decides),
        ON_EACH_BACKING(test_two_checks_of_one_key_are_charged_one_after_the_other),
        ON_EACH_BACKING(test_as_many_limits_as_there_may_be),
        ON_EACH_BACKING(test_cost_above_the_amount_is_denied_for_ever),
        ON_EACH_BACKING(test_largest_amounts_do_not_overflow),
        ON_EACH_BACKING(test_arguments_out_of_range_are_refused),
        ON_EACH_BACKING(test_a_test_changes_not_one_byte),
        ON_EACH_BACKING(test_a_test_answers_as_the_hit_that_follows),
    };
    seed_random();
    return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
