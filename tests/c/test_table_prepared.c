/*
 * Prepared checks: rules about clients, settling, bounds, and the checks that remote codecs are
 * given.
 */
#include "support.h"

#include "weir/rules.h"
#include "weir/stats.h"

/* ---------------------------------------------------------------------------------------- rules */

static struct weir_prepared *prepare(const struct weir_part *parts, size_t n) {
    struct weir_prepared *prepared;
    struct weir_error error = {.message = "?"};
    if (weir_prepare(parts, n, &prepared, &error) < 0)
        fail_msg("%s", error.message);
    return prepared;
}

static void test_rules_decide_about_the_clients_of_enforced_parts(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    int label = weir_stats_label(table, "l", 1);
    struct weir_part parts[3] = {
        {.limit = &limit, .before = {"a", 1}, .cost = 1},
        {.limit = &limit, .before = {"b", 1}, .cost = 1, .role = WEIR_ROLE_DEFERRED},
        {.limit = &limit, .before = {"c", 1}, .cost = 3, .role = WEIR_ROLE_SHADOW, .label = label}};
    struct weir_prepared *prepared = prepare(parts, 3);
    struct weir_bytes each[3] = {{"me", 2}, {"me", 2}, {"blocked", 7}};
    struct weir_request request = {.now_ns = NOW, .clients = each};
    struct weir_verdict v[3];
    struct weir_decision decision;
    struct weir_error error;
    (void)state;
    assert_int_equal(weir_rules_set(table, "blocked", 7, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, &error),
                     0);
    assert_int_equal(weir_rules_set(table, "free", 4, WEIR_RULE_ALLOW, NOW, WEIR_NEVER, &error), 0);

    /* A shadow's client is blocked: the request passes, and no limit denied anything. */
    assert_int_equal(weir_decide_prepared(table, prepared, &request, v, &decision), 0);
    assert_true(decision.allowed && !decision.rule && !v[2].allowed);

    /* A deferred part's client is blocked: denied, and nothing charged. */
    each[1] = each[2];
    assert_int_equal(weir_decide_prepared(table, prepared, &request, v, &decision), 0);
    assert_true(!decision.allowed && decision.rule == WEIR_RULE_BLOCK && !v[0].allowed);
    assert_int_equal(remaining(table, &limit, "ame", NOW), 1);

    /* Rules allow all clients: nothing is charged. */
    request.clients = NULL;
    request.client = (struct weir_bytes){"free", 4};
    assert_int_equal(weir_decide_prepared(table, prepared, &request, v, &decision), 0);
    assert_true(decision.allowed && decision.rule == WEIR_RULE_ALLOW && v[2].allowed);
    assert_int_equal(remaining(table, &limit, "afree", NOW), 2);

    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    size_t n = WEIR_STATS_LABELS;
    assert_int_equal(weir_stats_counts(table, counts, &n), 0);
    assert_int_equal(counts[0].shadow + counts[0].denied, 0);
    weir_prepared_free(prepared);
    weir_table_close(table);
}

/* ------------------------------------------------------------------------------------- settling */

static void test_another_label_counts_instead_of_the_prepared_one(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    int label = weir_stats_label(table, "one", 3), other = weir_stats_label(table, "two", 3);
    struct weir_part part = {.limit = &limit, .before = {"a", 1}, .cost = 1, .label = label};
    struct weir_prepared *prepared = prepare(&part, 1);
    struct weir_request request = {.now_ns = NOW, .client = {"me", 2}};
    struct weir_verdict verdict;
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    size_t n = WEIR_STATS_LABELS;
    (void)state;
    weir_prepared_label(prepared, 0, other);
    weir_prepared_label(prepared, 0, WEIR_STATS_LABELS + 1); /* ignored, as are the next two */
    weir_prepared_label(prepared, 0, -1);
    weir_prepared_label(prepared, 1, label);
    assert_int_equal(weir_decide_prepared(table, prepared, &request, &verdict, NULL), 0);
    assert_int_equal(weir_stats_counts(table, counts, &n), 0);
    assert_int_equal(counts[label - 1].allowed, 0);
    assert_int_equal(counts[other - 1].allowed, 1);
    weir_prepared_free(prepared);
    weir_table_close(table);
}

