/*
 * Processes that fork, die and stop: children of fork() continue, the hits of a killed process are
 * counted, and a stopped process delays others for one second at most.
 */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>

#include "table/cell.h"
#include "table/hash.h"

#define KEYS 16
#define THREADS 4
#define MANY (INT64_C(1) << 40)

/* -------------------------------------------------------------- fork() while threads hold locks */

/* Two limits that are always charged together, and a log. */
struct pair {
    struct weir_table *table;
    struct weir_limit limit[3];
    _Atomic bool stop;
};

static void make_pair(struct pair *pair, const char *uri) {
    pair->table = open_table(uri);
    pair->limit[0] = limit_of(WEIR_FIXED_WINDOW, MANY, WEIR_PERIOD_MAX_NS);
    pair->limit[1] = limit_of(WEIR_TOKEN_BUCKET, 1, WEIR_PERIOD_MAX_NS); /* drains over centuries */
    pair->limit[1].burst = MANY;
    pair->limit[2] = limit_of(WEIR_MOVING_WINDOW, 20, SECOND);
    pair->stop = false;
}

/*
 * One decision over both limits of a key and one of its neighbour; the log is freed and used again.
 */
static int hit_pair(struct pair *pair, unsigned number, int64_t now_ns, bool *allowed) {
    char key[2][16];
    struct weir_verdict verdicts[3];
    struct weir_decision decision;
    snprintf(key[0], sizeof key[0], "%u", number % KEYS);
    snprintf(key[1], sizeof key[1], "log %u", number % 7);
    struct weir_check checks[3] = {check_of(&pair->limit[0], key[0], 1),
                                   check_of(&pair->limit[1], key[0], 1),
                                   check_of(&pair->limit[2], key[1], 1)};
    int rc = weir_decide(pair->table, checks, 3, now_ns, WEIR_HIT, verdicts, &decision);
    *allowed = rc == 0 && decision.allowed;
    return rc;
}

static int64_t charged(struct pair *pair, int which, unsigned number) {
    struct weir_verdict verdict;
    char key[16];
    snprintf(key, sizeof key, "%u", number % KEYS);
    struct weir_check check = check_of(&pair->limit[which], key, 1);
    if (weir_decide(pair->table, &check, 1, NOW + DAY, WEIR_TEST, &verdict, NULL) < 0)
        return -1;
    return MANY - verdict.remaining;
}

static void *hammer(void *argument) {
    struct pair *pair = argument;
    bool allowed;
    for (unsigned i = 0; !pair->stop; i++)
        if (PATIENTLY(hit_pair(pair, i, NOW, &allowed)) < 0)
            return pair;
    return NULL;
}

/*
 * In the child: every key can be decided, and limits that are charged together have equal counts.
 */
static int go_on(void *argument) {
    struct pair *pair = argument;
    bool allowed;
    for (unsigned i = 0; i < 3 * KEYS; i++)
        MUST(hit_pair(pair, i, NOW + 10 * SECOND, &allowed) == 0);
    for (unsigned i = 0; i < KEYS; i++) {
        MUST(charged(pair, 0, i) >= 1);
        MUST(charged(pair, 0, i) == charged(pair, 1, i));
    }
    MUST(weir_table_check(pair->table, NULL) == 0);
    MUST(weir_table_reset(pair->table) == 0);
    for (unsigned i = 0; i < KEYS; i++)
        MUST(charged(pair, 0, i) == 0);
    weir_table_close(pair->table);
    return 0;
}

static int fork_again(void *argument) {
    struct pair *pair = argument;
    bool allowed;
    MUST(hit_pair(pair, 0, NOW + 10 * SECOND, &allowed) == 0);
    pid_t pid = fork();
    int status;
    if (pid == 0)
        _exit(go_on(argument));
    MUST(waitpid(pid, &status, 0) == pid && status == 0);
    MUST(hit_pair(pair, 0, NOW + 10 * SECOND, &allowed) == 0);
    return 0;
}

