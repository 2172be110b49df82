/*
 * The moving window's log by itself: tests write nothing, an empty pool, damage, verification, and
 * what a request and a key cost.
 */
#include "strategy_key.h"

static void long_log(struct key *key, uint32_t lines, int64_t amount, int64_t period_ns,
                     int64_t hits) {
    struct weir_verdict verdict;
    *key = (struct key){.limit = {.amount = amount,
                                  .period_ns = period_ns,
                                  .multiples = 1,
                                  .strategy = WEIR_MOVING_WINDOW}};
    pool_init(&key->pool, lines);
    for (int64_t i = 0; i < hits; i++)
        assert_int_equal(apply(key, HIT, i * (period_ns / amount), 1, &verdict), 0);
}

static void test_a_test_writes_nothing(void **state) {
    (void)state;
    struct key key;
    struct weir_verdict verdict;
    const uint32_t lines = 4096;
    const int64_t period = 3600 * SECOND, end = period / 9000 * 9000;
    long_log(&key, lines, 9000, period, 9000);
    struct weir_line *before = malloc(lines * sizeof *before);
    memcpy(before, key.pool.line, lines * sizeof *before);
    for (int64_t now = 1; now < 3 * period; now += period / 50) /* between hits, and on them */
        for (int64_t cost = 0; cost <= 9001; cost += 1 + cost * 3) {
            assert_int_equal(apply(&key, TEST, now - cost % 2, cost, &verdict), 0);
            assert_false(key.pool.lines.locked || key.pool.lines.changed);
        }
    assert_int_equal(apply(&key, TEST, end - 1, 9000, &verdict), 0);
    assert_memory_equal(before, key.pool.line, lines * sizeof *before);
    free(before);
    pool_free(&key.pool);
}

/* The second check sees the pending changes of the first: links that are not yet in the pool. */
static void test_two_checks_of_one_key_in_one_decision(void **state) {
    (void)state;
    struct key key;
    struct weir_verdict verdict;
    long_log(&key, 1024, 1000, 1000 * SECOND, 1000);
    struct weir_step step = {.limit = &key.limit,
                             .now_ns = 1400 * SECOND,
                             .cost = 1,
                             .charge = true,
                             .lines = &key.pool.lines};
    pool_begin(&key.pool);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(weir_moving_window_step(&key.state, &step, &verdict), 0);
        assert_int_equal(verdict.remaining, 1000 - 599 - i - 1);
        step.now_ns += i % 2 ? 40 * SECOND / 1000 : 0;
    }
    pool_commit(&key.pool);
    assert_true(pool_is_whole(&key));
    pool_free(&key.pool);
}

static void test_an_empty_pool_is_an_error_that_charges_nothing(void **state) {
    (void)state;
    struct key key;
    struct weir_verdict verdict;
    long_log(&key, 4, 1000000, 1000 * SECOND, 1);
    int64_t now = 0, hits = 1;
    while (apply(&key, HIT, ++now, 1, &verdict) == 0)
        hits++;
    assert_int_equal(apply(&key, HIT, now, 1, &verdict), WEIR_EFULL);
    assert_int_equal(hits, 3 * WEIR_LINE_BYTES + 1); /* steps of one ns: one byte each */
    assert_true(pool_is_whole(&key));
    assert_int_equal(apply(&key, TEST, now, 0, &verdict), 0);
    assert_int_equal(verdict.remaining, 1000000 - hits);
    assert_int_equal(apply(&key, HIT, now + 1001 * SECOND, 1, &verdict), 0);
    pool_free(&key.pool);
}

/*
 * Any byte of the state or the pool is wrong: the result is an error or a wrong count, never an
 * access out of bounds or an endless loop.
 */
static void test_a_damaged_log_is_safe(void **state) {
    (void)state;
    struct key key, broken;
    struct weir_verdict verdict;
    const uint32_t lines = 512;
    random_state = seed;
    long_log(&key, lines, 3000, 3000 * SECOND, 4000);
    struct weir_line *whole = malloc(lines * sizeof *whole);
    memcpy(whole, key.pool.line, lines * sizeof *whole);
    int refused = 0;
    for (int i = 0; i < 100000; i++) {
        broken = key;
        memcpy(broken.pool.line, whole, lines * sizeof *whole);
        for (int64_t flips = 1 + below(3); flips > 0; flips--) {
            uint8_t *bytes = one_in(2) ? (uint8_t *)&broken.state : (uint8_t *)broken.pool.line;
            int64_t size =
                bytes == (uint8_t *)&broken.state ? 44 : (int64_t)(lines * sizeof *whole);
            bytes[below(size)] = (uint8_t)(one_in(2) ? random_bits() : one_in(2) ? 0 : 255);
        }
        if (one_in(2)) { /* a circle of lines without a record */
            uint32_t line = (uint32_t)(1 + below(lines - 1)),
                     back = (uint32_t)(1 + below(lines - 1));
            broken.pool.line[line].next = one_in(2) ? line : back;
            broken.pool.line[back].next = line;
        }
        for (int64_t j = 0; j < 4; j++) {
            int64_t now = below(8000) * SECOND, cost = below(4000);
            int rc = apply(&broken, (enum op)below(4), now, cost, &verdict);
            assert_true(rc == 0 || rc == WEIR_ECORRUPT || rc == WEIR_EFULL);
            refused += rc == WEIR_ECORRUPT;
        }
        uint8_t seen[512 / 8 + 1] = {0};
        pool_begin(&broken.pool);
        weir_log_verify(&broken.state, &broken.pool.lines, seen);
        weir_log_drop(&broken.state, &broken.pool.lines);
    }
    assert_true(refused > 1000);
    free(whole);
    pool_free(&key.pool);
}

