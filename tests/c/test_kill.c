/*
 * Eight processes decide on one shared table, undisturbed and then while a ninth process kills them
 * at random times: no key exceeds its limit, no hit is lost or charged twice, no process hangs.
 *
 * Each worker writes its next request to shared memory, makes it, and adds up the admitted hits.
 * When it is killed, only its current request is uncertain; the table must contain all other hits.
 *
 * WEIR_SOAK=seconds makes the runs longer (default: 3 s undisturbed, 2000 kills).
 */
#include "support.h"

#include <sched.h>

#include "table/cell.h"
#include "table/hash.h"

#define WORKERS 8
#define KEYS 1000
#define TRIOS 100
#define TRIO_CHECKS 12
#define KILLS 2000
#define ROUND_NS (SECOND / 2)
#define STEP_NS (SECOND / 1000) /* of the clock, at each request */
#define AMOUNT 50
#define MANY (INT64_C(1) << 40)

static int64_t soak_ns(int64_t otherwise) {
    const char *given = getenv("WEIR_SOAK");
    return given ? atoll(given) * SECOND : otherwise;
}

/* ---------------------------------------------------------------------------------- undisturbed */

struct rounds {
    char uri[300];
    struct weir_limit limit[WEIR_LEAKY_BUCKET];
    _Atomic int64_t now_ns;
    _Atomic bool stop;
    _Atomic int64_t asked[KEYS], admitted[KEYS];
};

static int hammer_a_round(void *argument) {
    struct rounds *rounds = argument;
    struct weir_table *table;
    struct weir_verdict verdict;
    char key[16];
    MUST(weir_table_open(rounds->uri, &table, NULL) == 0);
    random_state ^= (uint64_t)getpid() << 20;
    while (!rounds->stop) {
        uint32_t number = (uint32_t)random_below(KEYS);
        snprintf(key, sizeof key, "%u", number);
        struct weir_check check = check_of(&rounds->limit[number % WEIR_LEAKY_BUCKET], key, 1);
        int64_t now_ns = rounds->now_ns++;
        MUST(PATIENTLY(weir_decide(table, &check, 1, now_ns, WEIR_HIT, &verdict, NULL)) == 0);
        rounds->asked[number]++;
        rounds->admitted[number] += verdict.allowed;
    }
    return 0;
}

static void test_each_key_gets_exactly_its_limit_in_each_window(void **state) {
    struct rounds *rounds = shared_memory(sizeof *rounds);
    int64_t end_ns = clock_now() + soak_ns(3 * SECOND), total = 0;
    (void)state;
    snprintf(rounds->uri, sizeof rounds->uri, "%s", fresh_shm("?keys=8192&hits=50000"));
    for (int i = 0; i < WEIR_LEAKY_BUCKET; i++) /* no bucket refills within a round */
        rounds->limit[i] = limit_of(i, AMOUNT, 3600 * SECOND);
    struct weir_table *table = open_table(rounds->uri);
    rounds->now_ns = NOW - NOW % (3600 * SECOND);
    while (clock_now() < end_ns || total <= 2 * KEYS * AMOUNT) {
        pid_t pid[WORKERS];
        for (int i = 0; i < KEYS; i++)
            rounds->asked[i] = rounds->admitted[i] = 0;
        rounds->stop = false;
        for (int i = 0; i < WORKERS; i++)
            pid[i] = spawn(hammer_a_round, rounds);
        usleep(ROUND_NS / 1000); /* a marked sleep: the duration of the round */
        rounds->stop = true;
        for (int i = 0; i < WORKERS; i++)
            expect_success(pid[i]);
        for (int i = 0; i < KEYS; i++) {
            int64_t due = rounds->asked[i] < AMOUNT ? rounds->asked[i] : AMOUNT;
            if (rounds->admitted[i] != due)
                fail_msg("WEIR_SEED=%" PRIu64 ": %s: key %d: %" PRId64 " admitted of %" PRId64,
                         seed, weir_strategy_name(i % WEIR_LEAKY_BUCKET), i, rounds->admitted[i],
                         rounds->asked[i]);
            total += rounds->asked[i];
        }
        check_sound(table);
        rounds->now_ns += 3 * 3600 * SECOND - rounds->now_ns % (3600 * SECOND); /* new windows */
    }
    assert_int_equal(info_of(table, NOW).evictions, 0);
    assert_int_equal(info_of(table, NOW).recoveries, 0);
    print_message("# %" PRId64 " decisions\n", total);
    assert_true(total > 2 * KEYS * AMOUNT);
    weir_table_close(table);
    weir_table_unlink(rounds->uri, NULL);
    munmap(rounds, sizeof *rounds);
}

