/*
 * The strategies, without a table: the timelines of tests/timelines.txt, random runs against
 * the naive models of model.h, the exactness of retry_after, and counters with damaged bytes.
 *
 * WEIR_SEED sets the seed of the random runs, WEIR_OPERATIONS their length per strategy.
 */
#include "strategy_key.h"

#include "model.h"
#include "zones.h"

#define POOL_LINES 4096

/* ---------------------------------------------------------------------------------- random runs */

struct run {
    struct key key;
    struct model model, scratch;
    int64_t now;
    int64_t pace; /* typical time between requests */
    bool calm;    /* long logs: small costs, few refunds, a clock that rarely steps */
    long operation;
};

static void fail_run(const struct run *run, enum op op, int64_t cost, const char *what,
                     const struct weir_verdict *got, const struct weir_verdict *want) {
    print_message("WEIR_SEED=%llu operation %ld: %s\n", (unsigned long long)seed, run->operation,
                  what);
    print_request(&run->key, op, run->now, cost);
    print_verdict("got", got);
    if (want)
        print_verdict("expected", want);
    fail();
}

/* The model itself, or a copy that may be changed. */
static struct model *model_for(struct run *run, bool spoilt) {
    if (!spoilt)
        return &run->model;
    struct model_hit *hits = run->scratch.hit;
    int live = run->model.count - run->model.first;
    run->scratch = run->model;
    run->scratch.hit = hits;
    if (live > 0)
        memcpy(hits, run->model.hit + run->model.first, (size_t)live * sizeof *hits);
    run->scratch.first = 0;
    run->scratch.count = live;
    return &run->scratch;
}

/*
 * Checks retry_after of a denied hit: one ns earlier the hit is still denied, at that moment it
 * passes.
 */
static void check_promise(struct run *run, int64_t cost, const struct weir_verdict *denied) {
    struct weir_verdict verdict;
    if (denied->retry_after_ns > WEIR_NOW_MAX - run->now)
        return;
    apply(&run->key, TEST, run->now + denied->retry_after_ns - 1, cost, &verdict);
    if (verdict.allowed)
        fail_run(run, HIT, cost, "passes before retry_after", denied, &verdict);
    apply(&run->key, TEST, run->now + denied->retry_after_ns, cost, &verdict);
    if (!verdict.allowed)
        fail_run(run, HIT, cost, "is denied at retry_after", denied, &verdict);
}

static void request(struct run *run, enum op op, int64_t cost) {
    struct weir_verdict got, want;
    int rc = apply(&run->key, op, run->now, cost, &got);
    struct model *model = model_for(run, op == TEST || op == ABORTED);
    if (op == REFUND)
        model_refund(model, run->now, cost, &want);
    else
        model_step(model, run->now, cost, op != TEST, &want);
    if (rc < 0)
        fail_run(run, op, cost, weir_strerror(rc), &got, &want);
    if (memcmp(&got, &want, sizeof got) != 0)
        fail_run(run, op, cost, "the verdict differs", &got, &want);
    if (op == HIT && !got.allowed)
        check_promise(run, cost, &got);
    if (run->key.state.expires_ns > 0 && run->key.state.expires_ns <= run->now)
        if (op == HIT && cost > 0 && got.allowed)
            fail_run(run, op, cost, "a charged state has expired", &got, NULL);
}

static const int64_t units[] = {1, 60, 3600, 86400, 2592000, 31104000};

static int64_t some_amount(void) {
    switch (below(8)) {
    case 0:
        return below(3);
    case 1:
        return INT64_MAX - below(3);
    case 2:
        return (int64_t)(random_bits() >> (1 + below(60)));
    case 3:
        return 1 + below(2000);
    default:
        return 1 + below(60);
    }
}

