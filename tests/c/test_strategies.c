/*
 * The strategies, without a table: the timelines of tests/timelines.txt, random runs against
 * the naive models of model.h, the promise of retry_after, and what the moving window's log costs.
 *
 * WEIR_SEED sets the seed of the random runs, WEIR_OPERATIONS their length per strategy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "strategy/log/log.h"
#include "model.h"
#include "pool.h"
#include "strategy/strategy.h"
#include "zones.h"

#define SECOND INT64_C(1000000000)
#define POOL_LINES 4096

static uint64_t seed;
static uint64_t random_state;

static uint64_t random_bits(void) { /* splitmix64 */
    uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static int64_t below(int64_t bound) {
    return bound <= 0 ? 0 : (int64_t)(random_bits() % (uint64_t)bound);
}

static bool one_in(int64_t n) {
    return below(n) == 0;
}

/* ---------------------------------------------------------------------------------------- a key */

enum op { HIT, TEST, REFUND, ABORTED };

static const char *const op_names[] = {"hit", "test", "refund", "aborted hit"};

struct key {
    struct weir_limit limit;
    struct weir_state state;
    struct pool pool;
};

/* One request as a table would do it: on a copy, which is kept or thrown away. */
static int ask(struct key *key, enum op op, int64_t now, int64_t cost,
               struct weir_verdict *verdict) {
    const struct weir_strategy_ops *strategy = weir_strategies[key->limit.strategy];
    struct weir_state copy = key->state;
    struct weir_step step = {.limit = &key->limit,
                             .now_ns = now,
                             .cost = cost,
                             .charge = op != TEST,
                             .lines = &key->pool.lines};
    memset(verdict, 0, sizeof *verdict);
    pool_begin(&key->pool);
    int rc = op == REFUND ? strategy->refund(&copy, &step, verdict)
                          : strategy->step(&copy, &step, verdict);
    if (rc < 0 || op == TEST || op == ABORTED)
        return rc;
    key->state = copy;
    pool_commit(&key->pool);
    return 0;
}

static void print_verdict(const char *who, const struct weir_verdict *v) {
    print_message(
        "  %-8s allowed %d limit %lld remaining %lld reset_at %lld retry_after %lld delay %lld\n",
        who, v->allowed, (long long)v->limit, (long long)v->remaining, (long long)v->reset_at_ns,
        (long long)v->retry_after_ns, (long long)v->delay_ns);
}

static void print_request(const struct key *key, enum op op, int64_t now, int64_t cost) {
    const struct weir_limit *l = &key->limit;
    print_message("%s: %lld per %lld ns, burst %lld, max_delay %lld: %s of %lld at %lld\n",
                  weir_strategies[l->strategy]->name, (long long)l->amount, (long long)l->period_ns,
                  (long long)l->burst, (long long)l->max_delay_ns, op_names[op], (long long)cost,
                  (long long)now);
}

/* Every line in the log or free, once, and the log sound. */
static bool pool_is_whole(struct key *key) {
    static uint8_t seen[1 << 20];
    pool_begin(&key->pool); /* forget what an aborted request had in mind */
    memset(seen, 0, key->pool.total / 8 + 1);
    if (key->limit.strategy == WEIR_MOVING_WINDOW && key->state.word[0] &&
        weir_log_verify(&key->state, &key->pool.lines, seen) < 0)
        return false;
    if (!pool_mark_free(&key->pool, seen))
        return false;
    for (uint32_t line = 1; line < key->pool.total; line++)
        if (!(seen[line / 8] >> line % 8 & 1))
            return false;
    return true;
}

/* ---------------------------------------------------------------------------------- random runs */

