/*
 * Every function of the API with NULL for each of its pointers, one at a time and all at once: it
 * returns an error or a defined value. If a call crashes, the test prints its name.
 *
 * The other pointers are a table, or zeroed memory that is large enough for what they point to.
 */
#include "support.h"
#include "weir/stats.h"
#include "weir/lost.h"
#include "weir/memcached.h"
#include "weir/meter.h"
#include "weir/redis.h"
#include "weir/rules.h"
#include "weir/state.h"

#define SCRATCH_BYTES ((size_t)1 << 20)

static struct weir_table *table;
static void *scratch;
static int missing; /* the pointer that is NULL; -1: all are */

/* Pointer number `i` of a call. */
static void *pointer(int i, void *otherwise) {
    return missing == i || missing < 0 ? NULL : otherwise;
}

struct call {
    const char *name;
    int pointers;
    void (*make)(size_t n);
};

static void call_stats_label(size_t n) {
    (void)weir_stats_label(pointer(0, table), pointer(1, scratch), (size_t)n);
}

static void call_stats_counts(size_t n) {
    (void)n;
    (void)weir_stats_counts(pointer(0, table), pointer(1, scratch), pointer(2, scratch));
}

static void call_stats_top_clients(size_t n) {
    (void)weir_stats_top_clients(pointer(0, table), (enum weir_top_by)n, (int)n,
                                 pointer(1, scratch), pointer(2, scratch));
}

static void call_stats_reveal(size_t n) {
    (void)weir_stats_reveal(pointer(0, table), (int)n);
}

static void call_stats_name(size_t n) {
    (void)weir_stats_client_name(pointer(0, table), pointer(1, scratch), (size_t)n,
                                 pointer(2, scratch));
}

static void call_stats_register(size_t n) {
    (void)weir_stats_register(pointer(0, table), pointer(1, scratch), pointer(2, scratch),
                              (size_t)n, pointer(3, scratch), (size_t)n);
}

static void call_stats_registry(size_t n) {
    (void)n;
    (void)weir_stats_registry(pointer(0, table), pointer(1, scratch), pointer(2, scratch));
}

static void call_stats_note(size_t n) {
    (void)weir_stats_record(pointer(0, table), pointer(1, scratch), (size_t)n, (int64_t)n,
                            pointer(2, scratch), (int)n);
}

static void call_memcached_name(size_t n) {
    (void)weir_memcached_name(pointer(0, scratch), pointer(1, scratch), (size_t)n,
                              pointer(2, scratch));
}

static void call_memcached_counts(size_t n) {
    (void)n;
    (void)weir_memcached_counts(pointer(0, scratch));
}

static void call_memcached_command(size_t n) {
    (void)weir_memcached_command(pointer(0, scratch), pointer(1, scratch), (size_t)n, (int)n,
                                 (uint64_t)n, (int64_t)n, pointer(2, scratch));
}

static void call_memcached_opened(size_t n) {
    (void)weir_memcached_opened(pointer(0, scratch), (int64_t)n, pointer(1, scratch),
                                pointer(2, scratch));
}

static void call_memcached_window(size_t n) {
    weir_memcached_window(pointer(0, scratch), pointer(1, scratch), (int64_t)n);
}

static void call_memcached_read(size_t n) {
    (void)weir_memcached_read(pointer(0, scratch), (size_t)n, pointer(1, scratch));
}

static void call_memcached_evaluate(size_t n) {
    (void)weir_memcached_evaluate(pointer(0, scratch), pointer(1, scratch), (int)n, (int64_t)n,
                                  pointer(2, scratch));
}

static void call_memcached_step(size_t n) {
    (void)weir_memcached_step(pointer(0, scratch), pointer(1, scratch), (size_t)n, (int64_t)n,
                              (enum weir_mode)n, pointer(2, scratch), pointer(3, scratch),
                              pointer(4, scratch), pointer(5, scratch), pointer(6, scratch));
}

static void call_meter_add(size_t n) {
    (void)weir_meter_add(pointer(0, table), pointer(1, scratch), (size_t)n, (uint64_t)n,
                         pointer(2, scratch));
}

static void call_meter_raise(size_t n) {
    (void)weir_meter_raise(pointer(0, table), pointer(1, scratch), (size_t)n, (uint64_t)n);
}

static void call_redis_room(size_t n) {
    (void)n;
    (void)weir_redis_room(pointer(0, scratch));
}

static void call_redis_command(size_t n) {
    (void)weir_redis_command(pointer(0, scratch), pointer(1, scratch), (size_t)n,
                             pointer(2, scratch));
}