static void test_settling_charges_deferred_parts_alone(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_part parts[2] = {
        {.limit = &limit, .before = {"a", 1}, .cost = 1},
        {.limit = &limit, .before = {"b", 1}, .cost = 1, .role = WEIR_ROLE_DEFERRED}};
    struct weir_prepared *prepared = prepare(parts, 2);
    struct weir_request request = {.now_ns = NOW, .client = {"me", 2}};
    struct weir_verdict v[2];
    struct weir_decision decision;
    (void)state;
    assert_int_equal(weir_decide_prepared(table, prepared, &request, v, &decision), 0);
    assert_int_equal(remaining(table, &limit, "bme", NOW), 2);
    request.mode = WEIR_EACH;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(weir_settle_prepared(table, prepared, &request, v, &decision), 0);
        assert_int_equal(decision.allowed, i < 2);
        assert_int_equal(decision.deciding, 1);
    }
    assert_int_equal(remaining(table, &limit, "bme", NOW), 0);
    assert_int_equal(remaining(table, &limit, "ame", NOW), 1);
    request.mode = WEIR_HIT;
    assert_int_equal(weir_settle_prepared(table, prepared, &request, v, &decision), WEIR_EINVAL);
    assert_int_equal(weir_decide_prepared(table, prepared, &request, v, &decision), 0);
    assert_int_equal(decision.allowed, 0);
    assert_int_equal(remaining(table, &limit, "ame", NOW), 1);
    request.mode = WEIR_REFUND;
    request.parts = 3;
    assert_int_equal(weir_settle_prepared(table, prepared, &request, v, &decision), 0);
    assert_int_equal(remaining(table, &limit, "ame", NOW), 2);
    assert_int_equal(remaining(table, &limit, "bme", NOW), 1);
    weir_prepared_free(prepared);
    prepared = prepare(parts, 1);
    request = (struct weir_request){.now_ns = NOW, .mode = WEIR_EACH};
    assert_int_equal(weir_settle_prepared(table, prepared, &request, v, NULL), WEIR_EINVAL);
    weir_prepared_free(prepared);
    weir_table_close(table);
}

/* --------------------------------------------------------------------------------------- bounds */

static void test_preparing_names_what_is_wrong(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE), wrong = limit;
    struct weir_part good = {.limit = &limit, .cost = 1}, part[2];
    struct weir_prepared *prepared;
    struct weir_error error;
    (void)state;
    wrong.strategy = 77;
#define REFUSED(word, ...)                                                                         \
    do {                                                                                           \
        part[0] = part[1] = good;                                                                  \
        __VA_ARGS__;                                                                               \
        assert_int_equal(weir_prepare(part, 2, &prepared, &error), WEIR_EINVAL);                   \
        assert_non_null(strstr(error.message, "part 1"));                                          \
        assert_non_null(strstr(error.message, word));                                              \
    } while (0)
    REFUSED("limit", part[1].limit = NULL);
    REFUSED("strategy", part[1].limit = &wrong);
    REFUSED("before", part[1].before.len = 1);
    REFUSED("after", part[1].after.len = 1);
    REFUSED("cost", part[1].cost = -1);
    REFUSED("label", part[1].label = WEIR_STATS_LABELS + 1);
    REFUSED("role", part[1].role = 4);
    REFUSED("before", part[1].before = (struct weir_bytes){"x", WEIR_KEY_MAX + 1});
    assert_int_equal(weir_prepare(part, 0, &prepared, &error), WEIR_EINVAL);
    assert_int_equal(weir_prepare(part, WEIR_CHECKS_MAX + 1, &prepared, &error), WEIR_ETOOMANY);
    assert_int_equal(weir_prepared_count(NULL), 0);
    weir_prepared_free(NULL);
}

static void test_wrong_requests_are_refused(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_part part = {.limit = &limit, .before = {"long", 4}, .cost = 1};
    struct weir_prepared *prepared = prepare(&part, 1);
    struct weir_request good = {.now_ns = NOW, .client = {"me", 2}}, request;
    struct weir_verdict v;
    int64_t negative = -1;
    (void)state;
#define WRONG(...)                                                                                 \
    do {                                                                                           \
        request = good;                                                                            \
        __VA_ARGS__;                                                                               \
        assert_int_equal(weir_decide_prepared(table, prepared, &request, &v, NULL), WEIR_EINVAL);  \
    } while (0)
    WRONG(request.now_ns = -1);
    WRONG(request.now_ns = WEIR_NOW_MAX + 1);
    WRONG(request.mode = 4);
    WRONG(request.mode = -1);
    WRONG(request.parts = 2);
    WRONG(request.client.bytes = NULL);
    WRONG(request.client.len = WEIR_KEY_MAX - 3);
    WRONG(request.costs = &negative);
    assert_int_equal(weir_decide_prepared(NULL, prepared, &good, &v, NULL), WEIR_EINVAL);
    assert_int_equal(weir_decide_prepared(table, NULL, &good, &v, NULL), WEIR_EINVAL);
    assert_int_equal(weir_decide_prepared(table, prepared, NULL, &v, NULL), WEIR_EINVAL);
    assert_int_equal(weir_decide_prepared(table, prepared, &good, NULL, NULL), WEIR_EINVAL);
    assert_int_equal(info_of(table, NOW).keys, 0);
    weir_prepared_free(prepared);
    weir_table_close(table);
}

