/*
 * The promise over all time: no half-open interval of one period holds more than a strategy's bound, in the
 * log of what several processes were admitted by the real clock.
 *
 *     fixed-window             2 x amount
 *     moving-window            amount
 *     sliding-window-counter   2 x amount, and amount in each aligned window: its estimate takes the previous
 *                              window's hits as evenly spread, so the exact bound of the others is not its own
 *     token-bucket             burst + amount
 *     leaky-bucket             amount, over the moments at which the requests leave (now + delay)
 *
 * When did a hit happen? Each process reads the clock, decides at that `now`, and reads the clock again when
 * it has the verdict. The table took it somewhere between the two, and processes overtake each other there. So
 * a hit counts into an interval if both readings lie in it: then it certainly happened there, in whatever
 * order the lock was taken. (A leaky bucket's departures are exact times, and need no such care.)
 */
#include "support.h"

#include <sched.h>

#define WORKERS 4
#define AMOUNT 200
#define BURST 300
#define PERIOD (SECOND / 5)
#define LOG_MAX 200000
#define RUN_NS SECOND

struct admitted {
    int64_t from_ns, to_ns; /* it happened in between */
    int64_t cost;
};

struct run {
    char uri[300];
    struct weir_limit limit;
    int64_t largest_cost;
    _Atomic bool stop;
    _Atomic int64_t denied;
    _Atomic uint32_t count;
    struct admitted log[LOG_MAX];
};

/* One that does not step, on all processors; as if since the epoch. */
static int64_t steady_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return NOW + now.tv_sec * SECOND + now.tv_nsec;
}

static int take_part(void *argument) {
    struct run *run = argument;
    struct weir_table *table;
    struct weir_verdict verdict;
    MUST(weir_table_open(run->uri, &table, NULL) == 0);
    random_state ^= (uint64_t)getpid() << 20;
    while (!run->stop) {
        struct weir_check check = check_of(&run->limit, "k", 1);
        check.cost = 1 + (int64_t)random_below((uint64_t)run->largest_cost);
        int64_t from_ns = steady_now();
        MUST(weir_decide(table, &check, 1, from_ns, WEIR_HIT, &verdict, NULL) == 0);
        int64_t to_ns = steady_now();
        if (!verdict.allowed) {
            run->denied++;
            continue;
        }
        if (run->limit.strategy == WEIR_LEAKY_BUCKET)
            from_ns = to_ns = from_ns + verdict.delay_ns;
        uint32_t i = run->count++;
        MUST(i < LOG_MAX);
        run->log[i] = (struct admitted){from_ns, to_ns, check.cost};
    }
    return 0;
}

static int by_beginning(const void *a, const void *b) {
    const struct admitted *left = a, *right = b;
    return (left->from_ns > right->from_ns) - (left->from_ns < right->from_ns);
}

/* The most that certainly happened within a half-open interval of one period. */
static int64_t most_in_a_period(const struct run *run) {
    int64_t most = 0;
    for (uint32_t i = 0; i < run->count; i++) {
        int64_t sum = 0, end_ns = run->log[i].from_ns + PERIOD;
        for (uint32_t j = i; j < run->count && run->log[j].from_ns < end_ns; j++)
            sum += run->log[j].to_ns < end_ns ? run->log[j].cost : 0;
        most = sum > most ? sum : most;
    }
    return most;
}

static int64_t most_in_an_aligned_window(const struct run *run) {
    int64_t most = 0;
    for (uint32_t i = 0; i < run->count;) {
        int64_t window = run->log[i].from_ns / PERIOD, sum = 0;
        for (; i < run->count && run->log[i].from_ns / PERIOD == window; i++)
            sum += run->log[i].to_ns / PERIOD == window ? run->log[i].cost : 0;
        most = sum > most ? sum : most;
    }
    return most;
}

static void keeps_its_promise(const struct weir_limit *limit, int64_t largest_cost, int64_t bound) {
    struct run *run = shared_memory(sizeof *run);
    pid_t pid[WORKERS];
    int64_t admitted = 0;
    snprintf(run->uri, sizeof run->uri, "%s", fresh_shm("?keys=64&hits=20000"));
    run->limit = *limit;
    run->largest_cost = largest_cost;
    struct weir_table *table = open_table(run->uri);
    for (int i = 0; i < WORKERS; i++)
        pid[i] = spawn(take_part, run);
    usleep(RUN_NS / 1000); /* a marked sleep: the time that they have */
    run->stop = true;
    for (int i = 0; i < WORKERS; i++)
        expect_success(pid[i]);
    check_sound(table);
    weir_table_close(table);
    weir_table_unlink(run->uri, NULL);
    qsort(run->log, run->count, sizeof run->log[0], by_beginning);
    for (uint32_t i = 0; i < run->count; i++)
        admitted += run->log[i].cost;
    int64_t most = most_in_a_period(run), aligned = most_in_an_aligned_window(run);
    int64_t periods = RUN_NS / PERIOD;
    print_message("# %s, cost to %" PRId64 ": %" PRId64 " admitted, %" PRId64 " denied, %" PRId64
                  " in a period at most\n",
                  weir_strategy_name(limit->strategy), largest_cost, admitted, run->denied, most);
    if (most > bound)
        fail_msg("%s: %" PRId64 " in one period, bound %" PRId64, weir_strategy_name(limit->strategy),
                 most, bound);
    if (limit->strategy == WEIR_SLIDING_WINDOW_COUNTER)
        assert_true(aligned <= limit->amount);
    /* and the limit was really fought for */
    assert_true(run->denied > 1000);
    assert_true(admitted > limit->amount * periods / 2);
    assert_true(most > limit->amount * 6 / 10);
    munmap(run, sizeof *run);
}

static void test_fixed_window(void **state) {
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, AMOUNT, PERIOD);
    (void)state;
    keeps_its_promise(&limit, 1, 2 * AMOUNT);
    keeps_its_promise(&limit, 5, 2 * AMOUNT);
}

static void test_moving_window(void **state) {
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, AMOUNT, PERIOD);
    (void)state;
    keeps_its_promise(&limit, 1, AMOUNT);
    keeps_its_promise(&limit, 5, AMOUNT);
}

static void test_sliding_window_counter(void **state) {
    struct weir_limit limit = limit_of(WEIR_SLIDING_WINDOW_COUNTER, AMOUNT, PERIOD);
    (void)state;
    keeps_its_promise(&limit, 1, 2 * AMOUNT);
    keeps_its_promise(&limit, 5, 2 * AMOUNT);
}

static void test_token_bucket(void **state) {
    struct weir_limit limit = limit_of(WEIR_TOKEN_BUCKET, AMOUNT, PERIOD);
    (void)state;
    limit.burst = BURST;
    keeps_its_promise(&limit, 1, BURST + AMOUNT);
    keeps_its_promise(&limit, 5, BURST + AMOUNT);
}

static void test_leaky_bucket(void **state) {
    struct weir_limit limit = limit_of(WEIR_LEAKY_BUCKET, AMOUNT / 10, PERIOD);
    (void)state;
    keeps_its_promise(&limit, 1, AMOUNT / 10); /* strict spacing; wide enough not to miss many turns */
    limit.amount = AMOUNT;
    limit.max_delay_ns = PERIOD / 4;
    keeps_its_promise(&limit, 1, AMOUNT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed_window),           cmocka_unit_test(test_moving_window),
        cmocka_unit_test(test_sliding_window_counter), cmocka_unit_test(test_token_bucket),
        cmocka_unit_test(test_leaky_bucket),
    };
    seed_random();
    return cmocka_run_group_tests_name("promises", tests, NULL, NULL);
}