static void call_redis_read(size_t n) {
    (void)weir_redis_read(pointer(0, scratch), (size_t)n, pointer(1, scratch), pointer(2, scratch),
                          pointer(3, scratch));
}

static void call_redis_slot(size_t n) {
    (void)weir_redis_slot(pointer(0, scratch), (size_t)n);
}

static void call_redis_script(size_t n) {
    (void)n;
    (void)weir_redis_script(pointer(0, scratch));
}

static void call_rules_set(size_t n) {
    (void)weir_rules_set(pointer(0, table), pointer(1, scratch), (size_t)n, (int)n, (int64_t)n,
                         (int64_t)n, pointer(2, scratch));
}

static void call_rules_load(size_t n) {
    (void)weir_rules_load(pointer(0, table), pointer(1, scratch), (size_t)n, (int64_t)n,
                          pointer(2, scratch));
}

static void call_rules_replace(size_t n) {
    (void)weir_rules_replace(pointer(0, table), pointer(1, scratch), (size_t)n, (int64_t)n,
                             pointer(2, scratch));
}

static void call_rules_remove(size_t n) {
    (void)weir_rules_remove(pointer(0, table), pointer(1, scratch), (size_t)n, pointer(2, scratch));
}

static void call_rules_find(size_t n) {
    (void)weir_rules_find(pointer(0, table), pointer(1, scratch), (size_t)n, (int64_t)n,
                          pointer(2, scratch));
}

static void call_rules_list(size_t n) {
    (void)n;
    (void)weir_rules_list(pointer(0, table), pointer(1, scratch), pointer(2, scratch));
}

static void call_rules_version(size_t n) {
    (void)n;
    (void)weir_rules_version(pointer(0, table));
}

static void call_rules_match(size_t n) {
    (void)weir_rules_match(pointer(0, table), pointer(1, scratch), (size_t)n, (int64_t)n,
                           pointer(2, scratch), pointer(3, scratch));
}

static void call_state_name(size_t n) {
    (void)weir_state_name(pointer(0, scratch), pointer(1, scratch), (size_t)n, pointer(2, scratch));
}

static void call_state_counters(size_t n) {
    (void)weir_state_counters(pointer(0, scratch), (size_t)n, pointer(1, scratch),
                              pointer(2, scratch));
}

static void call_state_room(size_t n) {
    (void)weir_state_room(pointer(0, scratch), (size_t)n, (size_t)n);
}

static void call_state_decide(size_t n) {
    (void)weir_state_decide(pointer(0, scratch), (size_t)n, pointer(1, scratch), (size_t)n,
                            (int64_t)n, (enum weir_mode)n, pointer(2, scratch), pointer(3, scratch),
                            pointer(4, scratch), pointer(5, scratch));
}

static void call_version(size_t n) {
    (void)n;
    (void)weir_version();
}

static void call_redis_sha1(size_t n) {
    (void)n;
    (void)weir_redis_sha1();
}

static void call_strerror(size_t n) {
    (void)weir_strerror((int)n);
}

static void call_limit_init(size_t n) {
    (void)weir_limit_init(pointer(0, scratch), (int64_t)n, (int64_t)n, (int)n, pointer(1, scratch));
}

static void call_limit_parse(size_t n) {
    (void)weir_limit_parse(pointer(0, scratch), (size_t)n, pointer(1, scratch),
                           pointer(2, scratch));
}

static void call_limit_parse_many(size_t n) {
    (void)weir_limit_parse_many(pointer(0, scratch), (size_t)n, pointer(1, scratch),
                                pointer(2, scratch), pointer(3, scratch));
}

static void call_limit_parse_as(size_t n) {
    (void)weir_limit_parse_as(pointer(0, scratch), (size_t)n, (int)n, pointer(1, scratch),
                              pointer(2, scratch), pointer(3, scratch));
}

static void call_limit_window(size_t n) {
    (void)weir_limit_window(pointer(0, scratch), (int64_t)n, pointer(1, scratch),
                            pointer(2, scratch), pointer(3, scratch));
}

static void call_limit_print(size_t n) {
    (void)weir_limit_print(pointer(0, scratch), pointer(1, scratch), (size_t)n);
}

static void call_limit_validate(size_t n) {
    (void)n;
    (void)weir_limit_validate(pointer(0, scratch), pointer(1, scratch));
}

static void call_strategy_name(size_t n) {
    (void)weir_strategy_name((int)n);
}

static void call_strategy_options(size_t n) {
    (void)weir_strategy_takes((int)n, (int)n);
    (void)weir_strategy_taking((int)n);
}

