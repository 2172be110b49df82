/*
 * The codec for Memcached: names, meta commands, replies, and states that are stepped beside the
 * table.
 */
#include "support.h"
#include "strategy/strategy.h"
#include "weir/memcached.h"

static char next[WEIR_MEMCACHED_VALUE_MAX];

static void name_is(const struct weir_check *check, const char *want) {
    char name[WEIR_MEMCACHED_NAME_MAX];
    int len = weir_memcached_name(check, "weir", 4, name);
    assert_int_equal(len, strlen(want));
    assert_memory_equal(name, want, strlen(want));
}

static void test_names_are_readable_or_hashed(void **state) {
    (void)state;
    char name[WEIR_MEMCACHED_NAME_MAX], other[WEIR_MEMCACHED_NAME_MAX];
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_limit token = limit_of(WEIR_TOKEN_BUCKET, 10, MINUTE), larger = token;
    struct weir_check check = check_of(&limit, "LIMITER/10.1.2.3/view", 1);
    name_is(&check, "weir:fw:{LIMITER/10.1.2.3}/view/10/60/second");
    check = check_of(&limit, "a b", 1);
    int len = weir_memcached_name(&check, "weir", 4, name);
    assert_int_equal(len, 8 + 40);
    assert_memory_equal(name, "weir:fw:", 8);
    for (int i = 8; i < len; i++)
        assert_non_null(strchr("0123456789abcdef", name[i]));
    /* A burst of 2 and a key that begins with 0, and a burst of 20. */
    token.burst = 2;
    larger.burst = 20;
    struct weir_check one = check_of(&token, "0 ", 1), two = check_of(&larger, " ", 1);
    weir_memcached_name(&one, "weir", 4, name);
    weir_memcached_name(&two, "weir", 4, other);
    assert_memory_not_equal(name, other, 48);
    assert_int_equal(weir_memcached_name(&check, "we ir", 5, name), WEIR_EINVAL);
    assert_int_equal(weir_memcached_name(&check, "weir", 65, name), WEIR_EINVAL);
    char *long_key = malloc(WEIR_KEY_MAX);
    memset(long_key, 'x', WEIR_KEY_MAX);
    check.key = long_key;
    check.key_len = WEIR_KEY_MAX;
    assert_int_equal(weir_memcached_name(&check, "weir", 4, name), 48);
    free(long_key);
}

static void command_is(const struct weir_check *check, int what, const char *want) {
    char command[WEIR_MEMCACHED_COMMAND_MAX];
    int len = weir_memcached_command(check, "n", 1, what, 17, NOW, command);
    assert_int_equal(len, strlen(want));
    assert_memory_equal(command, want, strlen(want));
}

/*
 * Memcached takes a minus sign that an earlier item left in memory for a part of a number that is
 * larger.
 */
static void test_numbers_are_below_two_to_the_63(void **state) {
    (void)state;
    for (int power = 0; power < 28; power++)
        for (int i = 0; i < 1000; i++) {
            struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, SECOND << power);
            struct weir_check check = check_of(&limit, "a", 1 + (int64_t)random_below(1 << 24));
            uint64_t number;
            int64_t kept, now_ns = NOW + (int64_t)random_below((uint64_t)limit.period_ns * 8);
            if (!weir_memcached_counts(&limit) || now_ns > WEIR_NOW_MAX)
                continue;
            assert_int_equal(weir_memcached_opened(&check, now_ns, &number, &kept), 0);
            assert_true(number <= INT64_MAX);
        }
}

