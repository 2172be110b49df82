/*
 * Readers in threads and in processes while the rules change all the time: each finds one list or
 * the other, never a mixture, and never waits.
 */
#include "rule_lists.h"

#include <pthread.h>

#define READERS 4
#define LOADS (UNDER_TSAN ? 150 : 1500)
#define LOADS_MAX (2000 * LOADS) /* until readers have run: minutes */

struct stage {
    struct weir_table *table;
    char uri[300];
    struct rule_list list[2];
    _Atomic bool stop;
    _Atomic int wrong;
    _Atomic uint64_t seen[2];
};

static void *read_all_the_time(void *argument) {
    struct stage *stage = argument;
    for (unsigned i = 0; !stage->stop; i++) {
        int found = list_found(stage->table, i % LIST_PROBES);
        if (found < 0)
            stage->wrong++;
        else
            stage->seen[found]++;
    }
    return NULL;
}

/* An even number of times, at least LOADS, and until readers have found both lists. */
static void change_all_the_time(struct stage *stage) {
    for (int i = 0; i < LOADS || i % 2 || ((!stage->seen[0] || !stage->seen[1]) && i < LOADS_MAX);
         i++) {
        const struct rule_list *list = &stage->list[i & 1];
        struct weir_error error;
        /*
         * Three changes for two lists: otherwise each of the two copies would always have the same
         * list.
         */
        if (i & 1 && weir_rules_set(stage->table, "192.0.2.1", 9, WEIR_RULE_BLOCK, NOW, WEIR_NEVER,
                                    &error) < 0)
            fail_msg("%s", error.message);
        if (weir_rules_replace(stage->table, list->rule, list->count, NOW, &error) < 0)
            fail_msg("%s", error.message);
    }
}

static void prepare(struct stage *stage, const char *uri) {
    snprintf(stage->uri, sizeof stage->uri, "%s", uri);
    stage->table = open_table(uri);
    for (int i = 0; i < 2; i++)
        make_list(&stage->list[i], i);
    assert_int_equal(
        weir_rules_replace(stage->table, stage->list[1].rule, stage->list[1].count, NOW, NULL), 0);
}

static void finish(struct stage *stage) {
    if (stage->wrong)
        fail_msg("%d look-ups found neither list", stage->wrong);
    assert_int_equal(list_held(stage->table), (LOADS - 1) & 1);
    print_message("# %" PRIu64 " and %" PRIu64 " look-ups\n", stage->seen[0], stage->seen[1]);
    assert_true(stage->seen[0] > 0 && stage->seen[1] > 0);
    weir_table_close(stage->table);
}

static void test_threads_read_while_one_writes(void **state) {
    struct stage *stage = calloc(1, sizeof *stage);
    pthread_t thread[READERS];
    (void)state;
    prepare(stage, "memory://?keys=64");
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, read_all_the_time, stage), 0);
    change_all_the_time(stage);
    stage->stop = true;
    for (int i = 0; i < READERS; i++)
        pthread_join(thread[i], NULL);
    finish(stage);
    free(stage);
}

static int read_in_a_process(void *argument) {
    struct stage *stage = argument;
    struct weir_table *table;
    MUST(weir_table_open(stage->uri, &table, NULL) == 0);
    for (unsigned i = 0; !stage->stop; i++) {
        int found = list_found(table, i % LIST_PROBES);
        MUST(found >= 0);
        stage->seen[found]++;
    }
    weir_table_close(table);
    return 0;
}

static void test_processes_read_while_one_writes(void **state) {
    struct stage *stage = shared_memory(sizeof *stage);
    pid_t pid[READERS];
    (void)state;
    prepare(stage, fresh_shm("?keys=64"));
    for (int i = 0; i < READERS; i++)
        pid[i] = spawn(read_in_a_process, stage);
    change_all_the_time(stage);
    stage->stop = true;
    for (int i = 0; i < READERS; i++)
        expect_success(pid[i]);
    finish(stage);
    weir_table_unlink(stage->uri, NULL);
    munmap(stage, sizeof *stage);
}

/* Each writer adds and removes different rules: no rule of the others is lost. */
static void *add_and_remove(void *argument) {
    struct stage *stage = argument;
    char name[32];
    int me = stage->wrong++;
    for (int i = 0; i < LOADS / 10; i++) {
        snprintf(name, sizeof name, "writer-%d-%d", me, i);
        size_t len = strlen(name);
        if (PATIENTLY(weir_rules_set(stage->table, name, len, WEIR_RULE_BLOCK, NOW, WEIR_NEVER,
                                     NULL)) < 0)
            abort();
        if (i % 2 && PATIENTLY(weir_rules_remove(stage->table, name, len, NULL)) != 1)
            abort();
    }
    return NULL;
}

static void test_several_writers_lose_nothing(void **state) {
    struct stage *stage = calloc(1, sizeof *stage);
    pthread_t thread[READERS];
    size_t n = 0;
    (void)state;
    stage->table = open_table("memory://?keys=64");
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, add_and_remove, stage), 0);
    for (int i = 0; i < READERS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(weir_rules_list(stage->table, NULL, &n), 0);
    assert_int_equal(n, READERS * ((LOADS / 10 + 1) / 2));
    check_sound(stage->table);
    weir_table_close(stage->table);
    free(stage);
}

/*
 * Sets the rule of client 0 as in one of the lists. Does not call malloc(), whose lock may be held
 * at a fork.
 */
static bool set_as_in(struct stage *stage, int which) {
    const struct weir_rule *rule = &stage->list[which].rule[0];
    return weir_rules_set(stage->table, rule->client, rule->client_len, rule->kind, NOW,
                          rule->until_ns, NULL) == 0;
}

/* The child of a process in which another thread was changing the rules. */
static int change_in_a_child(void *argument) {
    struct stage *stage = argument;
    MUST(list_found(stage->table, 0) >= 0);
    for (int i = 0; i < 2; i++) {
        MUST(set_as_in(stage, i));
        MUST(list_found(stage->table, 0) == i);
    }
    return 0;
}

static void *change_until_stopped(void *argument) {
    struct stage *stage = argument;
    for (int i = 0; !stage->stop; i++)
        if (!set_as_in(stage, i & 1))
            abort();
    return NULL;
}

static void test_a_fork_in_the_middle_of_a_change(void **state) {
    struct stage *stage = calloc(1, sizeof *stage);
    pthread_t thread;
    (void)state;
    if (UNDER_TSAN)
        SKIP("ThreadSanitizer does not support fork in a process with threads");
    prepare(stage, "memory://?keys=64");
    assert_int_equal(pthread_create(&thread, NULL, change_until_stopped, stage), 0);
    int failed = 0;
    for (int i = 0; i < 100; i++) {
        int status;
        pid_t pid = spawn(change_in_a_child, stage);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        failed += status != 0;
    }
    stage->stop = true;
    pthread_join(thread, NULL);
    assert_int_equal(failed, 0);
    assert_true(list_found(stage->table, 0) >= 0);
    check_sound(stage->table);
    weir_table_close(stage->table);
    free(stage);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_read_while_one_writes),
        cmocka_unit_test(test_processes_read_while_one_writes),
        cmocka_unit_test(test_several_writers_lose_nothing),
        cmocka_unit_test(test_a_fork_in_the_middle_of_a_change),
    };
    seed_random();
    return cmocka_run_group_tests_name("rules, by several at once", tests, NULL, NULL);
}