static void test_a_forked_child_goes_on_with_its_own_copy(void **state) {
    struct pair pair;
    pthread_t thread[THREADS];
    (void)state;
    make_pair(&pair, "memory://?keys=1024&hits=2000");
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hammer, &pair), 0);
    for (int i = 0; i < 200; i++)
        expect_success(spawn(i % 8 ? go_on : fork_again, &pair));
    pair.stop = true;
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    for (unsigned i = 0; i < KEYS; i++)
        assert_true(charged(&pair, 0, i) == charged(&pair, 1, i));
    check_sound(pair.table);
    weir_table_close(pair.table);
}

static int hit_inherited(void *argument) {
    struct pair *pair = argument;
    bool allowed;
    for (unsigned i = 0; i < 1000; i++)
        MUST(PATIENTLY(hit_pair(pair, i, NOW + i * SECOND, &allowed)) == 0 && allowed);
    weir_table_close(pair->table);
    return 0;
}

static void test_a_forked_child_shares_a_shared_table(void **state) {
    struct pair pair;
    pid_t pid[4];
    bool allowed;
    char uri[300];
    (void)state;
    snprintf(uri, sizeof uri, "%s", fresh_shm("?keys=1024&hits=2000"));
    make_pair(&pair, uri);
    for (int i = 0; i < 4; i++)
        pid[i] = spawn(hit_inherited, &pair);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(PATIENTLY(hit_pair(&pair, i, NOW + i * SECOND, &allowed)), 0);
    for (int i = 0; i < 4; i++)
        expect_success(pid[i]);
    int64_t sum = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        assert_true(charged(&pair, 0, i) == charged(&pair, 1, i));
        sum += charged(&pair, 0, i);
    }
    assert_in_range(sum, 4000,
                    5000); /* all hits of the children, and the allowed ones of this process */
    check_sound(pair.table);
    weir_table_close(pair.table);
    weir_table_unlink(uri, NULL);
}

/* -------------------------------------------------------------------------------------- SIGKILL */

struct admitted {
    char uri[128];
    struct weir_limit limit[WEIR_LEAKY_BUCKET];
    _Atomic int64_t hits[WEIR_LEAKY_BUCKET]; /* incremented after each admitted hit */
};

/* A process that is not killed for a while must not fill the table. */
#define ROUNDS_MAX 20000

static int hit_until_killed(void *argument) {
    struct admitted *admitted = argument;
    struct weir_table *table;
    struct weir_verdict verdict;
    MUST(weir_table_open(admitted->uri, &table, NULL) == 0);
    int64_t now_ns = NOW;
    for (int rounds = 0; rounds < ROUNDS_MAX; rounds++, now_ns += 1000)
        for (int i = 0; i < WEIR_LEAKY_BUCKET; i++) {
            struct weir_check check = check_of(&admitted->limit[i], "k", 1);
            MUST(weir_decide(table, &check, 1, now_ns, WEIR_HIT, &verdict, NULL) == 0);
            MUST(verdict.allowed);
            admitted->hits[i]++;
        }
    for (;;)
        pause();
}

