/*
 * The bound of each strategy: no half-open interval of one period has more admitted hits. Several
 * processes decide at once, and log what is admitted.
 *
 *     fixed-window             2 x amount
 *     moving-window            amount
 *     sliding-window-counter   2 x amount; and the strategy's estimate, which takes the hits of the
 *                              previous aligned window as evenly spread, is at most amount after
 *                              each admitted hit
 *     token-bucket             burst + amount
 *     leaky-bucket             amount, counted when the requests leave (now + delay)
 *
 * The time of a hit: each process reads the clock, decides at that `now`, and reads the clock again
 * when it has the verdict. The decision happened between the two, and processes can overtake each
 * other. So a hit counts in an interval only if both readings are in it: then the decision happened
 * there, whatever the order in which processes took the lock. (A leaky bucket has exact departure
 * times and needs no such rule.)
 *
 * The clock is a number that the processes share and advance with each reading, so the results do
 * not depend on the speed of the machine. A process that is interrupted between its reading and its
 * decision decides with an old time, as if its clock had stepped back. Steps of more than
 * WEIR_SKEW_NS are not tested here: the clock does not advance while a request takes LAG_NS.
 */
#include "support.h"

#include <sched.h>

#define WORKERS 4
#define AMOUNT 200
#define BURST 300
#define PERIOD SECOND
#define LOG_MAX 200000
#define RUN_NS (5 * SECOND)
#define STEP_NS 10000 /* of the clock at most, half of it on average */
#define LAG_NS (80 * SECOND / 1000)
#define IDLE INT64_MAX

struct admitted {
    int64_t from_ns, to_ns; /* the decision happened in between */
    int64_t cost;
};

/* The processes share a clock, which advances when it is read. */
struct run {
    char uri[300];
    struct weir_limit limit;
    int64_t largest_cost;
    _Atomic int64_t clock_ns;
    _Atomic int64_t began_ns[WORKERS]; /* a time before the current request; IDLE: none */
    _Atomic int64_t denied;
    _Atomic uint32_t workers, count;
    struct admitted log[LOG_MAX];
};

/* Whether a worker, this one included, began its current request LAG_NS ago. */
static bool must_wait(const struct run *run) {
    int64_t now_ns = run->clock_ns;
    for (int i = 0; i < WORKERS; i++)
        if (now_ns - run->began_ns[i] >= LAG_NS)
            return true;
    return false;
}

/*
 * Begins a request: reads the clock, and waits before while a request of another worker takes
 * LAG_NS. A worker that waits renews its own entry, so that two never wait for each other.
 */
static int64_t begin(struct run *run, uint32_t me) {
    run->began_ns[me] = run->clock_ns;
    while (must_wait(run)) {
        sched_yield();
        run->began_ns[me] = run->clock_ns;
    }
    return atomic_fetch_add(&run->clock_ns, 1 + (int64_t)random_below(STEP_NS));
}

static int64_t end(struct run *run, uint32_t me) {
    int64_t now_ns = run->clock_ns;
    run->began_ns[me] = IDLE;
    return now_ns;
}

static int take_part(void *argument) {
    struct run *run = argument;
    struct weir_table *table;
    struct weir_verdict verdict;
    uint32_t me = run->workers++;
    MUST(weir_table_open(run->uri, &table, NULL) == 0);
    random_state ^= (uint64_t)getpid() << 20;
    while (run->workers < WORKERS)
        sched_yield();
    while (run->clock_ns < NOW + RUN_NS) {
        struct weir_check check = check_of(&run->limit, "k", 1);
        check.cost = 1 + (int64_t)random_below((uint64_t)run->largest_cost);
        int64_t from_ns = begin(run, me);
        int rc = PATIENTLY(weir_decide(table, &check, 1, from_ns, WEIR_HIT, &verdict, NULL));
        int64_t to_ns = end(run, me);
        MUST(rc == 0);
        MUST(to_ns - from_ns <= LAG_NS + WORKERS * STEP_NS);
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

/* The largest cost that was certainly admitted within a half-open interval of one period. */
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

/*
 * The largest estimate of the sliding window counter, without hits that may have come after the hit
 * in question. (A hit that is delayed past the end of its window counts in the next window; it gets
 * no estimate.)
 */
static int64_t largest_estimate(const struct run *run) {
    int64_t largest = 0;
    for (uint32_t i = 0, before = 0; i < run->count; i++) {
        int64_t now_ns = run->log[i].from_ns, window = now_ns / PERIOD;
        int64_t current = run->log[i].cost, previous = 0;
        while (run->log[before].from_ns / PERIOD < window - 1)
            before++;
        for (uint32_t j = before; j < i; j++)
            if (run->log[j].from_ns / PERIOD < window)
                previous += run->log[j].to_ns / PERIOD < window ? run->log[j].cost : 0;
            else
                current += run->log[j].to_ns <= now_ns ? run->log[j].cost : 0;
        int64_t left_ns = PERIOD - now_ns % PERIOD;
        int64_t estimate = current + (previous * left_ns + PERIOD - 1) / PERIOD;
        if (run->log[i].to_ns / PERIOD == window && estimate > largest)
            largest = estimate;
    }
    return largest;
}

/* Workers decide for RUN_NS. Returns the log, which the caller unmaps. */
static struct run *compete(const struct weir_limit *limit, int64_t largest_cost) {
    struct run *run = shared_memory(sizeof *run);
    pid_t pid[WORKERS];
    snprintf(run->uri, sizeof run->uri, "%s", fresh_shm("?keys=64&hits=20000"));
    run->limit = *limit;
    run->largest_cost = largest_cost;
    run->clock_ns = NOW;
    for (int i = 0; i < WORKERS; i++)
        run->began_ns[i] = IDLE;
    struct weir_table *table = open_table(run->uri);
    for (int i = 0; i < WORKERS; i++)
        pid[i] = spawn(take_part, run);
    for (int i = 0; i < WORKERS; i++)
        expect_success(pid[i]);
    check_sound(table);
    weir_table_close(table);
    weir_table_unlink(run->uri, NULL);
    return run;
}

static void keeps_its_promise(const struct weir_limit *limit, int64_t largest_cost, int64_t bound) {
    struct run *run = compete(limit, largest_cost);
    int64_t admitted = 0;
    qsort(run->log, run->count, sizeof run->log[0], by_beginning);
    for (uint32_t i = 0; i < run->count; i++)
        admitted += run->log[i].cost;
    int64_t most = most_in_a_period(run);
    int64_t periods = RUN_NS / PERIOD;
    print_message("# %s, cost to %" PRId64 ": %" PRId64 " admitted, %" PRId64 " denied, %" PRId64
                  " in a period at most\n",
                  weir_strategy_name(limit->strategy), largest_cost, admitted, run->denied, most);
    if (most > bound)
        fail_msg("%s: %" PRId64 " in one period, bound %" PRId64,
                 weir_strategy_name(limit->strategy), most, bound);
    if (limit->strategy == WEIR_SLIDING_WINDOW_COUNTER)
        assert_in_range(largest_estimate(run), limit->amount * 9 / 10, limit->amount);
    /* the limit was reached again and again */
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
    /* strict spacing; wide enough not to miss many turns */
    keeps_its_promise(&limit, 1, AMOUNT / 10);
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
    return cmocka_run_group_tests_name("bounds", tests, NULL, NULL);
}
