/* Meters: what threads and processes add together is there, and what does not fit is refused. */
#include <stdio.h>

#include "support.h"

#include "weir/meter.h"

static uint64_t meter(struct weir_table *table, const char *name, uint64_t add) {
    uint64_t value = UINT64_MAX;
    assert_int_equal(weir_meter_add(table, name, strlen(name), add, &value), 0);
    return value;
}

static void test_adds_and_reads(void **state) {
    struct weir_table *table = open_table("memory://?keys=8");
    (void)state;
    assert_int_equal(meter(table, "a", 0), 0);
    assert_int_equal(meter(table, "a", 3), 3);
    assert_int_equal(meter(table, "b", 1), 1);
    assert_int_equal(meter(table, "a", 4), 7);
    assert_int_equal(meter(table, "b", 0), 1);
    assert_int_equal(weir_meter_raise(table, "b", 1, 9), 0);
    assert_int_equal(weir_meter_raise(table, "b", 1, 5), 0);
    assert_int_equal(meter(table, "b", 0), 9);
    assert_int_equal(weir_meter_add(table, "a", 0, 1, NULL), WEIR_EINVAL);
    assert_int_equal(weir_meter_add(table, NULL, 1, 1, NULL), WEIR_EINVAL);
    assert_int_equal(weir_meter_add(NULL, "a", 1, 1, NULL), WEIR_EINVAL);
    weir_table_close(table);
}

static void test_a_full_table_of_meters_refuses_more(void **state) {
    struct weir_table *table = open_table("memory://?keys=8");
    char name[16];
    (void)state;
    for (int i = 0; i < WEIR_METERS; i++) {
        snprintf(name, sizeof name, "meter %d", i);
        assert_int_equal(meter(table, name, (uint64_t)i + 1), i + 1);
    }
    assert_int_equal(meter(table, "one more", 0), 0);
    assert_int_equal(weir_meter_add(table, "one more", 8, 1, NULL), WEIR_ETOOMANY);
    assert_int_equal(weir_meter_raise(table, "one more", 8, 1), WEIR_ETOOMANY);
    for (int i = 0; i < WEIR_METERS; i++) {
        snprintf(name, sizeof name, "meter %d", i);
        assert_int_equal(meter(table, name, 0), i + 1);
    }
    assert_int_equal(weir_table_check(table, NULL), 0);
    weir_table_close(table);
}

static int add_many(void *argument) {
    struct weir_table *table = argument;
    char name[16];
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "meter %d", i % 50);
        if (weir_meter_add(table, name, strlen(name), 1, NULL) < 0)
            return 1;
    }
    return 0;
}

static void test_processes_add_together(void **state) {
    const char *uri = fresh_shm("?keys=8");
    struct weir_table *table = open_table(uri);
    pid_t pids[4];
    char name[16];
    (void)state;
    for (int i = 0; i < 4; i++)
        pids[i] = spawn(add_many, table);
    for (int i = 0; i < 4; i++)
        expect_success(pids[i]);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "meter %d", i);
        assert_int_equal(meter(table, name, 0), 4 * 20000 / 50);
    }
    weir_table_close(table);
    weir_table_unlink(uri, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adds_and_reads),
        cmocka_unit_test(test_a_full_table_of_meters_refuses_more),
        cmocka_unit_test(test_processes_add_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