static void call_strategy_parse(size_t n) {
    (void)weir_strategy_parse(pointer(0, scratch), (size_t)n);
}

static void call_decide(size_t n) {
    (void)weir_decide(pointer(0, table), pointer(1, scratch), (size_t)n, (int64_t)n,
                      (enum weir_mode)n, pointer(2, scratch), pointer(3, scratch));
}

static void call_clear(size_t n) {
    (void)weir_clear(pointer(0, table), pointer(1, scratch), (size_t)n);
}

static void call_prepare(size_t n) {
    (void)weir_prepare(pointer(0, scratch), (size_t)n, pointer(1, scratch), pointer(2, scratch));
}

static void call_prepared_free(size_t n) {
    (void)n;
    (void)weir_prepared_free(NULL);
}

static void call_prepared_count(size_t n) {
    (void)n;
    (void)weir_prepared_count(pointer(0, scratch));
}

static void call_prepared_label(size_t n) {
    (void)weir_prepared_label(NULL, n, (int32_t)n);
}

static void call_decide_prepared(size_t n) {
    (void)n;
    (void)weir_decide_prepared(pointer(0, table), pointer(1, scratch), pointer(2, scratch),
                               pointer(3, scratch), pointer(4, scratch));
}

static void call_settle_prepared(size_t n) {
    (void)n;
    (void)weir_settle_prepared(pointer(0, table), pointer(1, scratch), pointer(2, scratch),
                               pointer(3, scratch), pointer(4, scratch));
}

static void call_prepared_checks(size_t n) {
    (void)weir_prepared_checks(pointer(0, scratch), pointer(1, scratch), (int)n,
                               pointer(2, scratch), (size_t)n, pointer(3, scratch),
                               pointer(4, scratch), pointer(5, scratch));
}

static void call_identifier(size_t n) {
    (void)weir_identifier(pointer(0, scratch), (size_t)n, pointer(1, scratch));
}

static void call_table_open(size_t n) {
    (void)n;
    (void)weir_table_open(pointer(0, scratch), pointer(1, scratch), pointer(2, scratch));
}

static void call_table_close(size_t n) {
    (void)n;
    (void)weir_table_close(NULL);
}

static void call_table_unlink(size_t n) {
    (void)n;
    (void)weir_table_unlink(pointer(0, scratch), pointer(1, scratch));
}

static void call_table_lost(size_t n) {
    (void)n;
    (void)weir_table_lost(pointer(0, table));
}

static void call_table_reopen(size_t n) {
    (void)weir_table_reopen(pointer(0, table), pointer(1, scratch), (int64_t)n,
                            pointer(2, scratch));
}

static void call_table_guard(size_t n) {
    (void)n;
    (void)weir_table_guard();
}

static void call_table_reset(size_t n) {
    (void)n;
    (void)weir_table_reset(pointer(0, table));
}

static void call_table_info(size_t n) {
    (void)weir_table_info(pointer(0, table), (int64_t)n, pointer(1, scratch));
}

static void call_table_check(size_t n) {
    (void)n;
    (void)weir_table_check(pointer(0, table), pointer(1, scratch));
}

