/*
 * Writers of rules are killed: at random times while others read and write, and at single instructions. The next
 * process finds either the whole old list or the whole new list, and no process hangs.
 *
 * WEIR_STEPS: the number of instructions at which a writer is killed (default 200, at equal distances from a random
 * first one; 0: all).
 */
#include "rule_lists.h"

#include <sys/ptrace.h>

#define WRITERS 3
#define READERS 2
#define KILLS 400
#define STEPS_DEFAULT (UNDER_ASAN ? 40 : 200)

struct arena {
    char uri[300];
    struct rule_list list[2];
    _Atomic bool stop;
    _Atomic uint64_t changes, peeks;
};

static int write_until_killed(void *argument) {
    struct arena *arena = argument;
    struct weir_table *table;
    MUST(weir_table_open(arena->uri, &table, NULL) == 0);
    for (int i = getpid() & 1; !arena->stop; i ^= 1) {
        struct weir_error error;
        int rc = weir_rules_replace(table, arena->list[i].rule, arena->list[i].count, NOW, &error);
        if (rc < 0)
            fprintf(stderr, "%s\n", error.message);
        MUST(rc == 0);
        arena->changes++;
    }
    weir_table_close(table);
    return 0;
}

static int read_until_stopped(void *argument) {
    struct arena *arena = argument;
    struct weir_table *table;
    MUST(weir_table_open(arena->uri, &table, NULL) == 0);
    alarm(250);
    for (unsigned i = 0; !arena->stop; i++) {
        MUST(list_found(table, i % LIST_PROBES) >= 0);
        arena->peeks++;
    }
    weir_table_close(table);
    return 0;
}

static struct arena *new_arena(struct weir_table **table) {
    struct arena *arena = shared_memory(sizeof *arena);
    snprintf(arena->uri, sizeof arena->uri, "%s", fresh_shm("?keys=64"));
    for (int i = 0; i < 2; i++)
        make_list(&arena->list[i], i);
    *table = open_table(arena->uri);
    assert_int_equal(
        weir_rules_replace(*table, arena->list[0].rule, arena->list[0].count, NOW, NULL), 0);
    return arena;
}

static void reap(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("WEIR_SEED=%" PRIu64 ": a writer ended by itself (%#x)", seed, (unsigned)status);
}

static void test_writers_killed_at_random(void **state) {
    struct weir_table *table;
    struct arena *arena = new_arena(&table);
    pid_t writer[WRITERS], reader[READERS];
    (void)state;
    alarm(240); /* no process hangs */
    for (int i = 0; i < READERS; i++)
        reader[i] = spawn(read_until_stopped, arena);
    for (int i = 0; i < WRITERS; i++)
        writer[i] = spawn(write_until_killed, arena);
    for (int i = 0; i < KILLS; i++) {
        pid_t *victim = &writer[random_below(WRITERS)];
        usleep((useconds_t)random_below(5000)); /* a marked sleep: the victims' time */
        reap(*victim);
        *victim = spawn(write_until_killed, arena);
    }
    for (int i = 0; i < WRITERS; i++)
        reap(writer[i]);
    arena->stop = true;
    for (int i = 0; i < READERS; i++)
        expect_success(reader[i]);
    list_held(table);
    uint64_t recoveries = info_of(table, NOW).recoveries;
    print_message("# %d kills, %" PRIu64 " locks taken over, %" PRIu64 " changes, %" PRIu64
                  " look-ups\n",
                  KILLS, recoveries, arena->changes, arena->peeks);
    assert_true(recoveries > 5); /* kills must hit writers during a change */
    weir_table_close(table);
    table = open_table(arena->uri); /* alone */
    list_held(table);
    alarm(0);
    weir_table_close(table);
    weir_table_unlink(arena->uri, NULL);
    munmap(arena, sizeof *arena);
}

/* -------------------------------------------------------------------------------- at single instructions */

/* A child that stops itself, changes the rules, and stops again. */
static pid_t start_writer(struct arena *arena) {
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct weir_table *table;
        alarm(120);
        MUST(weir_table_open(arena->uri, &table, NULL) == 0);
        MUST(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        raise(SIGSTOP);
        int rc = weir_rules_set(table, "10.200.0.0/16", 13, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL);
        raise(SIGSTOP);
        _exit(rc != 0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status))
        return -1;
    assert_true(WIFSTOPPED(status));
    return pid;
}