static int verify(struct key *key) {
    uint8_t seen[512 / 8] = {0};
    pool_begin(&key->pool);
    return weir_log_verify(&key->state, &key->pool.lines, seen);
}

static void test_verification_finds_what_is_wrong(void **state) {
    (void)state;
    struct key key;
    long_log(&key, 512, 3000, 3000 * SECOND, 4000);
    const struct weir_state whole = key.state;
    assert_int_equal(verify(&key), 0);
    for (int i = 0; i < 3; i++) { /* total, oldest, open; head, tail, index */
        key.state.word[i]++;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        key.state = whole;
        key.state.line[i]++;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        key.state = whole;
        key.state.line[i] ^= UINT32_C(1) << WEIR_LINE_BITS;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        key.state = whole;
    }
    key.state.expires_ns = 1;
    assert_int_equal(verify(&key), WEIR_ECORRUPT);
    key.state = whole;
    struct weir_line *index = &key.pool.line[whole.line[2] & WEIR_LINE_MASK];
    for (int byte = 0; byte < 52; byte++) { /* every byte of an index line */
        index->bytes[byte] ^= 1;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        index->bytes[byte] ^= 1;
    }
    /*
     * A step before an index line. Verification could detect a wrong step after the newest index
     * line only with the period.
     */
    uint8_t *record = &key.pool.line[whole.line[0] & WEIR_LINE_MASK].bytes[55];
    *record ^= 1;
    assert_int_equal(verify(&key), WEIR_ECORRUPT);
    *record ^= 1;
    assert_int_equal(verify(&key), 0);
    pool_free(&key.pool);
}

/* CPU time of this process, so other processes do not matter. */
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ns per request of each kind on a full log of `amount` hits, best of five rounds. */
struct costs {
    double hit, peek, denied;
    double bytes; /* per hit */
};

static void measure(int64_t amount, struct costs *costs) {
    struct key key;
    struct weir_verdict verdict;
    const int64_t period = 86400 * SECOND, pace = period / amount;
    const int rounds = 5, many = 20000;
    double best[3] = {1e9, 1e9, 1e9};
    long_log(&key, (uint32_t)(amount / 8) + 64, amount, period, amount);
    costs->bytes = (double)(key.pool.total - 1 - key.pool.free_count) * 64 / (double)amount;
    int64_t now = amount * pace;
    for (int round = 0; round < rounds; round++) {
        double start = seconds();
        for (int i = 0; i < many; i++, now += pace)
            apply(&key, HIT, now, 1, &verdict);
        double hit = (seconds() - start) / many * 1e9;
        assert_true(verdict.allowed && verdict.remaining <= 1);
        start = seconds();
        for (int i = 0; i < many; i++)
            apply(&key, TEST, now + period / 2 + i, amount / 4, &verdict);
        double peek = (seconds() - start) / many * 1e9;
        assert_true(verdict.allowed);
        start = seconds();
        for (int i = 0; i < many; i++)
            apply(&key, HIT, now - pace, amount / 2 + i % (int)(amount / 4), &verdict);
        double denied = (seconds() - start) / many * 1e9;
        assert_true(!verdict.allowed);
        double found[3] = {hit, peek, denied};
        for (int i = 0; i < 3; i++)
            best[i] = found[i] < best[i] ? found[i] : best[i];
    }
    costs->hit = best[0];
    costs->peek = best[1];
    costs->denied = best[2];
    pool_free(&key.pool);
}

/*
 * A linear search of a million would take milliseconds. The bound is loose because of sanitizers
 * and other processes.
 */
static void test_a_full_log_of_a_million_is_as_fast_as_one_of_ten(void **state) {
    (void)state;
    struct costs small, large;
    measure(10, &small);
    measure(1000000, &large);
    print_message("log of        10: hit %4.0f ns, half expired %5.0f ns, denied cost %5.0f ns\n",
                  small.hit, small.peek, small.denied);
    print_message("log of 1,000,000: hit %4.0f ns, half expired %5.0f ns, denied cost %5.0f ns, "
                  "%.2f bytes a hit\n",
                  large.hit, large.peek, large.denied, large.bytes);
    assert_true(large.hit < 4 * small.hit + 100);
    assert_true(large.peek < 100 * small.peek + 2000);
    assert_true(large.denied < 100 * small.denied + 2000);
    assert_true(large.bytes < 5);
}

static void test_a_log_of_100_hits_is_small(void **state) {
    (void)state;
    struct key key;
    long_log(&key, 64, 100, 60 * SECOND, 100);
    assert_in_range(key.pool.total - 1 - key.pool.free_count, 5, 9); /* lines of 64 bytes */
    pool_free(&key.pool);
}

int main(void) {
    seed_runs();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_test_writes_nothing),
        cmocka_unit_test(test_two_checks_of_one_key_in_one_decision),
        cmocka_unit_test(test_an_empty_pool_is_an_error_that_charges_nothing),
        cmocka_unit_test(test_a_damaged_log_is_safe),
        cmocka_unit_test(test_verification_finds_what_is_wrong),
        cmocka_unit_test(test_a_full_log_of_a_million_is_as_fast_as_one_of_ten),
        cmocka_unit_test(test_a_log_of_100_hits_is_small),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