static void test_a_file_has_every_admitted_hit_of_a_killed_process(void **state) {
    struct admitted *admitted = shared_memory(sizeof *admitted);
    (void)state;
    snprintf(admitted->uri, sizeof admitted->uri, "file:///tmp/weir-killed-%d?keys=64&hits=2000000",
             (int)getpid());
    for (int i = 0; i < WEIR_LEAKY_BUCKET; i++) /* no bucket drains within the test */
        admitted->limit[i] = limit_of(i, MANY, WEIR_PERIOD_MAX_NS);
    admitted->limit[WEIR_SLIDING_WINDOW_COUNTER] = limit_of(
        WEIR_SLIDING_WINDOW_COUNTER, MANY, WEIR_PERIOD_MAX_NS / 2); /* the test is in one window */
    admitted->limit[WEIR_TOKEN_BUCKET].amount = 1;
    admitted->limit[WEIR_TOKEN_BUCKET].burst = MANY;
    for (int round = 0; round < 40; round++) {
        pid_t pid = spawn(hit_until_killed, admitted);
        while (!admitted->hits[WEIR_LEAKY_BUCKET - 1]) {
            assert_int_equal(waitpid(pid, NULL, WNOHANG), 0); /* it does not end by itself */
            usleep(100);
        }
        usleep((useconds_t)random_below(2000));
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        struct weir_table *table = open_table(admitted->uri);
        check_sound(table);
        for (int i = 0; i < WEIR_LEAKY_BUCKET; i++) {
            int64_t left = remaining(table, &admitted->limit[i], "k", NOW + MINUTE);
            int64_t known = MANY - left;
            if (known != admitted->hits[i] && known != admitted->hits[i] + 1)
                fail_msg("WEIR_SEED=%" PRIu64 ": %s: %" PRId64 " hits counted of %" PRId64, seed,
                         weir_strategy_name(i), known, admitted->hits[i]);
            admitted->hits[i] = 0;
        }
        weir_table_close(table);
        assert_int_equal(weir_table_unlink(admitted->uri, NULL), 0);
    }
    munmap(admitted, sizeof *admitted);
}

/* ---------------------------------------------------------------------------- stopped processes */

struct holder {
    char uri[300];
    uint32_t lock;
};

static int stop_with_a_lock(void *argument) {
    struct holder *holder = argument;
    struct weir_table *table;
    MUST(weir_table_open(holder->uri, &table, NULL) == 0);
    MUST(weir_lock_take(table, holder->lock) == 0);
    raise(SIGSTOP);
    weir_lock_release(table, holder->lock);
    weir_table_close(table);
    return 0;
}

static pid_t spawn_stopped(int (*body)(void *), void *argument) {
    int status;
    pid_t pid = spawn(body, argument);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    return pid;
}

/* By the clock that the library waits by, which never steps. */
static int64_t steady_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static int decide_rc(struct weir_table *table, const struct weir_limit *limit) {
    struct weir_check check = check_of(limit, "k", 1);
    struct weir_verdict verdict;
    return weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL);
}

static void test_a_stopped_holder_makes_others_wait_a_second_not_longer(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, DAY);
    struct weir_table_info info;
    struct weir_error error;
    struct holder holder = {.lock = 0}; /* keys=8: the only stripe */
    (void)state;
    snprintf(holder.uri, sizeof holder.uri, "%s", fresh_shm("?keys=8&hits=100"));
    struct weir_table *table = open_table(holder.uri);
    assert_int_equal(decide_rc(table, &limit), 0);
    pid_t pid = spawn_stopped(stop_with_a_lock, &holder);
    int64_t before = steady_ns();
    assert_int_equal(decide_rc(table, &limit), WEIR_EBUSY);
    int64_t waited = steady_ns() - before;
    assert_in_range(waited, SECOND * 9 / 10, 10 * SECOND);
    assert_int_equal(weir_table_check(table, &error), WEIR_EBUSY);
    assert_non_null(strstr(error.message, "a stopped process holds the table's lock"));
    assert_int_equal(weir_table_info(table, NOW, &info), WEIR_EBUSY);
    kill(pid, SIGCONT);
    expect_success(pid);
    assert_int_equal(remaining(table, &limit, "k", NOW), 9); /* nothing was charged meanwhile */
    assert_int_equal(info_of(table, NOW).recoveries, 0);
    pid = spawn_stopped(stop_with_a_lock, &holder);
    kill(pid, SIGKILL); /* after a kill, no process waits */
    waitpid(pid, NULL, 0);
    assert_int_equal(decide_rc(table, &limit), 0);
    assert_int_equal(info_of(table, NOW).recoveries, 1);
    weir_table_close(table);
    weir_table_unlink(holder.uri, NULL);
}

/*
 * Dies in the middle of a commit over two stripes: the undo record is written and the change has
 * begun, then reading the new state crashes. The lower stripe, the coordinator, has nothing to
 * undo.
 */