struct run {
    struct key key;
    struct model model, scratch;
    int64_t now;
    int64_t pace; /* typical time between requests */
    bool calm;    /* long logs: small costs, few refunds, a clock that mostly goes on */
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

/* The model as it is, or a copy that may be spoilt. */
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

/* A denied hit's retry_after: one ns earlier it is denied still, at that moment it passes. */
static void check_promise(struct run *run, int64_t cost, const struct weir_verdict *denied) {
    struct weir_verdict verdict;
    if (denied->retry_after_ns > WEIR_NOW_MAX - run->now)
        return;
    ask(&run->key, TEST, run->now + denied->retry_after_ns - 1, cost, &verdict);
    if (verdict.allowed)
        fail_run(run, HIT, cost, "passes before retry_after", denied, &verdict);
    ask(&run->key, TEST, run->now + denied->retry_after_ns, cost, &verdict);
    if (!verdict.allowed)
        fail_run(run, HIT, cost, "is denied at retry_after", denied, &verdict);
}

static void request(struct run *run, enum op op, int64_t cost) {
    struct weir_verdict got, want;
    int rc = ask(&run->key, op, run->now, cost, &got);
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

/* The time of a hit in a moving window's log, more often of a new one. */
static int64_t some_hit_ns(const struct run *run) {
    const struct model *m = &run->model;
    if (run->key.limit.strategy != WEIR_MOVING_WINDOW || m->first == m->count)
        return run->now;
    int64_t live = m->count - m->first;
    return m->hit[m->count - 1 - below(one_in(4) ? live : live < 40 ? live : 40)].time_ns;
}

/* Moves the clock: mostly a little forward, at times far, back, to an edge, or not at all. */
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

/* What a store does with a key it forgets. */
static void forget_key(struct run *run) {
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
    forget_key(run);
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
    assert_int_equal(ask(key, op, now, cost, &got), 0);
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

/* ---------------------------------------------------------------------------- the log by itself */

static void long_log(struct key *key, uint32_t lines, int64_t amount, int64_t period_ns,
                     int64_t hits) {
    struct weir_verdict verdict;
    *key = (struct key){.limit = {.amount = amount,
                                  .period_ns = period_ns,
                                  .multiples = 1,
                                  .strategy = WEIR_MOVING_WINDOW}};
    pool_init(&key->pool, lines);
    for (int64_t i = 0; i < hits; i++)
        assert_int_equal(ask(key, HIT, i * (period_ns / amount), 1, &verdict), 0);
}

static void test_a_test_writes_nothing(void **state) {
    (void)state;
    struct key key;
    struct weir_verdict verdict;
    const uint32_t lines = 4096;
    const int64_t period = 3600 * SECOND, end = period / 9000 * 9000;
    long_log(&key, lines, 9000, period, 9000);
    struct weir_line *before = malloc(lines * sizeof *before);
    memcpy(before, key.pool.line, lines * sizeof *before);
    for (int64_t now = 1; now < 3 * period; now += period / 50) /* between hits, and on them */
        for (int64_t cost = 0; cost <= 9001; cost += 1 + cost * 3) {
            assert_int_equal(ask(&key, TEST, now - cost % 2, cost, &verdict), 0);
            assert_false(key.pool.lines.locked || key.pool.lines.changed);
        }
    assert_int_equal(ask(&key, TEST, end - 1, 9000, &verdict), 0);
    assert_memory_equal(before, key.pool.line, lines * sizeof *before);
    free(before);
    pool_free(&key.pool);
}

/* The second check sees what the first has in mind: links that are not yet in the pool. */
static void test_two_checks_of_one_key_in_one_decision(void **state) {
    (void)state;
    struct key key;
    struct weir_verdict verdict;
    long_log(&key, 1024, 1000, 1000 * SECOND, 1000);
    struct weir_step step = {.limit = &key.limit,
                             .now_ns = 1400 * SECOND,
                             .cost = 1,
                             .charge = true,
                             .lines = &key.pool.lines};
    pool_begin(&key.pool);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(weir_moving_window_step(&key.state, &step, &verdict), 0);
        assert_int_equal(verdict.remaining, 1000 - 599 - i - 1);
        step.now_ns += i % 2 ? 40 * SECOND / 1000 : 0;
    }
    pool_commit(&key.pool);
    assert_true(pool_is_whole(&key));
    pool_free(&key.pool);
}

static void test_an_empty_pool_is_an_error_that_charges_nothing(void **state) {
    (void)state;
    struct key key;
    struct weir_verdict verdict;
    long_log(&key, 4, 1000000, 1000 * SECOND, 1);
    int64_t now = 0, hits = 1;
    while (ask(&key, HIT, ++now, 1, &verdict) == 0)
        hits++;
    assert_int_equal(ask(&key, HIT, now, 1, &verdict), WEIR_EFULL);
    assert_int_equal(hits, 3 * WEIR_LINE_BYTES + 1); /* steps of one ns: one byte each */
    assert_true(pool_is_whole(&key));
    assert_int_equal(ask(&key, TEST, now, 0, &verdict), 0);
    assert_int_equal(verdict.remaining, 1000000 - hits);
    assert_int_equal(ask(&key, HIT, now + 1001 * SECOND, 1, &verdict), 0);
    pool_free(&key.pool);
}

/* Any byte of the state or the pool wrong: an error or a wrong count, never a wild access or a
 * hang. */
static void test_a_damaged_log_is_safe(void **state) {
    (void)state;
    struct key key, broken;
    struct weir_verdict verdict;
    const uint32_t lines = 512;
    random_state = seed;
    long_log(&key, lines, 3000, 3000 * SECOND, 4000);
    struct weir_line *whole = malloc(lines * sizeof *whole);
    memcpy(whole, key.pool.line, lines * sizeof *whole);
    int refused = 0;
    for (int i = 0; i < 100000; i++) {
        broken = key;
        memcpy(broken.pool.line, whole, lines * sizeof *whole);
        for (int64_t flips = 1 + below(3); flips > 0; flips--) {
            uint8_t *bytes = one_in(2) ? (uint8_t *)&broken.state : (uint8_t *)broken.pool.line;
            int64_t size =
                bytes == (uint8_t *)&broken.state ? 44 : (int64_t)(lines * sizeof *whole);
            bytes[below(size)] = (uint8_t)(one_in(2) ? random_bits() : one_in(2) ? 0 : 255);
        }
        if (one_in(2)) { /* a circle of lines without a record */
            uint32_t line = (uint32_t)(1 + below(lines - 1)),
                     back = (uint32_t)(1 + below(lines - 1));
            broken.pool.line[line].next = one_in(2) ? line : back;
            broken.pool.line[back].next = line;
        }
        for (int64_t j = 0; j < 4; j++) {
            int64_t now = below(8000) * SECOND, cost = below(4000);
            int rc = ask(&broken, (enum op)below(4), now, cost, &verdict);
            assert_true(rc == 0 || rc == WEIR_ECORRUPT || rc == WEIR_EFULL);
            refused += rc == WEIR_ECORRUPT;
        }
        uint8_t seen[512 / 8 + 1] = {0};
        pool_begin(&broken.pool);
        weir_log_verify(&broken.state, &broken.pool.lines, seen);
        weir_log_drop(&broken.state, &broken.pool.lines);
    }
    assert_true(refused > 1000);
    free(whole);
    pool_free(&key.pool);
}

static int verify(struct key *key) {
    uint8_t seen[512 / 8] = {0};
    pool_begin(&key->pool);
    return weir_log_verify(&key->state, &key->pool.lines, seen);
}

static void test_verification_finds_what_is_wrong(void **state) {
    (void)state;
    struct key key;
    long_log(&key, 512, 3000, 3000 * SECOND, 4000);
    const struct weir_state whole = key.state;
    assert_int_equal(verify(&key), 0);
    for (int i = 0; i < 3; i++) { /* total, oldest, open; head, tail, index */
        key.state.word[i]++;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        key.state = whole;
        key.state.line[i]++;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        key.state = whole;
        key.state.line[i] ^= UINT32_C(1) << WEIR_LINE_BITS;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        key.state = whole;
    }
    key.state.expires_ns = 1;
    assert_int_equal(verify(&key), WEIR_ECORRUPT);
    key.state = whole;
    struct weir_line *index = &key.pool.line[whole.line[2] & WEIR_LINE_MASK];
    for (int byte = 0; byte < 52; byte++) { /* every byte of what an index line says */
        index->bytes[byte] ^= 1;
        assert_int_equal(verify(&key), WEIR_ECORRUPT);
        index->bytes[byte] ^= 1;
    }
    /* A step in front of an index line; behind the newest one only the period would tell. */
    uint8_t *record = &key.pool.line[whole.line[0] & WEIR_LINE_MASK].bytes[55];
    *record ^= 1;
    assert_int_equal(verify(&key), WEIR_ECORRUPT);
    *record ^= 1;
    assert_int_equal(verify(&key), 0);
    pool_free(&key.pool);
}

/* The words of a counter may say anything in a damaged file: verdicts stay within their bounds. */
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
        assert_int_equal(ask(&key, (enum op)below(3), now, cost, &verdict), 0);
        assert_in_range(verdict.remaining, 0, verdict.limit);
        assert_true(verdict.retry_after_ns >= 0 && verdict.delay_ns >= 0);
        assert_true(verdict.reset_at_ns >= now);
    }
    pool_free(&key.pool);
}

