/*
 * Rules about clients: how decisions apply them, names by hash, capacity, bad input.
 */
#include "rules_support.h"

#include "table/hash.h"

/* ------------------------------------------------------------------------------------ decisions */

static struct weir_decision decide(struct weir_table *table, const struct weir_check *checks,
                                   size_t n, int64_t now_ns, enum weir_mode mode,
                                   struct weir_verdict *verdicts) {
    struct weir_decision decision = {.rule = 9};
    int rc = weir_decide(table, checks, n, now_ns, mode, verdicts, &decision);
    if (rc < 0)
        fail_msg("%s", weir_strerror(rc));
    return decision;
}

static void test_a_blocked_client_is_denied_until_the_rule_ends(void **state) {
    static const enum weir_mode modes[] = {WEIR_HIT, WEIR_TEST, WEIR_EACH};
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_check check = check_by(&limit, "10.1.2.3");
    struct weir_verdict verdict;
    (void)state;
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_NONE);
    set(table, "10.0.0.0/8", WEIR_RULE_BLOCK, NOW, NOW + 5 * SECOND);
    for (int i = 0; i < 3; i++) {
        struct weir_decision decision = decide(table, &check, 1, NOW + SECOND, modes[i], &verdict);
        assert_int_equal(decision.allowed, 0);
        assert_int_equal(decision.rule, WEIR_RULE_BLOCK);
        assert_int_equal(decision.deciding, 0);
        assert_int_equal(verdict.allowed, 0);
        assert_int_equal(verdict.limit, 10);
        assert_int_equal(verdict.remaining, 0);
        assert_int_equal(verdict.retry_after_ns, 4 * SECOND);
        assert_int_equal(verdict.reset_at_ns, NOW + 5 * SECOND);
        assert_int_equal(verdict.delay_ns, 0);
    }
    assert_int_equal(decide(table, &check, 1, NOW + 5 * SECOND - 1, WEIR_HIT, &verdict).allowed, 0);
    struct weir_decision decision = decide(table, &check, 1, NOW + 5 * SECOND, WEIR_HIT, &verdict);
    assert_int_equal(decision.allowed, 1);
    assert_int_equal(decision.rule, WEIR_RULE_NONE);
    assert_int_equal(verdict.remaining, 8); /* nothing was charged meanwhile */
    weir_table_close(table);
}

static void test_a_block_for_good_never_lets_pass(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_TOKEN_BUCKET, 10, MINUTE);
    struct weir_check check = check_by(&limit, "alice");
    struct weir_verdict verdict;
    (void)state;
    limit.burst = 30;
    set(table, "alice", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(decide(table, &check, 1, WEIR_NOW_MAX, WEIR_HIT, &verdict).allowed, 0);
    assert_int_equal(verdict.retry_after_ns, WEIR_NEVER);
    assert_int_equal(verdict.reset_at_ns, WEIR_NOW_MAX + MINUTE);
    assert_int_equal(verdict.limit, 30);
    check.cost = 0;
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).allowed, 0);
    assert_int_equal(weir_rules_remove(table, "alice", 5, NULL), 1);
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).allowed, 1);
    weir_table_close(table);
}

static void test_an_allowed_client_is_charged_nothing(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check check = check_by(&limit, "2001:db8::7");
    struct weir_verdict verdict;
    (void)state;
    decide(table, &check, 1, NOW, WEIR_HIT, &verdict);
    set(table, "2001:db8::/32", WEIR_RULE_ALLOW, NOW, NOW + SECOND);
    for (int i = 0; i < 5; i++) {
        struct weir_decision decision = decide(table, &check, 1, NOW, WEIR_HIT, &verdict);
        assert_int_equal(decision.allowed, 1);
        assert_int_equal(decision.rule, WEIR_RULE_ALLOW);
        assert_int_equal(verdict.remaining, 2);
        assert_int_equal(verdict.retry_after_ns, 0);
        assert_int_equal(verdict.reset_at_ns, NOW);
    }
    assert_int_equal(decide(table, &check, 1, NOW + SECOND, WEIR_HIT, &verdict).rule,
                     WEIR_RULE_NONE);
    assert_int_equal(verdict.remaining, 0);
    assert_int_equal(decide(table, &check, 1, NOW + SECOND, WEIR_HIT, &verdict).allowed, 0);
    weir_table_close(table);
}

