/*
 * Writers of rules are killed: at random times while others read and write, and at single
 * instructions. The next process finds either the whole old list or the whole new list, and no
 * process hangs.
 *
 * WEIR_STEPS: the number of instructions at which a writer is killed (default 200, at equal
 * distances from a random first one; 0: all).
 */
#include "rule_lists.h"

#if defined(__x86_64__)
#include "stepper.h"
#endif

#define WRITERS 3
#define READERS 2
#define KILLS 400
#define STEPS_DEFAULT 200

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
        const struct rule_list *list = &arena->list[i];
        int rc = PATIENTLY(weir_rules_replace(table, list->rule, list->count, NOW, &error));
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
    alarm(1000);
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
    alarm(1000); /* no process hangs */
    for (int i = 0; i < READERS; i++)
        reader[i] = spawn(read_until_stopped, arena);
    for (int i = 0; i < WRITERS; i++)
        writer[i] = spawn(write_until_killed, arena);
    int kills = 0;
    for (; kills < KILLS || info_of(table, NOW).recoveries <= 5; kills++) {
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
                  kills, recoveries, arena->changes, arena->peeks);
    assert_true(recoveries > 5); /* kills must hit writers during a change */
    weir_table_close(table);
    table = open_table(arena->uri); /* alone */
    list_held(table);
    alarm(0);
    weir_table_close(table);
    weir_table_unlink(arena->uri, NULL);
    munmap(arena, sizeof *arena);
}

/* ----------------------------------------------------------------------- at single instructions */

#if !defined(__x86_64__)
static void test_a_writer_killed_at_each_instruction(void **state) {
    (void)state;
    SKIP("single steps are done for x86-64 only");
}
#else

#define ADDED "10.200.0.0/16"

/* One rule is added beside few others. */
struct addition {
    const char *uri;
    struct weir_table *table; /* open in this process */
    struct weir_table *own;   /* the child's */
    struct weir_rule before[64];
    size_t count;
};

/* Whether the change has happened; fails if it has halfway. */
static bool has_happened(const struct addition *addition) {
    static struct weir_rule list[64];
    size_t n = 64;
    check_sound(addition->table);
    assert_int_equal(weir_rules_list(addition->table, list, &n), 0);
    bool ruled =
        weir_rules_match_client(addition->table, "10.200.1.1", 10, NOW).kind == WEIR_RULE_BLOCK;
    bool listed = n == addition->count + 1;
    if (ruled != listed || (!listed && n != addition->count))
        fail_msg("WEIR_SEED=%" PRIu64 ": %zu rules, the new one %s", seed, n,
                 ruled ? "holds" : "does not");
    for (size_t i = 0, j = 0; i < addition->count; i++, j++) {
        if (listed && strcmp(list[j].client, ADDED) == 0)
            j++;
        assert_string_equal(list[j].client, addition->before[i].client);
        assert_int_equal(list[j].until_ns, addition->before[i].until_ns);
        assert_int_equal(list[j].kind, addition->before[i].kind);
    }
    return listed;
}

static void remove_it(void *argument) {
    struct addition *addition = argument;
    weir_rules_remove(addition->table, ADDED, sizeof ADDED - 1, NULL);
    assert_false(has_happened(addition));
}

static void open_own(void *argument) {
    struct addition *addition = argument;
    MUST(weir_table_open(addition->uri, &addition->own, NULL) == 0);
}

__attribute__((noinline)) static void add_it(void *argument) {
    struct addition *addition = argument;
    int rc = weir_rules_set(addition->own, ADDED, sizeof ADDED - 1, WEIR_RULE_BLOCK, NOW,
                            WEIR_NEVER, NULL);
    at_end();
    MUST(rc == 0);
}

/*
 * Kills one at the k-th instruction, if there are so many, and counts what it left: the old list,
 * or the new one.
 */
static void kill_at(struct stepper *stepper, uint32_t k, uint32_t *kills) {
    if (kill_at_instruction(stepper, k))
        kills[has_happened(stepper->argument)]++;
}

static void test_a_writer_killed_at_each_instruction(void **state) {
    const char *given = getenv("WEIR_STEPS");
    uint32_t wanted = given ? (uint32_t)strtoul(given, NULL, 10) : STEPS_DEFAULT, kills[2] = {0, 0};
    struct addition addition = {.count = 64};
    struct stepper stepper = {.name = "a new rule",
                              .restore = remove_it,
                              .begin = open_own,
                              .act = add_it,
                              .argument = &addition};
    (void)state;
    if (UNDER_TSAN)
        SKIP("single steps and ThreadSanitizer do not mix");
    alarm(1000);
    stay_on_this_processor();
    struct arena *arena = new_arena(&addition.table);
    addition.uri = arena->uri;
    assert_int_equal(weir_rules_replace(addition.table, arena->list[0].rule, 5, NOW, NULL), 0);
    assert_int_equal(weir_rules_list(addition.table, addition.before, &addition.count), 0);
    /* First, so that this process has already done what it does between kills. */
    kill_at(&stepper, 0, kills);
    record(&stepper);
    uint32_t stride = wanted == 0 || wanted >= stepper.length ? 1 : stepper.length / wanted;
    for (uint32_t k = (uint32_t)random_below(stride); k < stepper.length; k += stride)
        kill_at(&stepper, k, kills);
    /*
     * The list is published near the end: each instruction from there back to 40 before it takes
     * effect.
     */
    uint32_t enough = kills[0] + 40;
    for (uint32_t k = stepper.length; k-- > 0 && kills[0] < enough;)
        kill_at(&stepper, k, kills);
    print_message("# %u instructions; %u kills left the old list, %u the new one\n", stepper.length,
                  kills[0], kills[1]);
    assert_true(kills[0] >= enough && kills[1] > 0);
    alarm(0);
    weir_table_close(addition.table);
    weir_table_unlink(arena->uri, NULL);
    munmap(arena, sizeof *arena);
    free_trace(&stepper);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writers_killed_at_random),
        cmocka_unit_test(test_a_writer_killed_at_each_instruction),
    };
    seed_random();
    return cmocka_run_group_tests_name("rules, writers killed", tests, NULL, NULL);
}
