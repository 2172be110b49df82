/*
 * Threads on one table: mixed strategies, several limits over overlapping keys, every mode, a table
 * that is verified, counted and read meanwhile. The sums of the table equal what the threads were
 * granted.
 */
#include "support.h"

#include <pthread.h>

#include "table/cell.h"
#include "table/hash.h"
#include "weir/stats.h"

#define THREADS 4
#define KEYS 40
#define ROUNDS (UNDER_TSAN ? 15000 : UNDER_ASAN ? 30000 : 100000)
#define MANY (INT64_C(1) << 40)

struct group {
    struct weir_table *table;
    struct weir_limit limit[WEIR_LEAKY_BUCKET];
    _Atomic int64_t now_ns; /* one more with each decision */
    _Atomic bool stop;
};

struct thread {
    struct group *group;
    pthread_t id;
    uint64_t random;
    int64_t granted[WEIR_LEAKY_BUCKET][KEYS];
    int failed;
};

static uint32_t draw(struct thread *thread, uint32_t bound) {
    thread->random = thread->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)((thread->random >> 33) % bound);
}

/* One decision over one to four limits of keys that the others use, too. */
static int decide_some(struct thread *thread) {
    struct weir_check checks[4];
    struct weir_verdict verdicts[4];
    struct weir_decision decision;
    uint32_t strategy[4], number[4], n = 1 + draw(thread, 4);
    char key[4][16];
    enum weir_mode mode = (enum weir_mode)draw(thread, 4);
    for (uint32_t i = 0; i < n; i++) {
        strategy[i] = draw(thread, WEIR_LEAKY_BUCKET);
        number[i] = draw(thread, KEYS);
        snprintf(key[i], sizeof key[i], "%u", number[i]);
        checks[i] = check_of(&thread->group->limit[strategy[i]], key[i], 1 + draw(thread, 3));
        checks[i].client = key[i];
        checks[i].client_len = checks[i].key_len;
        checks[i].label =
            PATIENTLY(weir_stats_label(thread->group->table, "0123456789", 1 + strategy[i]));
        /* no more is given back than this thread has */
        if (mode == WEIR_REFUND && thread->granted[strategy[i]][number[i]] < 12)
            mode = WEIR_HIT;
    }
    int64_t now_ns = thread->group->now_ns++;
    int rc =
        PATIENTLY(weir_decide(thread->group->table, checks, n, now_ns, mode, verdicts, &decision));
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < n && mode != WEIR_TEST; i++)
        if (mode == WEIR_HIT ? decision.allowed : verdicts[i].allowed)
            thread->granted[strategy[i]][number[i]] +=
                mode == WEIR_REFUND ? -checks[i].cost : checks[i].cost;
    return 0;
}

static void *run_thread(void *argument) {
    struct thread *thread = argument;
    for (int i = 0; i < ROUNDS && !thread->failed; i++)
        thread->failed = decide_some(thread);
    return NULL;
}

static int read_stats(struct thread *thread) {
    struct weir_table *table = thread->group->table;
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    struct weir_top_client top[10];
    struct weir_registered_limit registered[10];
    size_t n = WEIR_STATS_LABELS, m = 10, d = 10;
    enum weir_top_by by = (enum weir_top_by)draw(thread, 2);
    const struct weir_limit *limit = &thread->group->limit[draw(thread, WEIR_LEAKY_BUCKET)];
    size_t before_len = draw(thread, 2);
    int rc = PATIENTLY(weir_stats_counts(table, counts, &n));
    if (rc == 0)
        rc = PATIENTLY(weir_stats_top_clients(table, by, 0, top, &m));
    if (rc == 0)
        rc = PATIENTLY(weir_stats_register(table, limit, "x", before_len, NULL, 0));
    return rc == 0 ? weir_stats_registry(table, registered, &d) : rc;
}

static void *look_on(void *argument) {
    struct thread *thread = argument;
    struct weir_table_info info;
    while (!thread->group->stop && !thread->failed) {
        thread->failed = read_stats(thread);
        if (thread->failed)
            break;
        int rc = PATIENTLY(weir_table_check(thread->group->table, NULL));
        if (rc == 0)
            rc = PATIENTLY(weir_table_info(thread->group->table, thread->group->now_ns, &info));
        thread->failed = rc;
        usleep(5000); /* a marked sleep: the check holds all locks, and other threads wait at most a
                         second */
    }
    return NULL;
}

static void run_all(struct group *group, struct thread *thread) {
    struct thread watcher = {.group = group};
    for (int i = 0; i < THREADS; i++) {
        thread[i].group = group;
        thread[i].random = next_random();
        assert_int_equal(pthread_create(&thread[i].id, NULL, run_thread, &thread[i]), 0);
    }
    assert_int_equal(pthread_create(&watcher.id, NULL, look_on, &watcher), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i].id, NULL);
    group->stop = true;
    pthread_join(watcher.id, NULL);
    assert_int_equal(watcher.failed, 0);
    for (int i = 0; i < THREADS; i++)
        if (thread[i].failed)
            fail_msg("WEIR_SEED=%" PRIu64 ": %s", seed, weir_strerror(thread[i].failed));
    check_sound(group->table);
    assert_int_equal(info_of(group->table, group->now_ns).evictions, 0);
}