static int die_in_a_commit(void *argument) {
    struct holder *holder = argument;
    struct weir_transaction txn;
    struct weir_table *table;
    MUST(weir_table_open(holder->uri, &table, NULL) == 0);
    uint32_t participant = holder->lock;
    MUST(weir_lock_take(table, 0) == 0 && weir_lock_take(table, participant) == 0);
    weir_transaction_begin(&txn, table);
    txn.lock[txn.locks++] = 0;
    txn.lock[txn.locks++] = (uint16_t)participant;
    for (uint32_t i = 0; i < table->header->keys; i++)
        if (table->cell[i].state.expires_ns &&
            (i / WEIR_BUCKET_CELLS & table->stripe_mask) == participant)
            txn.change[0].cell = i, txn.changes = 1;
    MUST(txn.changes == 1);
    static const struct weir_state state = {.expires_ns = NOW + DAY, .word = {99}};
    void *nothing = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(nothing != MAP_FAILED);
    txn.change[0].same_key = false;
    txn.change[0].fingerprint = nothing;
    txn.change[0].state = &state;
    signal(SIGSEGV, SIG_DFL);
    weir_transaction_commit(&txn);
    return 0;
}

static int steal_a_lock_and_stop(void *argument) {
    struct holder *holder = argument;
    struct weir_table *table;
    MUST(weir_table_open(holder->uri, &table, NULL) == 0);
    pthread_mutex_t *mutex = &weir_lock_at(table, holder->lock)->mutex;
    MUST(pthread_mutex_lock(mutex) == EOWNERDEAD);
    raise(SIGSTOP); /* as the recoverer of the upper stripe, before it undoes anything */
    return 0;
}

static void test_a_lock_released_unrepaired_is_repaired_by_the_next(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 100, DAY);
    struct holder holder;
    struct weir_verdict verdict;
    char key[2][16] = {"", ""};
    (void)state;
    snprintf(holder.uri, sizeof holder.uri, "%s", fresh_shm("?keys=64&hits=100"));
    struct weir_table *table = open_table(holder.uri);
    holder.lock = table->stripe_mask;
    assert_true(holder.lock > 0);
    /* a key of the coordinator's stripe, and one of the participant's */
    for (int i = 0; !key[0][0] || !key[1][0]; i++) {
        char name[16];
        uint64_t fingerprint[2];
        snprintf(name, sizeof name, "%d", i);
        weir_fingerprint(table, name, strlen(name), &limit, fingerprint);
        uint32_t stripe = weir_cell_stripe(table, fingerprint);
        if (stripe == 0 || stripe == holder.lock)
            memcpy(key[stripe > 0], name, sizeof name);
    }
    for (int i = 0; i < 2; i++)
        assert_true(hit(table, &limit, key[i], NOW));
    int status;
    assert_true(waitpid(spawn(die_in_a_commit, &holder), &status, 0) > 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_true(weir_lock_at(table, 0)->txn != 0);
    pid_t stopped = spawn_stopped(steal_a_lock_and_stop, &holder);
    struct weir_check check = check_of(&limit, key[0], 1);
    /* recovery of the coordinator cannot undo the participant, and releases the lock unrepaired */
    for (int i = 0; i < 2; i++)
        assert_int_equal(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL), WEIR_EBUSY);
    kill(stopped, SIGKILL);
    waitpid(stopped, NULL, 0);
    assert_true(hit(table, &limit, key[0], NOW));
    assert_int_equal(remaining(table, &limit, key[0], NOW), 98);
    assert_int_equal(remaining(table, &limit, key[1], NOW), 99);
    check_sound(table);
    weir_table_close(table);
    weir_table_unlink(holder.uri, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_forked_child_goes_on_with_its_own_copy),
        cmocka_unit_test(test_a_forked_child_shares_a_shared_table),
        cmocka_unit_test(test_a_file_has_every_admitted_hit_of_a_killed_process),
        cmocka_unit_test(test_a_stopped_holder_makes_others_wait_a_second_not_longer),
        cmocka_unit_test(test_a_lock_released_unrepaired_is_repaired_by_the_next),
    };
    seed_random();
    return cmocka_run_group_tests_name("table and processes", tests, NULL, NULL);
}