static void test_commands(void **state) {
    (void)state;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_limit month = limit_of(WEIR_FIXED_WINDOW, 10, 30 * DAY);
    struct weir_limit huge = limit_of(WEIR_FIXED_WINDOW, INT64_MAX, MINUTE);
    struct weir_check check = check_of(&limit, "a", 3), monthly = check_of(&month, "a", 1);
    struct weir_check largest = check_of(&huge, "a", 1);
    char want[WEIR_MEMCACHED_COMMAND_MAX];
    uint64_t first;
    int64_t kept;
    assert_int_equal(weir_memcached_opened(&check, NOW, &first, &kept), 0);
    assert_true(kept == 65 && (first & ((1 << WEIR_MEMCACHED_COUNT_BITS) - 1)) == 3);
    snprintf(want, sizeof want, "ma n N65 J%" PRIu64 " D3 v t c\r\n", first);
    command_is(&check, WEIR_MEMCACHED_HIT, want);
    command_is(&check, WEIR_MEMCACHED_PEEK, "mg n v t c\r\n");
    command_is(&check, WEIR_MEMCACHED_UNDO, "ma n MD D3 C17 v t c\r\n");
    /* A time to live of more than a month is sent as an absolute time. */
    assert_int_equal(weir_memcached_opened(&monthly, NOW, &first, &kept), 0);
    snprintf(want, sizeof want, "ma n N%" PRId64 " J%" PRIu64 " D1 v t c\r\n",
             NOW / SECOND + 30 * DAY / SECOND + 5, first);
    command_is(&monthly, WEIR_MEMCACHED_HIT, want);
    char command[WEIR_MEMCACHED_COMMAND_MAX];
    assert_true(weir_memcached_counts(&limit) && weir_memcached_counts(&month));
    assert_false(weir_memcached_counts(&huge));
    assert_int_equal(weir_memcached_command(&largest, "n", 1, WEIR_MEMCACHED_HIT, 0, NOW, command),
                     WEIR_EINVAL);
    assert_int_equal(weir_memcached_command(&check, "n", 1, 4, 0, NOW, command), WEIR_EINVAL);
    assert_int_equal(weir_memcached_command(&check, "n", 1, WEIR_MEMCACHED_REFUND, 0, NOW, command),
                     WEIR_EINVAL);
    assert_int_equal(weir_memcached_command(&check, "n", 1, 0, 0, -1, command), WEIR_EINVAL);
    assert_int_equal(weir_memcached_command(&check, "a b", 3, 0, 0, NOW, command), WEIR_EINVAL);
}