/* Steps at most `steps` times; how many were made before the change was over. */
static uint64_t step_writer(pid_t pid, uint64_t steps) {
    for (uint64_t i = 0; i < steps; i++) {
        int status;
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSTOPPED(status))
            fail_msg("the writer ended (%#x)", (unsigned)status);
        if (WSTOPSIG(status) == SIGSTOP)
            return i;
        assert_int_equal(WSTOPSIG(status), SIGTRAP);
    }
    return steps;
}

/* Whether the change has happened; fails if it has halfway. */
static bool has_happened(struct weir_table *table, const struct weir_rule *before, size_t count) {
    static struct weir_rule list[64];
    size_t n = 64;
    check_sound(table);
    assert_int_equal(weir_rules_list(table, list, &n), 0);
    bool ruled = weir_rules_match_client(table, "10.200.1.1", 10, NOW).kind == WEIR_RULE_BLOCK;
    bool listed = n == count + 1;
    if (ruled != listed || (!listed && n != count))
        fail_msg("WEIR_SEED=%" PRIu64 ": %zu rules, the new one %s", seed, n,
                 ruled ? "holds" : "does not");
    for (size_t i = 0, j = 0; i < count; i++, j++) {
        if (listed && strcmp(list[j].client, "10.200.0.0/16") == 0)
            j++;
        assert_string_equal(list[j].client, before[i].client);
        assert_int_equal(list[j].until_ns, before[i].until_ns);
        assert_int_equal(list[j].kind, before[i].kind);
    }
    return listed;
}

static void test_a_writer_killed_at_each_instruction(void **state) {
    static struct weir_rule before[64];
    struct weir_table *table;
    const char *given = getenv("WEIR_STEPS");
    uint64_t wanted = given ? strtoull(given, NULL, 10) : STEPS_DEFAULT, kills[2] = {0, 0};
    (void)state;
    if (UNDER_TSAN)
        SKIP("single steps and ThreadSanitizer do not mix");
    alarm(280);
    struct arena *arena = new_arena(&table);
    size_t count = 64;
    assert_int_equal(weir_rules_replace(table, arena->list[0].rule, 5, NOW, NULL), 0); /* short */
    assert_int_equal(weir_rules_list(table, before, &count), 0);
    pid_t pid = start_writer(arena); /* sets one rule, beside few others */
    if (pid < 0)
        SKIP("no ptrace here");
    uint64_t total = step_writer(pid, UINT64_MAX);
    reap(pid);
    assert_true(has_happened(table, before, count));
    uint64_t stride = wanted == 0 || wanted >= total ? 1 : total / wanted;
    for (uint64_t steps = random_below(stride); steps < total; steps += stride) {
        weir_rules_remove(table, "10.200.0.0/16", 13, NULL);
        assert_false(has_happened(table, before, count));
        pid = start_writer(arena);
        step_writer(pid, steps);
        reap(pid);
        kills[has_happened(table, before, count)]++;
    }
    for (uint64_t back = total < 40 ? total : 40; back > 0;
         back--) { /* the publication is near the end */
        weir_rules_remove(table, "10.200.0.0/16", 13, NULL);
        pid = start_writer(arena);
        step_writer(pid, total - back);
        reap(pid);
        kills[has_happened(table, before, count)]++;
    }
    print_message("# %" PRIu64 " instructions; %" PRIu64 " kills left the old list, %" PRIu64
                  " the new one\n",
                  total, kills[0], kills[1]);
    assert_true(kills[0] > 0 && kills[1] > 0);
    alarm(0);
    weir_table_close(table);
    weir_table_unlink(arena->uri, NULL);
    munmap(arena, sizeof *arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writers_killed_at_random),
        cmocka_unit_test(test_a_writer_killed_at_each_instruction),
    };
    seed_random();
    return cmocka_run_group_tests_name("rules, writers killed", tests, NULL, NULL);
}