static struct group *make_group(const char *scheme, int64_t amount) {
    struct group *group = calloc(1, sizeof *group);
    char uri[300];
    assert_non_null(group);
    if (!strcmp(scheme, "memory://"))
        snprintf(uri, sizeof uri, "memory://?keys=8192&hits=500000");
    else
        snprintf(uri, sizeof uri, "%s", fresh_shm("?keys=8192&hits=500000"));
    group->table = open_table(uri);
    if (strcmp(scheme, "memory://") != 0)
        weir_table_unlink(uri, NULL);
    for (int i = 0; i < WEIR_LEAKY_BUCKET; i++) /* nothing drains during the test */
        group->limit[i] = limit_of(i, amount, WEIR_PERIOD_MAX_NS / 2);
    group->limit[WEIR_TOKEN_BUCKET].burst = amount;
    group->limit[WEIR_TOKEN_BUCKET].amount = 1;
    group->now_ns = NOW;
    return group;
}

static void free_group(struct group *group) {
    weir_table_close(group->table);
    free(group);
}

static void sums_are_equal(const char *scheme) {
    struct thread *thread = calloc(THREADS, sizeof *thread);
    struct group *group = make_group(scheme, MANY);
    int64_t sum = 0;
    assert_non_null(thread);
    run_all(group, thread);
    for (int strategy = 0; strategy < WEIR_LEAKY_BUCKET; strategy++)
        for (int number = 0; number < KEYS; number++) {
            int64_t granted = 0;
            char key[16];
            snprintf(key, sizeof key, "%d", number);
            for (int i = 0; i < THREADS; i++)
                granted += thread[i].granted[strategy][number];
            int64_t left = remaining(group->table, &group->limit[strategy], key, group->now_ns);
            if (MANY - left != granted)
                fail_msg("WEIR_SEED=%" PRIu64 ": %s, key %s: %" PRId64 " charged, %" PRId64
                         " granted",
                         seed, weir_strategy_name(strategy), key, MANY - left, granted);
            sum += granted;
        }
    assert_true(sum > ROUNDS);
    free_group(group);
    free(thread);
}

static void test_charges_equal_grants_in_private_memory(void **state) {
    (void)state;
    sums_are_equal("memory://");
}

static void test_charges_equal_grants_in_shared_memory(void **state) {
    (void)state;
    sums_are_equal("shm://");
}

static void test_no_limit_is_exceeded(void **state) {
    struct thread *thread = calloc(THREADS, sizeof *thread);
    struct group *group = make_group("memory://", 500);
    int full = 0;
    (void)state;
    assert_non_null(thread);
    run_all(group, thread);
    for (int strategy = 0; strategy < WEIR_LEAKY_BUCKET; strategy++)
        for (int number = 0; number < KEYS; number++) {
            int64_t granted = 0;
            for (int i = 0; i < THREADS; i++)
                granted += thread[i].granted[strategy][number];
            assert_in_range(granted, 0, 500);
            full += granted > 490;
        }
    assert_true(full > 0);
    free_group(group);
    free(thread);
}

/*
 * The hash cache is shared by threads without a lock: a torn entry would be another key's counter.
 */
static void *count_own_keys(void *argument) {
    struct thread *thread = argument;
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, MANY, DAY);
    for (int i = 0; i < ROUNDS && !thread->failed; i++) {
        char key[32];
        struct weir_verdict verdict;
        uint32_t number = draw(thread, 400);
        snprintf(key, sizeof key, "thread %d key %u", (int)(thread->random >> 63), number);
        struct weir_check check = check_of(&limit, key, 1);
        thread->failed =
            PATIENTLY(weir_decide(thread->group->table, &check, 1, NOW, WEIR_HIT, &verdict, NULL));
        thread->granted[0][0]++;
    }
    return NULL;
}

static void test_many_keys_hashed_at_once_stay_apart(void **state) {
    struct thread *thread = calloc(THREADS, sizeof *thread);
    struct group *group = make_group("memory://", MANY);
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, MANY, DAY);
    int64_t granted = 0, charged = 0;
    (void)state;
    assert_non_null(thread);
    for (int i = 0; i < THREADS; i++) {
        thread[i] = (struct thread){.group = group, .random = next_random()};
        assert_int_equal(pthread_create(&thread[i].id, NULL, count_own_keys, &thread[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i].id, NULL);
        assert_int_equal(thread[i].failed, 0);
        granted += thread[i].granted[0][0];
    }
    for (int half = 0; half < 2; half++)
        for (int number = 0; number < 400; number++) {
            char key[32];
            snprintf(key, sizeof key, "thread %d key %d", half, number);
            charged += MANY - remaining(group->table, &limit, key, NOW);
        }
    assert_int_equal(info_of(group->table, NOW).evictions, 0);
    assert_int_equal(info_of(group->table, NOW).keys, 800);
    assert_int_equal(charged, granted);
    free_group(group);
    free(thread);
}

static void test_an_entry_that_is_being_written_is_not_used(void **state) {
    struct group *group = make_group("memory://", MANY);
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, MANY, DAY);
    int entries = 0;
    (void)state;
    assert_true(hit(group->table, &limit, "k", NOW));
    for (uint32_t i = 0; i < WEIR_HASH_CACHE_ENTRIES; i++) {
        struct weir_hash_entry *entry = &group->table->hash_cache[i];
        if (entry->version == 0)
            continue;
        entry->version++; /* as after the interruption of a thread that writes it */
        entry->hash[0] ^= 1;
        entries++;
    }
    assert_true(entries > 0);
    assert_int_equal(remaining(group->table, &limit, "k", NOW), MANY - 1);
    free_group(group);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_charges_equal_grants_in_private_memory),
        cmocka_unit_test(test_charges_equal_grants_in_shared_memory),
        cmocka_unit_test(test_no_limit_is_exceeded),
        cmocka_unit_test(test_many_keys_hashed_at_once_stay_apart),
        cmocka_unit_test(test_an_entry_that_is_being_written_is_not_used),
    };
    seed_random();
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
