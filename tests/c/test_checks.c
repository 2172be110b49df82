/* Every store refuses the limits that weir_limit_validate() refuses, and no others. */
#include "support.h"

#include "weir/memcached.h"
#include "weir/redis.h"
#include "weir/state.h"

static struct weir_table *table;

static int by_table(const struct weir_check *check) {
    struct weir_verdict verdict;
    return weir_decide(table, check, 1, SECOND, WEIR_HIT, &verdict, NULL);
}

static int by_clearing(const struct weir_check *check) {
    return weir_clear(table, check, 1);
}

static int by_memcached(const struct weir_check *check) {
    char name[WEIR_MEMCACHED_NAME_MAX];
    return weir_memcached_name(check, "weir", 4, name);
}

static int by_state(const struct weir_check *check) {
    char name[WEIR_STATE_NAME_MAX];
    return weir_state_name(check, "weir", 4, name);
}

static int by_redis(const struct weir_check *check) {
    struct weir_redis_request request = {.checks = check, .n = 1, .clear = 1};
    return weir_redis_room(&request) > 0 ? 0 : WEIR_EINVAL;
}

static int by_preparing(const struct weir_check *check) {
    struct weir_part part = {.limit = check->limit, .cost = 1};
    struct weir_prepared *prepared = NULL;
    int rc = weir_prepare(&part, 1, &prepared, NULL);
    weir_prepared_free(prepared);
    return rc;
}

static const struct {
    const char *name;
    int (*decide)(const struct weir_check *check);
} stores[] = {{"weir_decide", by_table},     {"weir_clear", by_clearing},
              {"memcached", by_memcached},   {"state", by_state},
              {"weir_redis_room", by_redis}, {"weir_prepare", by_preparing}};

/* A number that is often at a bound or just beyond it. */
static int64_t edge(int64_t bound) {
    switch (random_below(6)) {
    case 0:
        return bound;
    case 1:
        return bound + (bound < INT64_MAX);
    case 2:
        return 0;
    case 3:
        return -1;
    case 4:
        return INT64_MAX;
    default:
        return (int64_t)next_random();
    }
}

static struct weir_limit some_limit(const struct weir_zone *zone) {
    struct weir_limit limit;
    int unit = (int)random_below(6);
    assert_int_equal(weir_limit_init(&limit, 1 + (int64_t)random_below(9),
                                     1 + (int64_t)random_below(3), unit, NULL),
                     0);
    limit.strategy = (int32_t)random_below(7);
    for (uint64_t changes = random_below(3); changes > 0; changes--)
        switch (random_below(8)) {
        case 0:
            limit.amount = edge(1);
            break;
        case 1:
            limit.multiples = edge(4);
            break;
        case 2:
            limit.unit = (int32_t)edge(5);
            break;
        case 3:
            limit.period_ns = edge(limit.period_ns);
            break;
        case 4:
            limit.strategy = (int32_t)edge(5);
            break;
        case 5:
            limit.burst = edge(1);
            break;
        case 6:
            limit.max_delay_ns = edge(limit.period_ns > 0 ? limit.period_ns : 1);
            break;
        default:
            limit.zone = zone;
        }
    return limit;
}

static void test_all_stores_refuse_the_same_limits(void **state) {
    const struct weir_zone_offset offset = {0, 3600 * SECOND};
    const struct weir_zone zones[] = {{.name = "+01:00", .offset = &offset, .offsets = 1},
                                      {.name = "no name", .offset = &offset, .offsets = 1}};
    int valid = 0, invalid = 0;
    (void)state;
    table = open_table("memory://?keys=64");
    for (int round = 0; round < 20000; round++) {
        struct weir_limit limit = some_limit(&zones[random_below(2)]);
        struct weir_check check = {.limit = &limit, .key = "key", .key_len = 3, .cost = 1};
        struct weir_error error = {.message = "valid"};
        bool expected = weir_limit_validate(&limit, &error) == 0;
        *(expected ? &valid : &invalid) += 1;
        for (size_t i = 0; i < sizeof stores / sizeof *stores; i++)
            if ((stores[i].decide(&check) >= 0) != expected)
                fail_msg("WEIR_SEED=%" PRIu64 ": %s disagrees about a limit that is: %s", seed,
                         stores[i].name, error.message);
    }
    weir_table_close(table);
    assert_true(valid > 1000 && invalid > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_stores_refuse_the_same_limits),
    };
    seed_random();
    return cmocka_run_group_tests_name("checks", tests, NULL, NULL);
}