static void test_replies(void **state) {
    (void)state;
    struct weir_memcached_reply reply;
    const char *value = "VA 3 t59 c1234567890123\r\n12 \r\nMN\r\n";
    size_t len = strlen("VA 3 t59 c1234567890123\r\n12 \r\n");
    for (size_t there = 0; there < len; there++)
        assert_int_equal(weir_memcached_read(value, there, &reply), 0);
    assert_int_equal(weir_memcached_read(value, strlen(value), &reply), 1);
    assert_int_equal(reply.kind, WEIR_MEMCACHED_COUNT);
    assert_int_equal(reply.used, len);
    assert_true(reply.count == 12 && reply.left_s == 59 && reply.cas == UINT64_C(1234567890123));
    assert_int_equal(weir_memcached_read(value + len, 4, &reply), 1);
    assert_int_equal(reply.kind, WEIR_MEMCACHED_END);
    const struct {
        const char *bytes;
        int rc, kind;
    } cases[] = {
        {"EN\r\n", 1, WEIR_MEMCACHED_NONE},
        {"NF\r\n", 1, WEIR_MEMCACHED_NONE},
        {"EX \r\n", 1, WEIR_MEMCACHED_NONE},
        {"HD\r\n", 1, WEIR_MEMCACHED_NONE},
        {"CLIENT_ERROR cannot increment\r\n", 1, WEIR_MEMCACHED_ERROR},
        {"SERVER_ERROR out of memory\r\n", 1, WEIR_MEMCACHED_ERROR},
        {"ERROR\r\n", 1, WEIR_MEMCACHED_ERROR},
        {"VA 5 t59 c1\r\nhello\r\n", WEIR_EFORMAT, 0},
        {"VA 1 t-1 c1\r\n1\r\n", WEIR_EFORMAT, 0}, /* does not expire: not written by Weir */
        {"VA 65 t1 c1\r\n", WEIR_EFORMAT, 0},
        {"VA 1 tx\r\n1\r\n", WEIR_EFORMAT, 0},
        {"VA 20 t1 c1\r\n99999999999999999999\r\n", WEIR_EFORMAT, 0},
        {"STORED\r\n", WEIR_EFORMAT, 0},
        {"\n", WEIR_EFORMAT, 0},
        {"EN\n", WEIR_EFORMAT, 0},
        {"EN\rEN", WEIR_EFORMAT, 0},
        {"EN\r", 0, 0},
        {"HTTP/1.1 400 Bad Request\r\n", WEIR_EFORMAT, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc = weir_memcached_read(cases[i].bytes, strlen(cases[i].bytes), &reply);
        if (rc != cases[i].rc || (rc == 1 && reply.kind != cases[i].kind))
            fail_msg("%s: %d, kind %d", cases[i].bytes, rc, reply.kind);
    }
}

static void test_a_line_of_a_reply_is_bounded(void **state) {
    struct weir_memcached_reply reply;
    char line[2100] = "ERROR ";
    (void)state;
    memset(line + 6, 'a', sizeof line - 6);
    assert_int_equal(weir_memcached_read(line, 2048, &reply), 0);
    assert_int_equal(weir_memcached_read(line, 2049, &reply), WEIR_EFORMAT);
    memcpy(line + 2048, "\r\n", 2);
    assert_int_equal(weir_memcached_read(line, 2049, &reply), 0);
    assert_int_equal(weir_memcached_read(line, 2050, &reply), 1);
    assert_int_equal(reply.error_len, 2048);
    memcpy(line + 2048, "a\r\n", 3);
    assert_int_equal(weir_memcached_read(line, 2051, &reply), WEIR_EFORMAT);
}

static void test_what_a_count_means(void **state) {
    (void)state;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_check check = check_of(&limit, "a", 4);
    struct weir_memcached_reply reply = {
        .kind = WEIR_MEMCACHED_COUNT, .count = 10, .left_ns = 30 * SECOND};
    struct weir_verdict verdict;
    weir_memcached_evaluate(&check, &reply, WEIR_MEMCACHED_HIT, NOW, &verdict);
    assert_true(verdict.allowed && verdict.remaining == 0 && verdict.limit == 10);
    assert_true(verdict.reset_at_ns == NOW + 30 * SECOND && verdict.retry_after_ns == 0);
    reply.count = 13; /* 9 after it is undone */
    weir_memcached_evaluate(&check, &reply, WEIR_MEMCACHED_HIT, NOW, &verdict);
    assert_true(!verdict.allowed && verdict.remaining == 1 &&
                verdict.retry_after_ns == 30 * SECOND);
    reply.count = 7;
    weir_memcached_evaluate(&check, &reply, WEIR_MEMCACHED_PEEK, NOW, &verdict);
    assert_true(!verdict.allowed && verdict.remaining == 3);
    weir_memcached_evaluate(&check, &reply, WEIR_MEMCACHED_REFUND, NOW, &verdict);
    assert_true(verdict.allowed && verdict.remaining == 3);
    reply.kind = WEIR_MEMCACHED_NONE;
    weir_memcached_evaluate(&check, &reply, WEIR_MEMCACHED_PEEK, NOW, &verdict);
    assert_true(verdict.allowed && verdict.remaining == 10 && verdict.reset_at_ns == NOW);
    check.cost = 11;
    weir_memcached_evaluate(&check, &reply, WEIR_MEMCACHED_PEEK, NOW, &verdict);
    assert_true(!verdict.allowed && verdict.retry_after_ns == WEIR_NEVER);
}

/* The time left at `at_ns` of a window that began at `start_ns`; the server reports `left_s`. */
static int64_t left_of(const struct weir_limit *limit, int64_t start_ns, int64_t at_ns,
                       int64_t left_s, uint64_t *hits) {
    struct weir_check check = check_of(limit, "a", 1);
    struct weir_memcached_reply reply = {.kind = WEIR_MEMCACHED_COUNT, .left_s = left_s};
    int64_t kept;
    assert_int_equal(weir_memcached_opened(&check, start_ns, &reply.count, &kept), 0);
    reply.count += 4;
    weir_memcached_window(limit, &reply, at_ns);
    *hits = reply.count;
    return reply.left_ns;
}

static void test_a_window_ends_a_period_after_its_start(void **state) {
    (void)state;
    seed_random();
    static const int64_t periods[] = {SECOND, 2 * SECOND, MINUTE,       60 * MINUTE,
                                      DAY,    30 * DAY,   5 * 360 * DAY};
    for (int i = 0; i < 20000; i++) {
        int64_t period = periods[random_below(7)], error = period / 1000000000 + 100;
        struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, period);
        int64_t start = NOW + (int64_t)random_below((uint64_t)DAY * 10000);
        int64_t age = (int64_t)random_below((uint64_t)period);
        uint64_t hits;
        int64_t left = left_of(&limit, start, start + age, -1, &hits);
        if (left < period - age || left > period - age + error || hits != 5)
            fail_msg("WEIR_SEED=%" PRIu64 ": period %" PRId64 ", age %" PRId64 ", left %" PRId64,
                     seed, period, age, left);
        /* It has ended, however long the item is kept. */
        age = period + error + (int64_t)random_below((uint64_t)(10 * SECOND));
        assert_true(left_of(&limit, start, start + age, -1, &hits) == 0 && hits == 0);
        /* Another host's clock may be behind. */
        left = left_of(&limit, start, start - SECOND, -1, &hits);
        assert_in_range(left, period + SECOND, period + SECOND + error);
    }
}