static void random_limit(struct weir_limit *limit, int strategy) {
    memset(limit, 0, sizeof *limit);
    limit->strategy = strategy;
    limit->multiples = 1;
    limit->amount = some_amount();
    limit->period_ns = SECOND * units[below(6)] * (one_in(4) ? 1 + below(10) : 1);
    if (one_in(10))
        limit->period_ns = WEIR_PERIOD_MAX_NS;
    if (strategy == WEIR_TOKEN_BUCKET && one_in(2))
        limit->burst = 1 + (some_amount() - 1 < 0 ? 0 : some_amount() % INT64_MAX);
    if (strategy == WEIR_LEAKY_BUCKET) {
        int64_t delays[] = {0, WEIR_MAX_DELAY_DEFAULT_NS, limit->period_ns,
                            below(limit->period_ns)};
        limit->max_delay_ns = delays[below(4)];
    }
}

static int64_t some_cost(const struct run *run) {
    const struct weir_limit *limit = &run->key.limit;
    int64_t full = limit->burst ? limit->burst : limit->amount;
    if (run->calm && !one_in(100))
        return one_in(10) ? below(4) : 1;
    switch (below(10)) {
    case 0:
        return 0;
    case 1:
        return full;
    case 2:
        return full == INT64_MAX ? full : full + 1;
    case 3:
        return below(full);
    case 4:
        return INT64_MAX - below(2);
    case 5:
        return 1 + below(full / 8 + 1);
    default:
        return 1 + below(3);
    }
}

/* The time of a hit in a moving window's log, usually of a recent one. */
static int64_t some_hit_ns(const struct run *run) {
    const struct model *m = &run->model;
    if (run->key.limit.strategy != WEIR_MOVING_WINDOW || m->first == m->count)
        return run->now;
    int64_t live = m->count - m->first;
    return m->hit[m->count - 1 - below(one_in(4) ? live : live < 40 ? live : 40)].time_ns;
}

/* Moves the clock: mostly a little forward, sometimes far, back, to an edge, or not at all. */
static void tick(struct run *run) {
    int64_t period = run->key.limit.period_ns, by = 0, edge = run->key.state.expires_ns;
    int64_t event = below(24);
    if (run->calm)
        event = one_in(200) ? event : one_in(100) ? 10 : 24;
    switch (event) {
    case 0:
        break;
    case 1:
        by = period - below(3) + 1;
        break;
    case 2:
        by = below(period) / 2 * (1 + below(3));
        break;
    case 3:
        by = one_in(8) ? -below(period) : -below(MODEL_SKEW * 2);
        break;
    case 4:
        by = -below(run->pace * 2 + 1);
        break;
    case 5:
        by = one_in(20) ? -run->now : 0;
        break;
    case 6:
        by = edge < WEIR_NOW_MAX && one_in(4) ? edge - run->now - below(2) : 1;
        break;
    case 7:
        by = period - run->now % period - below(3) + 1 - (one_in(2) ? below(MODEL_SKEW + 2) : 0);
        break;
    case 8:
        by = one_in(200) ? WEIR_NOW_MAX - run->now : 1;
        break;
    case 9:
        by = -MODEL_SKEW + below(3) - 1;
        break;
    case 10:
        by = some_hit_ns(run) - run->now + below(3) - 1;
        break;
    default:
        by = below(run->pace * 2 + 1);
        break;
    }
    __extension__ __int128 now = (__int128)run->now + by;
    run->now = now < 0 ? 0 : now > WEIR_NOW_MAX ? WEIR_NOW_MAX : (int64_t)now;
}

/* What a store does when it removes a key. */
static void remove_key(struct run *run) {
    struct key *key = &run->key;
    bool owns = key->state.line[0] | key->state.line[1] | key->state.line[2];
    pool_begin(&key->pool);
    if (owns && weir_log_drop(&key->state, &key->pool.lines) < 0)
        fail_run(run, HIT, 0, "the log cannot be dropped", &(struct weir_verdict){0}, NULL);
    pool_commit(&key->pool);
    memset(&key->state, 0, sizeof key->state);
    if (!pool_is_whole(key))
        fail_run(run, HIT, 0, "lines are lost with a log", &(struct weir_verdict){0}, NULL);
}