/* --------------------------------------------------------------------------------------- killed */

/* The requests of workers. */
enum request {
    SINGLE, /* a fixed window */
    TRIO,   /* three limits on each of four keys, logs among them: always together */
    BRIEF,  /* a log whose hits expire soon, and a window that ends at once */
    FLOOD,  /* a key that is used once */
    CLEAR,  /* weir_clear() of a key of BRIEF */
    REQUESTS
};

struct worker {
    pid_t pid;
    _Atomic bool busy;
    enum request request;
    uint32_t key;
    int64_t cost;                     /* negative: a refund */
    _Atomic int64_t granted[2][KEYS]; /* SINGLE, TRIO */
};

struct arena {
    char uri[300];
    struct weir_limit single, trio[TRIO_CHECKS], brief[2];
    _Atomic int64_t now_ns; /* STEP_NS later at each request */
    _Atomic bool stop;
    _Atomic uint64_t decisions;
    struct worker worker[WORKERS];
    int64_t uncertain[2][KEYS];
};

static struct arena *arena;

/* The checks of a request; their number. */
static uint32_t compose(const struct worker *worker, char key[TRIO_CHECKS][24],
                        struct weir_check *checks) {
    uint32_t n = worker->request == TRIO ? TRIO_CHECKS : worker->request == BRIEF ? 2 : 1;
    for (uint32_t i = 0; i < n; i++) {
        const struct weir_limit *limit = worker->request == SINGLE ? &arena->single
                                         : worker->request == TRIO ? &arena->trio[i]
                                                                   : &arena->brief[i];
        snprintf(key[i], 24, "%d %u %u", worker->request == CLEAR ? BRIEF : (int)worker->request, i,
                 worker->key);
        checks[i] = check_of(limit, key[i], worker->cost < 0 ? -worker->cost : worker->cost);
    }
    return n;
}

static void decide_request(struct weir_table *table, struct worker *worker) {
    struct weir_check checks[TRIO_CHECKS];
    struct weir_verdict verdicts[TRIO_CHECKS];
    struct weir_decision decision = {.allowed = 1};
    char key[TRIO_CHECKS][24];
    worker->request = random_below(2) ? TRIO : (enum request)random_below(REQUESTS);
    worker->key = (uint32_t)random_below(worker->request == SINGLE  ? KEYS
                                         : worker->request == TRIO  ? TRIOS
                                         : worker->request == FLOOD ? UINT32_MAX
                                                                    : 50);
    worker->cost = 1 + (int64_t)random_below(3);
    _Atomic int64_t *granted =
        worker->request <= TRIO ? &worker->granted[worker->request][worker->key] : NULL;
    if (granted && *granted > 100 &&
        random_below(2)) /* far more than kills can have left uncertain */
        worker->cost = -worker->cost;
    uint32_t n = compose(worker, key, checks);
    worker->busy = true;
    int64_t now_ns = atomic_fetch_add(&arena->now_ns, STEP_NS);
    enum weir_mode mode = worker->cost < 0 ? WEIR_REFUND : WEIR_HIT;
    int rc = worker->request == CLEAR
                 ? PATIENTLY(weir_clear(table, checks, n))
                 : PATIENTLY(weir_decide(table, checks, n, now_ns, mode, verdicts, &decision));
    if (rc < 0) {
        fprintf(stderr, "request %d: %s\n", (int)worker->request, weir_strerror(rc));
        _exit(1);
    }
    if (granted && decision.allowed)
        *granted += worker->cost;
    worker->busy = false;
}

static int work(void *argument) {
    struct worker *worker = argument;
    struct weir_table *table;
    random_state ^= (uint64_t)getpid() << 20;
    MUST(weir_table_open(arena->uri, &table, NULL) == 0);
    while (!arena->stop) {
        decide_request(table, worker);
        arena->decisions++;
    }
    weir_table_close(table);
    return 0;
}