static void test_the_server_corrects_a_wrong_clock(void **state) {
    (void)state;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    uint64_t hits;
    /* The item of a minute lives 65 s; 25 of them are left, so 20 of the window, give or take 3. */
    assert_true(left_of(&limit, NOW, NOW + 40 * SECOND, 25, &hits) / 1000 == 20 * SECOND / 1000);
    int64_t ahead = left_of(&limit, NOW, NOW + 55 * SECOND, 25, &hits);
    int64_t behind = left_of(&limit, NOW, NOW - MINUTE, 25, &hits);
    assert_true(ahead == 23 * SECOND && behind == 23 * SECOND && hits == 5);
    assert_true(left_of(&limit, NOW, NOW - MINUTE, 2, &hits) == 0);
    assert_true(left_of(&limit, NOW, NOW + 59 * SECOND, 5, &hits) / 1000 == SECOND / 1000);
}

static void test_a_plain_number_is_no_window(void **state) {
    (void)state;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_memcached_reply reply = {.kind = WEIR_MEMCACHED_COUNT, .count = 10, .left_s = 30};
    weir_memcached_window(&limit, &reply, NOW);
    assert_true(reply.count == 0 && reply.left_ns == 0);
}

/* --------------------------------------------------------------------------------------- states */

static struct weir_limit draw_limit(int strategy) {
    static const int64_t amounts[] = {0, 1, 2, 3, 7, 10, 100, 1000, 1000000, INT64_MAX};
    static const int64_t periods[] = {SECOND, 2 * SECOND, MINUTE, 60 * MINUTE, DAY, 7 * DAY};
    struct weir_limit limit =
        limit_of(strategy, amounts[random_below(10)], periods[random_below(6)]);
    if (strategy == WEIR_TOKEN_BUCKET && random_below(2))
        limit.burst = 1 + (int64_t)random_below(100);
    limit.max_delay_ns = (int64_t)random_below((uint64_t)limit.period_ns);
    return limit;
}

static int64_t draw_step(const struct weir_limit *limit) {
    uint64_t period = (uint64_t)limit->period_ns, kind = random_below(100);
    return kind < 30   ? 0
           : kind < 60 ? (int64_t)random_below(SECOND)
           : kind < 80 ? (int64_t)random_below(period / 20)
           : kind < 88 ? (int64_t)random_below(2 * period)
           : kind < 94 ? -(int64_t)random_below(SECOND / 5)
                       : -(int64_t)random_below(period);
}

static void run(int strategy) {
    char value[1 << 16];
    size_t len = 0;
    struct weir_limit limit = draw_limit(strategy);
    struct weir_table *table = open_table("memory://?keys=64");
    int64_t now_ns = NOW, most = limit.amount;
    const int64_t costs[] = {0, 1, 1, 1, 2, 3, most / 2, most, most < INT64_MAX ? most + 1 : most};
    for (uint64_t i = 1 + random_below(80); i > 0; i--) {
        struct weir_check check = check_of(&limit, "k", costs[random_below(9)]);
        struct weir_verdict local, kept;
        size_t next_len;
        int64_t expires_s;
        int changed, mode = random_below(6) ? WEIR_HIT : (int)(1 + random_below(3));
        now_ns += draw_step(&limit);
        assert_int_equal(weir_decide(table, &check, 1, now_ns, (enum weir_mode)mode, &local, NULL),
                         0);
        assert_int_equal(weir_memcached_step(&check, len ? value : NULL, len, now_ns,
                                             (enum weir_mode)mode, &kept, next, &next_len,
                                             &expires_s, &changed),
                         0);
        if (memcmp(&local, &kept, sizeof local))
            fail_msg("WEIR_SEED=%" PRIu64 ": %s, mode %d, cost %lld", seed,
                     weir_strategy_name(strategy), mode, (long long)check.cost);
        assert_true(mode != WEIR_TEST || !changed);
        assert_in_range(expires_s, 1, 3 * limit.period_ns / SECOND * 100 + 6);
        if (changed) {
            assert_in_range(next_len, 0, sizeof value);
            memcpy(value, next, next_len);
            len = next_len;
        }
    }
    weir_table_close(table);
}

