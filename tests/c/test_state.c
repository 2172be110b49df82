/*
 * Decisions over packed states beside those of a table: several limits, every strategy and mode,
 * counters that checks share, checks that only peek. Values and buffers are allocated with their
 * exact size, so that sanitizers detect accesses beyond them; damaged values are refused, or used
 * within bounds.
 */
#include "support.h"
#include "strategy/strategy.h"
#include "weir/state.h"

#define COUNTERS 12

/* The values that a store would keep, by name. */
static struct kept {
    char name[WEIR_STATE_NAME_MAX];
    int name_len;
    char *value;
    size_t len;
} kept[COUNTERS * 4];

static struct kept *find(const struct weir_check *check) {
    char name[WEIR_STATE_NAME_MAX];
    int len = weir_state_name(check, "weir", 4, name);
    assert_true(len > 0);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        if (kept[i].name_len == 0) {
            kept[i].name_len = len;
            memcpy(kept[i].name, name, (size_t)len);
        }
        if (kept[i].name_len == len && !memcmp(kept[i].name, name, (size_t)len))
            return &kept[i];
    }
    fail_msg("more names than counters");
    return NULL;
}

static void clear_all(void) {
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        free(kept[i].value);
    memset(kept, 0, sizeof kept);
}

/* Reads, decides and writes, as a store does. */
static int decide(const struct weir_check *checks, size_t n, int64_t now_ns, enum weir_mode mode,
                  struct weir_verdict *verdicts, struct weir_decision *decision) {
    struct weir_counter counters[WEIR_CHECKS_MAX];
    size_t count, bad = 0;
    assert_int_equal(weir_state_counters(checks, n, counters, &count), 0);
    for (size_t i = 0; i < count; i++) {
        struct kept *there = find(&checks[counters[i].check]);
        counters[i].was = there->value;
        counters[i].was_len = there->len;
    }
    char *buffer = malloc(weir_state_room(counters, count, n));
    int rc = weir_state_decide(checks, n, counters, count, now_ns, mode, buffer, verdicts, decision,
                               &bad);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (!counters[i].changed)
            continue;
        struct kept *there = find(&checks[counters[i].check]);
        assert_true(mode != WEIR_TEST);
        free(there->value);
        there->len = counters[i].next_len;
        there->value = there->len ? malloc(there->len) : NULL;
        if (there->len) {
            memcpy(there->value, counters[i].next, there->len);
            assert_true(counters[i].expires_ns > now_ns);
        }
    }
    assert_true(bad < count);
    free(buffer);
    return rc;
}

static void make_limits(struct weir_limit limits[COUNTERS]) {
    static const int64_t amounts[] = {3, 50, INT64_MAX};
    for (int i = 0; i < COUNTERS; i++) {
        assert_int_equal(
            weir_limit_init(&limits[i], amounts[random_below(3)], 1, (int)random_below(4), NULL),
            0);
        limits[i].strategy = i % WEIR_STRATEGIES;
    }
}

static void test_packed_states_decide_as_a_table_does(void **state) {
    static const int64_t costs[] = {0, 1, 1, 1, 2, 5, 60, INT64_MAX};
    (void)state;
    seed_random();
    for (int round = 0; round < 60; round++) {
        struct weir_limit limits[COUNTERS];
        make_limits(limits);
        struct weir_table *table = open_table("memory://?keys=1024");
        int64_t now_ns = NOW;
        for (int step = 0; step < 200; step++) {
            struct weir_check checks[8];
            struct weir_verdict want[8], got[8];
            struct weir_decision wanted, decided;
            size_t n = 1 + random_below(8);
            for (size_t i = 0; i < n; i++) {
                checks[i] = check_of(&limits[random_below(COUNTERS)], random_below(2) ? "a" : "b",
                                     costs[random_below(8)]);
                checks[i].flags = random_below(6) ? 0 : WEIR_CHECK_PEEK;
            }
            now_ns += (int64_t)random_below(2 * SECOND) - (random_below(9) ? 0 : SECOND);
            enum weir_mode mode = random_below(4) ? WEIR_HIT : (enum weir_mode)(random_below(4));
            assert_int_equal(weir_decide(table, checks, n, now_ns, mode, want, &wanted), 0);
            assert_int_equal(decide(checks, n, now_ns, mode, got, &decided), 0);
            if (memcmp(want, got, n * sizeof *want) || wanted.allowed != decided.allowed ||
                wanted.deciding != decided.deciding)
                fail_msg("WEIR_SEED=%" PRIu64 ": round %d, step %d, mode %d", seed, round, step,
                         (int)mode);
        }
        weir_table_close(table);
        clear_all();
    }
}

static void test_damaged_states_are_refused_or_used_within_bounds(void **state) {
    (void)state;
    seed_random();
    struct weir_limit limits[COUNTERS];
    make_limits(limits);
    int refused = 0;
    for (int step = 0; step < 4000; step++) {
        struct weir_check check = check_of(&limits[random_below(COUNTERS)], "a", 1);
        struct weir_verdict verdict;
        struct kept *there = find(&check);
        if (there->len > 0)
            there->value[random_below(there->len)] ^= (char)(1 << random_below(8));
        if (there->len > 1 && random_below(8) == 0)
            there->len -= 1 + random_below(there->len - 1);
        if (decide(&check, 1, NOW + step * SECOND / 10, WEIR_HIT, &verdict, NULL) == 0)
            continue;
        refused++;
        free(there->value);
        there->value = NULL;
        there->len = 0;
    }
    assert_true(refused > 100);
    clear_all();
}

static void test_what_cannot_be_decided_is_refused(void **state) {
    (void)state;
    struct weir_limit limit;
    assert_int_equal(weir_limit_init(&limit, 1, 1, WEIR_MINUTE, NULL), 0);
    struct weir_check check = check_of(&limit, "a", 1), other = check_of(&limit, "b", 1);
    struct weir_counter counters[1];
    struct weir_verdict verdict;
    size_t count;
    char buffer[4096], name[WEIR_STATE_NAME_MAX];
    assert_int_equal(weir_state_counters(&check, 0, counters, &count), WEIR_EINVAL);
    assert_int_equal(weir_state_counters(NULL, 1, counters, &count), WEIR_EINVAL);
    assert_int_equal(weir_state_counters(&check, 1, counters, &count), 0);
    assert_true(weir_state_room(counters, count, 1) <= sizeof buffer);
    assert_int_equal(
        weir_state_decide(&check, 1, counters, 0, NOW, WEIR_HIT, buffer, &verdict, NULL, NULL),
        WEIR_EINVAL);
    assert_int_equal(
        weir_state_decide(&check, 1, counters, 1, -1, WEIR_HIT, buffer, &verdict, NULL, NULL),
        WEIR_EINVAL);
    counters[0].check = 1;
    assert_int_equal(
        weir_state_decide(&other, 1, counters, 1, NOW, WEIR_HIT, buffer, &verdict, NULL, NULL),
        WEIR_EINVAL);
    assert_int_equal(weir_state_name(&check, "a b", 3, name), WEIR_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed_states_decide_as_a_table_does),
        cmocka_unit_test(test_damaged_states_are_refused_or_used_within_bounds),
        cmocka_unit_test(test_what_cannot_be_decided_is_refused),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