static void begin_key(struct run *run, int strategy) {
    remove_key(run);
    random_limit(&run->key.limit, strategy);
    struct model fresh = {.limit = &run->key.limit, .hit = run->model.hit};
    run->model = fresh;
    run->now =
        one_in(8) ? WEIR_NOW_MAX - below(SECOND * SECOND) : below(INT64_C(1) << (30 + below(32)));
    int64_t amount = run->key.limit.amount;
    int64_t crowd = amount > 1000 ? 1000 : amount > 0 ? amount : 1;
    run->pace = run->key.limit.period_ns / crowd / (1 + below(4)) + 1;
    if (one_in(3))
        run->pace = 1 + below(SECOND);
    run->calm = run->key.limit.strategy == WEIR_MOVING_WINDOW && one_in(2);
    if (run->calm) {
        int64_t crowded = 200 + below(12000); /* hits in a period */
        run->key.limit.amount = crowded - below(crowded / 4);
        run->pace = run->key.limit.period_ns / crowded;
    }
}

static long operations(void) {
    const char *text = getenv("WEIR_OPERATIONS");
    return text ? atol(text) : 1000000;
}

static void random_run(int strategy) {
    struct run *run = calloc(1, sizeof *run);
    run->model.hit = malloc(MODEL_HITS * sizeof *run->model.hit);
    run->scratch.hit = malloc(MODEL_HITS * sizeof *run->scratch.hit);
    random_state = seed + (uint64_t)strategy;
    pool_init(&run->key.pool, POOL_LINES);
    long rest = 0;
    for (run->operation = 0; run->operation < operations(); run->operation++) {
        if (rest-- == 0) {
            begin_key(run, strategy);
            rest = run->calm ? 40000 : one_in(4) ? 20000 : 200 + below(2000);
        }
        tick(run);
        int64_t cost = some_cost(run);
        int64_t which = below(20);
        if (run->calm && which >= 16 && !one_in(50))
            which = 0;
        request(run, which < 12 ? HIT : which < 16 ? TEST : which < 18 ? ABORTED : REFUND, cost);
        if (rest % (run->calm ? 512 : 64) == 0 && !pool_is_whole(&run->key))
            fail_run(run, HIT, cost, "the pool is broken", &(struct weir_verdict){0}, NULL);
    }
    pool_free(&run->key.pool);
    free(run->model.hit);
    free(run->scratch.hit);
    free(run);
}

static void test_fixed_window_equals_its_model(void **state) {
    (void)state;
    random_run(WEIR_FIXED_WINDOW);
}

static void test_moving_window_equals_its_model(void **state) {
    (void)state;
    random_run(WEIR_MOVING_WINDOW);
}

static void test_sliding_window_counter_equals_its_model(void **state) {
    (void)state;
    random_run(WEIR_SLIDING_WINDOW_COUNTER);
}

static void test_token_bucket_equals_its_model(void **state) {
    (void)state;
    random_run(WEIR_TOKEN_BUCKET);
}

static void test_leaky_bucket_equals_its_model(void **state) {
    (void)state;
    random_run(WEIR_LEAKY_BUCKET);
}

static void test_calendar_window_equals_its_model(void **state) {
    (void)state;
    random_run(WEIR_CALENDAR_WINDOW);
}

/* ------------------------------------------------------------------------------------ timelines */

struct timeline {
    char strategy[32];
    char limit[96];
    char third[32];
    int number; /* of its line */
};

static void begin_timeline(struct key *key, const char *line, struct timeline *timeline) {
    struct weir_error error;
    assert_int_equal(sscanf(line, "= %31[^ |] | %95[^|] | %31[^ |] |", timeline->strategy,
                            timeline->limit, timeline->third),
                     3);
    size_t len = strlen(timeline->limit);
    while (len > 0 && timeline->limit[len - 1] == ' ')
        len--;
    if (weir_limit_parse(timeline->limit, len, &key->limit, &error) < 0)
        fail_msg("line %d: %s", timeline->number, error.message);
    key->limit.strategy = weir_strategy_parse(timeline->strategy, strlen(timeline->strategy));
    assert_true(key->limit.strategy >= 0);
    third_of_timeline(&key->limit, timeline->third);
    pool_free(&key->pool);
    pool_init(&key->pool, POOL_LINES);
    memset(&key->state, 0, sizeof key->state);
}