static void test_kept_states_decide_as_the_table_does(void **state) {
    (void)state;
    seed_random();
    for (int i = 0; i < 3000; i++) {
        run((int)random_below(WEIR_STRATEGIES));
        run(WEIR_MOVING_WINDOW);
    }
}

static void test_a_strange_value_is_refused(void **state) {
    (void)state;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE), moving = limit;
    moving.strategy = WEIR_MOVING_WINDOW;
    struct weir_verdict verdict;
    size_t next_len;
    int64_t expires_s;
    int changed;
    static const char zeros[64];
    const struct {
        const char *value;
        size_t len;
    } cases[] = {{"", 0},     {"hello", 5}, {"W1", 2},  {"W1\0", 3},
                 {"W1\1", 3}, {"12", 2},    {zeros, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int m = 0; m < 2; m++) {
            struct weir_check check = check_of(m ? &moving : &limit, "a", 1);
            assert_int_equal(weir_memcached_step(&check, cases[i].value, cases[i].len, NOW,
                                                 WEIR_HIT, &verdict, next, &next_len, &expires_s,
                                                 &changed),
                             WEIR_EFORMAT);
        }
}

static void test_a_damaged_value_is_refused_or_used_within_bounds(void **state) {
    (void)state;
    for (int strategy = 0; strategy < WEIR_STRATEGIES; strategy++) {
        struct weir_limit limit = limit_of(strategy, 10, MINUTE);
        struct weir_check check = check_of(&limit, "a", 1);
        struct weir_verdict verdict;
        char value[256];
        size_t len = 0, next_len;
        int64_t expires_s;
        int changed;
        for (int i = 0; i < 5; i++) {
            assert_int_equal(weir_memcached_step(&check, len ? value : NULL, len,
                                                 NOW + i * 12 * SECOND, WEIR_HIT, &verdict, next,
                                                 &next_len, &expires_s, &changed),
                             0);
            memcpy(value, next, len = next_len);
        }
        for (size_t bit = 0; bit < len * 8; bit++) {
            value[bit / 8] = (char)(value[bit / 8] ^ 1 << bit % 8);
            for (int mode = WEIR_HIT; mode <= WEIR_REFUND; mode++) {
                int rc = weir_memcached_step(&check, value, len, NOW + MINUTE, (enum weir_mode)mode,
                                             &verdict, next, &next_len, &expires_s, &changed);
                assert_true(rc == 0 || rc == WEIR_EFORMAT);
                if (rc == 0)
                    assert_true(verdict.remaining >= 0 && verdict.remaining <= 10 &&
                                verdict.retry_after_ns >= 0 && verdict.reset_at_ns >= 0);
            }
            value[bit / 8] = (char)(value[bit / 8] ^ 1 << bit % 8);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_readable_or_hashed),
        cmocka_unit_test(test_numbers_are_below_two_to_the_63),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_a_line_of_a_reply_is_bounded),
        cmocka_unit_test(test_what_a_count_means),
        cmocka_unit_test(test_a_window_ends_a_period_after_its_start),
        cmocka_unit_test(test_the_server_corrects_a_wrong_clock),
        cmocka_unit_test(test_a_plain_number_is_no_window),
        cmocka_unit_test(test_kept_states_decide_as_the_table_does),
        cmocka_unit_test(test_a_strange_value_is_refused),
        cmocka_unit_test(test_a_damaged_value_is_refused_or_used_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