static void test_several_clients_in_one_decision(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check checks[3] = {check_by(&limit, "10.1.2.3"), check_by(&limit, "alice"),
                                   check_of(&limit, "other!", 1)};
    struct weir_verdict verdicts[3];
    (void)state;
    set(table, "10.1.2.3", WEIR_RULE_ALLOW, NOW, WEIR_NEVER);
    for (int i = 0; i < 2; i++) { /* the address passes, the others are counted */
        struct weir_decision decision = decide(table, checks, 3, NOW, WEIR_HIT, verdicts);
        assert_int_equal(decision.allowed, 1);
        assert_int_equal(decision.rule, WEIR_RULE_NONE);
        assert_int_equal(verdicts[0].remaining, 2);
        assert_int_equal(verdicts[1].remaining, 1 - i);
        assert_int_equal(verdicts[2].remaining, 1 - i);
    }
    struct weir_decision decision = decide(table, checks, 3, NOW, WEIR_HIT, verdicts);
    assert_int_equal(decision.allowed, 0);
    assert_int_equal(decision.deciding, 1);
    assert_int_equal(verdicts[0].allowed, 1);
    assert_int_equal(weir_rules_match(table, checks, 3, NOW, verdicts, NULL), 0);
    assert_int_equal(weir_rules_match(table, checks, 1, NOW, verdicts, &decision), 1);
    assert_int_equal(decision.rule, WEIR_RULE_ALLOW);
    set(table, "alice", WEIR_RULE_BLOCK, NOW, NOW + 3 * SECOND); /* one blocked client blocks all */
    decision = decide(table, checks, 3, NOW, WEIR_EACH, verdicts);
    assert_int_equal(decision.allowed, 0);
    assert_int_equal(decision.rule, WEIR_RULE_BLOCK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(verdicts[i].allowed, 0);
        assert_int_equal(verdicts[i].retry_after_ns, 3 * SECOND);
    }
    assert_int_equal(weir_rules_match(table, checks, 3, NOW, verdicts, &decision), 1);
    assert_int_equal(decision.rule, WEIR_RULE_BLOCK);
    assert_int_equal(weir_rules_match(table, checks, 3, NOW + 3 * SECOND, verdicts, &decision), 0);
    weir_table_close(table);
}

static void test_a_check_without_a_client_has_no_rule(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check check = check_of(&limit, "alice", 1);
    struct weir_verdict verdict;
    (void)state;
    set(table, "alice", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    set(table, "0.0.0.0/0", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_NONE);
    check.client = "";
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_NONE);
    weir_table_close(table);
}

static void test_refund_and_reset_leave_rules_alone(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check check = check_by(&limit, "alice");
    struct weir_verdict verdict;
    (void)state;
    decide(table, &check, 1, NOW, WEIR_HIT, &verdict);
    set(table, "alice", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    struct weir_decision decision = decide(table, &check, 1, NOW, WEIR_REFUND, &verdict);
    assert_int_equal(decision.allowed, 1);
    assert_int_equal(decision.rule, WEIR_RULE_NONE);
    assert_int_equal(verdict.remaining, 2);
    assert_int_equal(weir_table_reset(table), 0);
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_BLOCK);
    weir_table_close(table);
}

/* -------------------------------------------------------------------------------- names by hash */

