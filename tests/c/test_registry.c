/* The limits that a table's registry holds: each once, with its zone's name, within bounds. */
#include "support.h"

#include "weir/stats.h"

static void test_the_registry_holds_the_name_of_a_zone(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    const struct weir_zone_offset offset = {0, 120 * MINUTE};
    char longest[WEIR_ZONE_NAME_MAX + 1], text[WEIR_REGISTERED_MAX];
    memset(longest, 'Z', sizeof longest);
    longest[WEIR_ZONE_NAME_MAX] = '\0';
    memset(text, 'x', sizeof text);
    const struct weir_zone zones[] = {{"Europe/Berlin", &offset, 1}, {longest, &offset, 1}};
    struct weir_limit limit = limit_of(WEIR_CALENDAR_WINDOW, 10, MINUTE);
    struct weir_registered_limit registered[8];
    size_t n = 8;
    (void)state;
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 3; i++) {
            limit.zone = i < 2 ? &zones[i] : NULL;
            assert_int_equal(weir_stats_register(table, &limit, "L/", 2, "/view", 5), 0);
        }
    assert_int_equal(weir_stats_registry(table, registered, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(registered[0].zone_len, 13);
    assert_null(registered[0].limit.zone);
    assert_memory_equal(registered[0].text, "L//viewEurope/Berlin", 20);
    assert_int_equal(registered[1].zone_len, WEIR_ZONE_NAME_MAX);
    assert_int_equal(registered[2].zone_len, 0);
    limit.zone = &zones[0];
    assert_int_equal(weir_stats_register(table, &limit, text, sizeof text - 12, NULL, 0),
                     WEIR_EINVAL);
    assert_int_equal(weir_stats_register(table, &limit, text, sizeof text - 13, NULL, 0), 0);
    check_sound(table);
    weir_table_close(table);
}

static void test_the_registry_holds_each_limit_once(void **state) {
    char uri[300];
    snprintf(uri, sizeof uri, "%s", fresh_shm("?keys=64"));
    struct weir_table *table = open_table(uri), *again = open_table(uri);
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_registered_limit registered[64];
    char after[WEIR_REGISTERED_MAX + 1];
    size_t n = 0;
    (void)state;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 5; i++) {
            limit.amount = 10 + i;
            assert_int_equal(
                weir_stats_register(round ? table : again, &limit, "LIMITER/", 8, "/view", 5), 0);
        }
    assert_int_equal(weir_stats_registry(table, NULL, &n), 0);
    assert_int_equal(n, 5);
    n = 64;
    assert_int_equal(weir_stats_registry(again, registered, &n), 0);
    assert_int_equal(n, 5);
    assert_int_equal(registered[4].limit.amount, 14);
    assert_int_equal(registered[4].before_len, 8);
    assert_memory_equal(registered[4].text, "LIMITER//view", 13);
    memset(after, 'x', sizeof after);
    assert_int_equal(weir_stats_register(table, &limit, NULL, 0, after, sizeof after), WEIR_EINVAL);
    assert_int_equal(weir_stats_register(table, &limit, "a", 1, after, sizeof after - 1),
                     WEIR_EINVAL);
    assert_int_equal(weir_stats_register(table, &limit, NULL, 0, after, sizeof after - 1), 0);
    int rc = 0;
    for (int i = 0; i < 2000 && rc == 0; i++) {
        limit.amount = 100 + i;
        rc = weir_stats_register(table, &limit, NULL, 0, NULL, 0);
    }
    assert_int_equal(rc, WEIR_ETOOMANY);
    limit.amount = 10;
    assert_int_equal(weir_stats_register(table, &limit, "LIMITER/", 8, "/view", 5),
                     0); /* exists already */
    check_sound(table);
    weir_table_close(again);
    weir_table_close(table);
    weir_table_unlink(uri, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_registry_holds_each_limit_once),
        cmocka_unit_test(test_the_registry_holds_the_name_of_a_zone),
    };
    seed_random();
    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