static void run_request(struct key *key, const char *line, int number) {
    struct weir_verdict got;
    long long now, cost, allowed, remaining, reset_at, retry_after, delay;
    char name[8];
    assert_int_equal(sscanf(line, "%lld %7s %lld -> %lld %lld %lld %lld %lld", &now, name, &cost,
                            &allowed, &remaining, &reset_at, &retry_after, &delay),
                     8);
    enum op op = !strcmp(name, "hit") ? HIT : !strcmp(name, "test") ? TEST : REFUND;
    assert_int_equal(apply(key, op, now, cost, &got), 0);
    struct weir_verdict want = {.allowed = (int32_t)allowed,
                                .limit = got.limit,
                                .remaining = remaining,
                                .reset_at_ns = reset_at,
                                .retry_after_ns = retry_after,
                                .delay_ns = delay};
    int64_t limit = key->limit.burst ? key->limit.burst : key->limit.amount;
    if (got.limit == limit && !memcmp(&got, &want, sizeof got))
        return;
    print_request(key, op, now, cost);
    print_verdict("got", &got);
    print_verdict("expected", &want);
    fail_msg("timelines.txt:%d", number);
}

static void test_timelines_answer_as_written(void **state) {
    (void)state;
    char path[1024], line[1024];
    const char *folder = getenv("WEIR_TESTS");
    struct key key = {.pool = {.line = NULL}};
    struct timeline timeline = {.number = 0};
    int timelines[WEIR_STRATEGIES] = {0};
    snprintf(path, sizeof path, "%s/timelines.txt", folder ? folder : "tests");
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("cannot read %s: set WEIR_TESTS", path);
    while (fgets(line, sizeof line, file)) {
        timeline.number++;
        if (line[0] == '=') {
            begin_timeline(&key, line, &timeline);
            timelines[key.limit.strategy]++;
        } else if (line[0] != '#' && line[0] != '\n') {
            run_request(&key, line, timeline.number);
        }
    }
    fclose(file);
    pool_free(&key.pool);
    for (int i = 0; i < WEIR_STRATEGIES; i++)
        assert_true(timelines[i] >= 25);
}

/*
 * The words of a counter may have any value in a damaged file: verdicts stay within their bounds.
 */
static void test_a_damaged_counter_is_safe(void **state) {
    (void)state;
    struct key key = {.pool = {.line = NULL}};
    struct weir_verdict verdict;
    random_state = seed;
    pool_init(&key.pool, 8);
    for (int i = 0; i < 300000; i++) {
        int strategy = WEIR_SLIDING_WINDOW_COUNTER + (int)below(3);
        random_limit(&key.limit, one_in(4) ? WEIR_FIXED_WINDOW : strategy);
        key.state = (struct weir_state){.expires_ns = (int64_t)random_bits()};
        for (int j = 0; j < 3; j++)
            key.state.word[j] = (int64_t)(one_in(4) ? random_bits() : random_bits() >> below(64));
        int64_t now = below(WEIR_NOW_MAX);
        int64_t cost = (int64_t)(random_bits() >> (1 + below(63)));
        assert_int_equal(apply(&key, (enum op)below(3), now, cost, &verdict), 0);
        assert_in_range(verdict.remaining, 0, verdict.limit);
        assert_true(verdict.retry_after_ns >= 0 && verdict.delay_ns >= 0);
        assert_true(verdict.reset_at_ns >= now);
    }
    pool_free(&key.pool);
}

int main(void) {
    seed_runs();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timelines_answer_as_written),
        cmocka_unit_test(test_fixed_window_equals_its_model),
        cmocka_unit_test(test_moving_window_equals_its_model),
        cmocka_unit_test(test_sliding_window_counter_equals_its_model),
        cmocka_unit_test(test_token_bucket_equals_its_model),
        cmocka_unit_test(test_leaky_bucket_equals_its_model),
        cmocka_unit_test(test_calendar_window_equals_its_model),
        cmocka_unit_test(test_a_damaged_counter_is_safe),
    };
    return cmocka_run_group_tests_name("strategies", tests, NULL, NULL);
}