static void reap(struct worker *worker) {
    int status;
    kill(worker->pid, SIGKILL);
    assert_int_equal(waitpid(worker->pid, &status, 0), worker->pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("WEIR_SEED=%" PRIu64 ": a worker ended by itself (%#x)", seed, (unsigned)status);
    if (worker->busy && worker->request <= TRIO)
        arena->uncertain[worker->request][worker->key] +=
            worker->cost < 0 ? -worker->cost : worker->cost;
    worker->busy = false;
}

static int64_t charged(struct weir_table *table, enum request request, uint32_t key,
                       uint32_t which) {
    struct worker asker = {.request = request, .key = key, .cost = 1};
    struct weir_check checks[TRIO_CHECKS];
    struct weir_verdict verdict;
    char name[TRIO_CHECKS][24];
    compose(&asker, name, checks);
    assert_int_equal(
        weir_decide(table, &checks[which], 1, arena->now_ns, WEIR_TEST, &verdict, NULL), 0);
    return MANY - verdict.remaining;
}

static void compare_sums(struct weir_table *table) {
    int64_t sum = 0;
    for (enum request request = SINGLE; request <= TRIO; request++)
        for (uint32_t key = 0; key < (request == TRIO ? TRIOS : KEYS); key++) {
            int64_t found = charged(table, request, key, 0), granted = 0;
            int64_t unsure = arena->uncertain[request][key];
            for (int i = 0; i < WORKERS; i++)
                granted += arena->worker[i].granted[request][key];
            if (found < granted - unsure || found > granted + unsure)
                fail_msg("WEIR_SEED=%" PRIu64 ": request %d, key %u: %" PRId64 " charged, %" PRId64
                         " granted, %" PRId64 " uncertain",
                         seed, (int)request, key, found, granted, unsure);
            for (uint32_t i = 1; i < TRIO_CHECKS && request == TRIO; i++)
                if (charged(table, request, key, i) != found)
                    fail_msg("WEIR_SEED=%" PRIu64 ": key %u: limits charged together differ", seed,
                             key);
            sum += found;
        }
    assert_true(sum > KEYS);
}

static void test_kills_lose_nothing_and_grant_nothing(void **state) {
    arena = shared_memory(sizeof *arena);
    int64_t began_ns = clock_now(), least_ns = soak_ns(0);
    int kills = 0;
    (void)state;
    snprintf(arena->uri, sizeof arena->uri, "%s", fresh_shm("?keys=65536&hits=500000"));
    arena->single = limit_of(WEIR_FIXED_WINDOW, MANY, WEIR_PERIOD_MAX_NS);
    for (int i = 0; i < TRIO_CHECKS; i += 3) {
        arena->trio[i] = limit_of(WEIR_TOKEN_BUCKET, 1, WEIR_PERIOD_MAX_NS);
        arena->trio[i].burst = MANY;
        arena->trio[i + 1] = limit_of(WEIR_SLIDING_WINDOW_COUNTER, MANY, WEIR_PERIOD_MAX_NS / 2);
        arena->trio[i + 2] = limit_of(WEIR_MOVING_WINDOW, MANY, WEIR_PERIOD_MAX_NS);
    }
    arena->brief[0] = limit_of(WEIR_MOVING_WINDOW, 300, 20000 * STEP_NS);
    arena->brief[1] = limit_of(WEIR_FIXED_WINDOW, 1000, 1000 * STEP_NS);
    arena->now_ns = NOW;
    struct weir_table *table = open_table(arena->uri);
    alarm(1000 + (unsigned)(least_ns / SECOND)); /* no process hangs */
    for (int i = 0; i < WORKERS; i++)
        arena->worker[i].pid = spawn(work, &arena->worker[i]);
    while (kills < KILLS || clock_now() - began_ns < least_ns || arena->decisions <= 1000 ||
           info_of(table, arena->now_ns).recoveries <= 20) {
        struct worker *worker = &arena->worker[random_below(WORKERS)];
        usleep((useconds_t)random_below(8000)); /* a marked sleep: time to the next kill */
        reap(worker);
        kills++;
        worker->pid = spawn(work, worker);
        if (kills % 200 == 0)
            check_sound(table);
    }
    uint64_t decisions = arena->decisions;
    for (int i = 0; i < WORKERS; i++)
        reap(&arena->worker[i]);
    check_sound(table);
    compare_sums(table);
    struct weir_table_info info = info_of(table, arena->now_ns);
    assert_int_equal(info.evictions, 0);
    weir_table_close(table);
    table = open_table(arena->uri); /* alone */
    check_sound(table);
    compare_sums(table);
    print_message("# %d kills, %" PRIu64 " locks taken over, %" PRIu64 " decisions, %.1f s\n",
                  kills, info.recoveries, decisions, (double)(clock_now() - began_ns) / 1e9);
    assert_true(decisions > 1000);
    assert_true(info.recoveries > 20); /* kills must hit processes during decisions */
    alarm(0);
    weir_table_close(table);
    weir_table_unlink(arena->uri, NULL);
    munmap(arena, sizeof *arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_key_gets_exactly_its_limit_in_each_window),
        cmocka_unit_test(test_kills_lose_nothing_and_grant_nothing),
    };
    seed_random();
    return cmocka_run_group_tests_name("killed at random", tests, NULL, NULL);
}