static void test_keys_of_any_length_are_those_of_unprepared_checks(void **state) {
    struct weir_table *table = open_table("memory://?keys=1024");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 5, MINUTE);
    static char text[9000];
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)random_below(256);
    for (size_t before = 0; before < 40; before += 13)
        for (size_t client = 0; client < 4200; client = client < 80 ? client + 1 : client * 2)
            for (size_t after = 0; after < 30; after += 9) {
                struct weir_part part = {.limit = &limit,
                                         .before = {text, before},
                                         .after = {text + before + client, after},
                                         .cost = 1};
                struct weir_prepared *prepared = prepare(&part, 1);
                struct weir_request request = {.now_ns = NOW, .client = {text + before, client}};
                struct weir_check check = {
                    .limit = &limit, .key = text, .key_len = before + client + after};
                struct weir_verdict v, w;
                assert_int_equal(weir_clear(table, &check, 1), 0);
                for (int64_t left = 4; left >= 3;
                     left--) { /* the second time, keys are in the hash cache */
                    assert_int_equal(weir_decide_prepared(table, prepared, &request, &v, NULL), 0);
                    assert_int_equal(v.remaining, left);
                    assert_int_equal(weir_decide(table, &check, 1, NOW, WEIR_TEST, &w, NULL), 0);
                    assert_int_equal(w.remaining, left);
                }
                weir_prepared_free(prepared);
            }
    weir_table_close(table);
}

/* -------------------------------------------------------------------------------- remote codecs */

static void test_checks_are_written_for_remote_codecs(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_part parts[4];
    struct weir_check checks[4];
    struct weir_request request = {.client = {"me", 2}};
    char buffer[64];
    uint8_t part[4];
    size_t need;
    (void)state;
    for (int i = 0; i < 4; i++)
        parts[i] = (struct weir_part){
            .limit = &limit, .before = {&"abcd"[i], 1}, .after = {"/x", 2}, .cost = i, .role = i};
    struct weir_prepared *prepared = prepare(parts, 4);
    assert_int_equal(weir_prepared_checks(prepared, &request, 0, buffer, 14, checks, part, &need),
                     WEIR_ENOSPC);
    assert_int_equal(need, 15);
    assert_int_equal(weir_prepared_checks(prepared, &request, 0, buffer, 15, checks, part, &need),
                     3);
    assert_memory_equal(buffer, "ame/xbme/xcme/x", 15);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(part[i], i);
        assert_int_equal(checks[i].flags, i ? WEIR_CHECK_PEEK : 0);
        assert_int_equal(checks[i].cost, i);
        assert_int_equal(checks[i].client_len, 2);
        assert_memory_equal(checks[i].key, buffer + 5 * i, 5);
    }
    assert_int_equal(
        weir_prepared_checks(prepared, &request, 1, buffer, sizeof buffer, checks, part, NULL), 1);
    assert_int_equal(part[0], 3);
    assert_int_equal(checks[0].flags, 0);
    request.parts = 7;
    assert_int_equal(
        weir_prepared_checks(prepared, &request, 1, buffer, sizeof buffer, checks, NULL, NULL), 0);
    request.parts = 16;
    assert_int_equal(
        weir_prepared_checks(prepared, &request, 0, buffer, sizeof buffer, checks, NULL, NULL),
        WEIR_EINVAL);
    weir_prepared_free(prepared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules_decide_about_the_clients_of_enforced_parts),
        cmocka_unit_test(test_another_label_counts_instead_of_the_prepared_one),
        cmocka_unit_test(test_settling_charges_deferred_parts_alone),
        cmocka_unit_test(test_preparing_names_what_is_wrong),
        cmocka_unit_test(test_wrong_requests_are_refused),
        cmocka_unit_test(test_keys_of_any_length_are_those_of_unprepared_checks),
        cmocka_unit_test(test_checks_are_written_for_remote_codecs),
    };
    seed_random();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