/* Of this process: what others do meanwhile does not count. */
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ns per request of each kind on a full log of `amount` hits, best of five rounds. */
struct costs {
    double hit, look, denied;
    double bytes; /* per hit */
};

static void measure(int64_t amount, struct costs *costs) {
    struct key key;
    struct weir_verdict verdict;
    const int64_t period = 86400 * SECOND, pace = period / amount;
    const int rounds = 5, many = 20000;
    double best[3] = {1e9, 1e9, 1e9};
    long_log(&key, (uint32_t)(amount / 8) + 64, amount, period, amount);
    costs->bytes = (double)(key.pool.total - 1 - key.pool.free_count) * 64 / (double)amount;
    int64_t now = amount * pace;
    for (int round = 0; round < rounds; round++) {
        double start = seconds();
        for (int i = 0; i < many; i++, now += pace)
            ask(&key, HIT, now, 1, &verdict);
        double hit = (seconds() - start) / many * 1e9;
        assert_true(verdict.allowed && verdict.remaining <= 1);
        start = seconds();
        for (int i = 0; i < many; i++)
            ask(&key, TEST, now + period / 2 + i, amount / 4, &verdict);
        double look = (seconds() - start) / many * 1e9;
        assert_true(verdict.allowed);
        start = seconds();
        for (int i = 0; i < many; i++)
            ask(&key, HIT, now - pace, amount / 2 + i % (int)(amount / 4), &verdict);
        double denied = (seconds() - start) / many * 1e9;
        assert_true(!verdict.allowed);
        double found[3] = {hit, look, denied};
        for (int i = 0; i < 3; i++)
            best[i] = found[i] < best[i] ? found[i] : best[i];
    }
    costs->hit = best[0];
    costs->look = best[1];
    costs->denied = best[2];
    pool_free(&key.pool);
}