static void test_a_client_may_be_named_by_its_hash(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_rule rule;
    char name[32];
    size_t n = 1;
    (void)state;
    snprintf(name, sizeof name, "#%016" PRIx64, weir_client_hash(table, "alice", 5));
    set(table, name, WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(weir_rules_match_client(table, "alice", 5, NOW).kind, WEIR_RULE_BLOCK);
    assert_int_equal(weir_rules_find(table, name, strlen(name), NOW, &rule), WEIR_RULE_BLOCK);
    assert_string_equal(rule.client, name);
    /* A client whose name is the text of the hash is another client. */
    assert_int_equal(weir_rules_match_client(table, name, strlen(name), NOW).kind, WEIR_RULE_NONE);
    set(table, "alice", WEIR_RULE_ALLOW, NOW, WEIR_NEVER); /* the same rule, now with its name */
    assert_int_equal(weir_rules_list(table, &rule, &n), 0);
    assert_int_equal(n, 1);
    assert_string_equal(rule.client, "alice");
    set(table, name, WEIR_RULE_BLOCK, NOW, WEIR_NEVER); /* whose name is kept */
    assert_int_equal(weir_rules_find(table, "alice", 5, NOW, &rule), WEIR_RULE_BLOCK);
    assert_string_equal(rule.client, "alice");
    assert_int_equal(weir_rules_remove(table, name, strlen(name), NULL), 1);
    assert_int_equal(weir_rules_find(table, "alice", 5, NOW, NULL), WEIR_RULE_NONE);
    check_sound(table);
    weir_table_close(table);
}

/* All hashes are at the end of their range, so the hash table wraps around. */
static void test_a_hundred_adjacent_hashes_are_found(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=100");
    char name[32];
    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "#%016" PRIx64, UINT64_MAX - (uint64_t)i);
        set(table, name, WEIR_RULE_BLOCK, NOW, NOW + 1000 - i);
    }
    check_sound(table);
    for (int i = 0; i < 100; i++) {
        struct weir_rule rule;
        snprintf(name, sizeof name, "#%016" PRIx64, UINT64_MAX - (uint64_t)i);
        assert_int_equal(weir_rules_find(table, name, strlen(name), NOW, &rule), WEIR_RULE_BLOCK);
        assert_int_equal(rule.until_ns, NOW + 1000 - i);
    }
    assert_int_equal(weir_rules_find(table, "#0000000000000000", 17, NOW, NULL), WEIR_RULE_NONE);
    weir_table_close(table);
}

/* ------------------------------------------------------------------------------------- capacity */