static const struct call calls[] = {
    {"weir_stats_label", 2, call_stats_label},
    {"weir_stats_counts", 3, call_stats_counts},
    {"weir_stats_top_clients", 3, call_stats_top_clients},
    {"weir_stats_reveal", 1, call_stats_reveal},
    {"weir_stats_client_name", 3, call_stats_name},
    {"weir_stats_register", 4, call_stats_register},
    {"weir_stats_registry", 3, call_stats_registry},
    {"weir_stats_record", 3, call_stats_note},
    {"weir_memcached_name", 3, call_memcached_name},
    {"weir_memcached_counts", 1, call_memcached_counts},
    {"weir_memcached_command", 3, call_memcached_command},
    {"weir_memcached_opened", 3, call_memcached_opened},
    {"weir_memcached_window", 2, call_memcached_window},
    {"weir_memcached_read", 2, call_memcached_read},
    {"weir_memcached_evaluate", 3, call_memcached_evaluate},
    {"weir_memcached_step", 7, call_memcached_step},
    {"weir_meter_add", 3, call_meter_add},
    {"weir_meter_raise", 2, call_meter_raise},
    {"weir_redis_room", 1, call_redis_room},
    {"weir_redis_command", 3, call_redis_command},
    {"weir_redis_read", 4, call_redis_read},
    {"weir_redis_slot", 1, call_redis_slot},
    {"weir_redis_script", 1, call_redis_script},
    {"weir_rules_set", 3, call_rules_set},
    {"weir_rules_load", 3, call_rules_load},
    {"weir_rules_replace", 3, call_rules_replace},
    {"weir_rules_remove", 3, call_rules_remove},
    {"weir_rules_find", 3, call_rules_find},
    {"weir_rules_list", 3, call_rules_list},
    {"weir_rules_version", 1, call_rules_version},
    {"weir_rules_match", 4, call_rules_match},
    {"weir_state_name", 3, call_state_name},
    {"weir_state_counters", 3, call_state_counters},
    {"weir_state_room", 1, call_state_room},
    {"weir_state_decide", 6, call_state_decide},
    {"weir_version", 0, call_version},
    {"weir_redis_sha1", 0, call_redis_sha1},
    {"weir_strerror", 0, call_strerror},
    {"weir_limit_init", 2, call_limit_init},
    {"weir_limit_parse", 3, call_limit_parse},
    {"weir_limit_parse_many", 4, call_limit_parse_many},
    {"weir_limit_parse_as", 4, call_limit_parse_as},
    {"weir_limit_window", 4, call_limit_window},
    {"weir_limit_print", 2, call_limit_print},
    {"weir_limit_validate", 2, call_limit_validate},
    {"weir_strategy_name", 0, call_strategy_name},
    {"weir_strategy_parse", 1, call_strategy_parse},
    {"weir_strategy_takes", 0, call_strategy_options},
    {"weir_strategy_taking", 0, call_strategy_options},
    {"weir_decide", 4, call_decide},
    {"weir_clear", 2, call_clear},
    {"weir_prepare", 3, call_prepare},
    {"weir_prepared_free", 0, call_prepared_free},
    {"weir_prepared_label", 0, call_prepared_label},
    {"weir_prepared_count", 1, call_prepared_count},
    {"weir_decide_prepared", 5, call_decide_prepared},
    {"weir_settle_prepared", 5, call_settle_prepared},
    {"weir_prepared_checks", 6, call_prepared_checks},
    {"weir_identifier", 2, call_identifier},
    {"weir_table_open", 3, call_table_open},
    {"weir_table_close", 0, call_table_close},
    {"weir_table_unlink", 2, call_table_unlink},
    {"weir_table_lost", 1, call_table_lost},
    {"weir_table_reopen", 3, call_table_reopen},
    {"weir_table_guard", 0, call_table_guard},
    {"weir_table_reset", 1, call_table_reset},
    {"weir_table_info", 2, call_table_info},
    {"weir_table_check", 2, call_table_check},
};

/* Whether a call ends its process. */
static bool crashes(const struct call *call, int which, size_t n) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        missing = which;
        memset(scratch, 0, SCRATCH_BYTES);
        signal(SIGSEGV, SIG_DFL); /* cmocka handles it */
        signal(SIGBUS, SIG_DFL);
        alarm(120);
        call->make(n);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void test_null_is_answered(void **state) {
    static const size_t counts[] = {0, 1, 5};
    int failed = 0;
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        for (int which = -1; which < calls[i].pointers; which++)
            for (size_t j = 0; j < sizeof counts / sizeof counts[0]; j++)
                if (crashes(&calls[i], which, counts[j])) {
                    print_error("%s() with pointer %d NULL and n = %zu\n", calls[i].name, which,
                                counts[j]);
                    failed++;
                }
    assert_int_equal(failed, 0);
}

/* Each exported function is called above. */
static void test_every_function_of_the_api_is_called(void **state) {
    const char *tests = getenv("WEIR_TESTS");
    char path[4096], name[128];
    (void)state;
    if (!tests)
        SKIP("WEIR_TESTS is not set");
    snprintf(path, sizeof path, "%s/c/exports.txt", tests);
    FILE *exports = fopen(path, "r");
    assert_non_null(exports);
    int listed = 0, missed = 0;
    while (fscanf(exports, "%127s %*s", name) == 1) {
        bool called = false;
        for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
            called |= strcmp(calls[i].name, name) == 0;
        listed++;
        missed += !called;
        if (!called)
            print_error("%s() is not called\n", name);
    }
    fclose(exports);
    assert_true(listed > 50);
    assert_int_equal(missed, 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_is_answered),
        cmocka_unit_test(test_every_function_of_the_api_is_called),
    };
    assert_int_equal(weir_table_open("memory://?keys=64", &table, NULL), 0);
    scratch = calloc(1, SCRATCH_BYTES);
    int rc = cmocka_run_group_tests_name("null", tests, NULL, NULL);
    weir_table_close(table);
    free(scratch);
    return rc;
}