/* A linear search of a million would cost milliseconds; the bound is loose for sanitizers and
 * neighbours. */
static void test_a_full_log_of_a_million_is_as_fast_as_one_of_ten(void **state) {
    (void)state;
    struct costs small, large;
    measure(10, &small);
    measure(1000000, &large);
    print_message("log of        10: hit %4.0f ns, half expired %5.0f ns, denied cost %5.0f ns\n",
                  small.hit, small.look, small.denied);
    print_message("log of 1,000,000: hit %4.0f ns, half expired %5.0f ns, denied cost %5.0f ns, "
                  "%.2f bytes a hit\n",
                  large.hit, large.look, large.denied, large.bytes);
    assert_true(large.hit < 4 * small.hit + 100);
    assert_true(large.look < 100 * small.look + 2000);
    assert_true(large.denied < 100 * small.denied + 2000);
    assert_true(large.bytes < 5);
}

static void test_a_log_of_100_hits_is_small(void **state) {
    (void)state;
    struct key key;
    long_log(&key, 64, 100, 60 * SECOND, 100);
    assert_in_range(key.pool.total - 1 - key.pool.free_count, 5, 9); /* lines of 64 bytes */
    pool_free(&key.pool);
}

int main(void) {
    const char *text = getenv("WEIR_SEED");
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("WEIR_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timelines_answer_as_written),
        cmocka_unit_test(test_fixed_window_equals_its_model),
        cmocka_unit_test(test_moving_window_equals_its_model),
        cmocka_unit_test(test_sliding_window_counter_equals_its_model),
        cmocka_unit_test(test_token_bucket_equals_its_model),
        cmocka_unit_test(test_leaky_bucket_equals_its_model),
        cmocka_unit_test(test_calendar_window_equals_its_model),
        cmocka_unit_test(test_a_test_writes_nothing),
        cmocka_unit_test(test_two_checks_of_one_key_in_one_decision),
        cmocka_unit_test(test_an_empty_pool_is_an_error_that_charges_nothing),
        cmocka_unit_test(test_a_damaged_log_is_safe),
        cmocka_unit_test(test_verification_finds_what_is_wrong),
        cmocka_unit_test(test_a_damaged_counter_is_safe),
        cmocka_unit_test(test_a_full_log_of_a_million_is_as_fast_as_one_of_ten),
        cmocka_unit_test(test_a_log_of_100_hits_is_small),
    };
    return cmocka_run_group_tests_name("strategies", tests, NULL, NULL);
}