static void test_a_full_list_says_so_and_takes_the_room_of_the_expired(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=4");
    struct weir_error error;
    struct weir_rule list[5] = {
        {.kind = WEIR_RULE_BLOCK, .client = "e", .client_len = 1, .until_ns = WEIR_NEVER}};
    size_t n = 5;
    (void)state;
    set(table, "a", WEIR_RULE_BLOCK, NOW, NOW + SECOND);
    set(table, "10.0.0.0/8", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    set(table, "::1", WEIR_RULE_ALLOW, NOW, NOW + 2 * SECOND);
    set(table, "d", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    uint64_t version = weir_rules_version(table);
    assert_int_equal(weir_rules_set(table, "e", 1, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, &error),
                     WEIR_ENOSPC);
    assert_non_null(strstr(error.message, "4 rules"));
    assert_non_null(strstr(error.message, "?rules="));
    assert_int_equal(weir_rules_load(table, list, 1, NOW, &error), WEIR_ENOSPC);
    assert_int_equal(weir_rules_version(table), version); /* nothing has changed */
    set(table, "d", WEIR_RULE_ALLOW, NOW, WEIR_NEVER);    /* an existing rule needs no room */
    assert_int_equal(
        weir_rules_set(table, "e", 1, WEIR_RULE_BLOCK, NOW + SECOND, WEIR_NEVER, &error), 0);
    assert_int_equal(weir_rules_list(table, list, &n), 0);
    assert_int_equal(n, 4);
    assert_int_equal(weir_rules_find(table, "a", 1, NOW, NULL),
                     WEIR_RULE_NONE); /* the new rule uses its room */
    assert_int_equal(weir_rules_find(table, "::1", 3, NOW, NULL), WEIR_RULE_ALLOW);
    check_sound(table);
    weir_table_close(table);
}

static void test_long_names_of_all_rules_fit_into_a_small_table(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=50");
    char name[WEIR_RULE_CLIENT_MAX];
    (void)state;
    memset(name, 'x', sizeof name);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 50; i++) {
            name[7] = (char)i;
            assert_int_equal(
                weir_rules_set(table, name, sizeof name, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL),
                0);
            assert_int_equal(weir_rules_match_client(table, name, sizeof name, NOW).kind,
                             WEIR_RULE_BLOCK);
        }
    check_sound(table);
    weir_table_close(table);
}

static void test_room_for_names_runs_out_first_in_a_large_table(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=2000");
    struct weir_error error = {.message = "?"};
    char name[WEIR_RULE_CLIENT_MAX + 1];
    int rc = 0, i = 0;
    (void)state;
    for (; i < 2000 && rc == 0; i++) {
        snprintf(name, sizeof name, "%0*d", WEIR_RULE_CLIENT_MAX, i);
        rc = weir_rules_set(table, name, WEIR_RULE_CLIENT_MAX, WEIR_RULE_BLOCK, NOW, NOW + 1,
                            &error);
    }
    assert_int_equal(rc, WEIR_ENOSPC);
    assert_int_equal(i, 1025);
    assert_non_null(strstr(error.message, "names"));
    assert_int_equal(weir_rules_set(table, name, WEIR_RULE_CLIENT_MAX, WEIR_RULE_BLOCK, NOW + 1,
                                    NOW + 2, &error),
                     0);
    check_sound(table);
    weir_table_close(table);
}

static void test_a_table_for_no_rules(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=0");
    size_t n = 0;
    (void)state;
    assert_int_equal(weir_rules_set(table, "a", 1, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL),
                     WEIR_ENOSPC);
    assert_int_equal(weir_rules_remove(table, "a", 1, NULL), 0);
    assert_int_equal(weir_rules_find(table, "a", 1, NOW, NULL), WEIR_RULE_NONE);
    assert_int_equal(weir_rules_list(table, NULL, &n), 0);
    assert_int_equal(n, 0);
    check_sound(table);
    weir_table_close(table);
}

static void test_rules_that_are_over_are_not_looked_up(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    (void)state;
    assert_false(weir_rules_any(table, 0));
    set(table, "a", WEIR_RULE_BLOCK, NOW, NOW + SECOND);
    set(table, "b", WEIR_RULE_BLOCK, NOW, NOW + 2 * SECOND);
    assert_true(weir_rules_any(table, NOW + 2 * SECOND - 1));
    assert_false(weir_rules_any(table, NOW + 2 * SECOND));
    assert_int_equal(weir_rules_remove(table, "b", 1, NULL), 1);
    assert_false(weir_rules_any(table, NOW + SECOND));
    set(table, "c", WEIR_RULE_ALLOW, NOW, WEIR_NEVER);
    assert_true(weir_rules_any(table, WEIR_NOW_MAX));
    assert_int_equal(weir_rules_remove(table, "c", 1, NULL), 1);
    assert_int_equal(weir_rules_remove(table, "a", 1, NULL), 1);
    assert_false(weir_rules_any(table, NOW));
    weir_table_close(table);
}

static void test_the_version_changes_with_each_change_and_no_other_time(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_rule rule = {
        .kind = WEIR_RULE_BLOCK, .client = "a", .client_len = 1, .until_ns = WEIR_NEVER};
    (void)state;
    assert_int_equal(weir_rules_version(table), 0);
    set(table, "a", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(weir_rules_version(table), 1);
    assert_int_equal(weir_rules_remove(table, "b", 1, NULL), 0);
    assert_int_equal(weir_rules_load(table, &rule, 1, NOW, NULL), 0);
    assert_int_equal(weir_rules_load(table, NULL, 0, NOW, NULL), 0);
    assert_int_equal(weir_rules_version(table), 1);
    rule.until_ns = NOW + 1;
    assert_int_equal(weir_rules_load(table, &rule, 1, NOW, NULL), 0);
    assert_int_equal(weir_rules_version(table), 2);
    weir_table_close(table);
}

/* ------------------------------------------------------------------------------------ bad input */

static void test_bad_input_is_an_error_and_changes_nothing(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_error error;
    struct weir_rule rules[2] = {
        {.kind = WEIR_RULE_BLOCK, .client = "a", .client_len = 1, .until_ns = WEIR_NEVER},
        {.kind = WEIR_RULE_BLOCK,
         .client = "10.0.0.1/8",
         .client_len = 10,
         .until_ns = WEIR_NEVER}};
    char longest[WEIR_RULE_CLIENT_MAX + 1] = {0};
    size_t n = 1;
    (void)state;
    assert_int_equal(weir_rules_set(NULL, "a", 1, 1, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, NULL, 1, 1, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 0, 1, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, longest, sizeof longest, 1, NOW, WEIR_NEVER, &error),
                     WEIR_EINVAL);
    assert_non_null(strstr(error.message, "256"));
    assert_int_equal(weir_rules_set(table, "a", 1, 0, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 3, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, NOW, NOW, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, NOW, 0, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, NOW, WEIR_NOW_MAX + 1, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, -1, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "10.0.0.1/8", 10, 1, NOW, WEIR_NEVER, &error),
                     WEIR_ESYNTAX);
    assert_int_equal(weir_rules_remove(table, "10.0.0.1/8", 10, &error), WEIR_ESYNTAX);
    assert_int_equal(weir_rules_remove(NULL, "a", 1, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_load(table, rules, 2, NOW, &error), WEIR_ESYNTAX);
    assert_int_equal(weir_rules_load(table, NULL, 2, NOW, &error), WEIR_EINVAL);
    rules[1].client_len = 0;
    assert_int_equal(weir_rules_load(table, rules, 2, NOW, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_find(table, "a", 1, -1, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_find(table, "a", 0, NOW, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_list(table, NULL, &n), WEIR_EINVAL);
    assert_int_equal(weir_rules_list(table, NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_match(table, NULL, 1, NOW, NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_version(table), 0);
    check_sound(table);
    weir_table_close(table);
}

static void test_any_bytes_are_a_name(void **state) {
    static const char bytes[] = "a\0b\xff/%\n";
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_rule rule;
    (void)state;
    assert_int_equal(
        weir_rules_set(table, bytes, sizeof bytes, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL), 0);
    assert_int_equal(weir_rules_find(table, bytes, sizeof bytes, NOW, &rule), WEIR_RULE_BLOCK);
    assert_int_equal(rule.client_len, sizeof bytes);
    assert_memory_equal(rule.client, bytes, sizeof bytes);
    assert_int_equal(weir_rules_find(table, bytes, 2, NOW, NULL), WEIR_RULE_NONE);
    weir_table_close(table);
}

static void test_rules_survive_their_processes_in_a_file(void **state) {
    char path[64], uri[100];
    struct weir_rule rule;
    (void)state;
    snprintf(path, sizeof path, "/tmp/weir-rules-%d", (int)getpid());
    snprintf(uri, sizeof uri, "file://%s?keys=64", path);
    struct weir_table *table = open_table(uri);
    set(table, "2001:db8::/32", WEIR_RULE_BLOCK, NOW, NOW + SECOND);
    weir_table_close(table);
    table = open_table(uri);
    assert_int_equal(weir_rules_find(table, "2001:db8::1", 11, NOW, &rule), WEIR_RULE_BLOCK);
    assert_string_equal(rule.client, "2001:db8::/32");
    check_sound(table);
    weir_table_close(table);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_blocked_client_is_denied_until_the_rule_ends),
        cmocka_unit_test(test_a_block_for_good_never_lets_pass),
        cmocka_unit_test(test_an_allowed_client_is_charged_nothing),
        cmocka_unit_test(test_several_clients_in_one_decision),
        cmocka_unit_test(test_a_check_without_a_client_has_no_rule),
        cmocka_unit_test(test_refund_and_reset_leave_rules_alone),
        cmocka_unit_test(test_a_client_may_be_named_by_its_hash),
        cmocka_unit_test(test_a_hundred_adjacent_hashes_are_found),
        cmocka_unit_test(test_a_full_list_says_so_and_takes_the_room_of_the_expired),
        cmocka_unit_test(test_long_names_of_all_rules_fit_into_a_small_table),
        cmocka_unit_test(test_room_for_names_runs_out_first_in_a_large_table),
        cmocka_unit_test(test_a_table_for_no_rules),
        cmocka_unit_test(test_rules_that_are_over_are_not_looked_up),
        cmocka_unit_test(test_the_version_changes_with_each_change_and_no_other_time),
        cmocka_unit_test(test_bad_input_is_an_error_and_changes_nothing),
        cmocka_unit_test(test_any_bytes_are_a_name),
        cmocka_unit_test(test_rules_survive_their_processes_in_a_file),
    };
    seed_random();
    return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
