/*
 * Prepared checks: every role in every mode, with every mask of parts, against a naive model of
 * what a check does to counters and statistics.
 */
#include "support.h"

#include "model.h"
#include "weir/stats.h"

#define PARTS 5
#define LIMITS 6
#define COUNTERS 400

static const char *const labels[] = {"first", "second", "third"};

/* ------------------------------------------------------------------------------------ the model */

/*
 * Of the strategies whose model is a plain value, so that a decision can be taken back by copying.
 */
struct counter {
    char key[48];
    struct model model;
};

static struct counter counters[COUNTERS], saved[COUNTERS];
static int counters_used;
static struct weir_stats_counts counted[3];
static struct weir_limit limits[LIMITS];

static struct model *counter_of(const char *key, const struct weir_limit *limit) {
    for (int i = 0; i < counters_used; i++)
        if (counters[i].model.limit == limit && !strcmp(counters[i].key, key))
            return &counters[i].model;
    assert_true(counters_used < COUNTERS);
    struct counter *fresh = &counters[counters_used++];
    snprintf(fresh->key, sizeof fresh->key, "%s", key);
    fresh->model = (struct model){.limit = limit};
    return &fresh->model;
}

/* The values of one part in one request. */
struct values {
    const struct weir_limit *limit;
    char key[48];
    int64_t cost;
    int role, label;
    bool takes_part;
};

static bool is_charged(const struct values *values, bool settle) {
    return settle || values->role == WEIR_ROLE_CHARGED;
}

static void model_enforced(const struct values given[PARTS], enum weir_mode mode, bool settle,
                           int64_t now, struct weir_verdict verdicts[PARTS], bool *denied,
                           bool *vetoed) {
    for (int i = 0; i < PARTS; i++)
        (void)counter_of(given[i].key, given[i].limit); /* so that all exist and can be saved */
    memcpy(saved, counters, sizeof saved);
    *denied = *vetoed = false;
    for (int i = 0; i < PARTS; i++) {
        const struct values *values = &given[i];
        if (!values->takes_part || values->role == WEIR_ROLE_SHADOW)
            continue;
        struct model *counter = counter_of(values->key, values->limit);
        bool charged = is_charged(values, settle);
        if (mode == WEIR_REFUND)
            model_refund(counter, now, charged ? values->cost : 0, &verdicts[i]);
        else
            model_step(counter, now, values->cost, charged, &verdicts[i]);
        *denied |= !verdicts[i].allowed;
        *vetoed |= !verdicts[i].allowed && values->role == WEIR_ROLE_PEEKED && !settle;
    }
    bool keeps =
        mode == WEIR_REFUND || (mode == WEIR_HIT && !*denied) || (mode == WEIR_EACH && !*vetoed);
    if (keeps)
        return;
    memcpy(counters, saved, sizeof saved);
    for (int i = 0; i < PARTS && mode != WEIR_TEST; i++)
        if (given[i].takes_part && given[i].role != WEIR_ROLE_SHADOW) {
            struct weir_verdict uncharged;
            model_step(counter_of(given[i].key, given[i].limit), now, 0, false, &uncharged);
            verdicts[i].remaining = uncharged.remaining;
            verdicts[i].reset_at_ns = uncharged.reset_at_ns;
        }
}

/*
 * A test changes nothing: the second part of one counter includes what the first would have taken.
 */
static void model_test(const struct values given[PARTS], int64_t now,
                       struct weir_verdict verdicts[PARTS]) {
    for (int i = 0; i < PARTS; i++) {
        if (!given[i].takes_part || given[i].role == WEIR_ROLE_SHADOW)
            continue;
        int64_t cost = given[i].cost;
        for (int j = 0; j < i; j++)
            if (given[j].takes_part && given[j].role == WEIR_ROLE_CHARGED && verdicts[j].allowed &&
                given[j].limit == given[i].limit && !strcmp(given[j].key, given[i].key))
                cost += given[j].cost;
        model_step(counter_of(given[i].key, given[i].limit), now, cost, false, &verdicts[i]);
    }
}

static void model_shadows(const struct values given[PARTS], enum weir_mode mode, bool denied,
                          int64_t now, struct weir_verdict verdicts[PARTS]) {
    bool charges = mode == WEIR_EACH || (mode == WEIR_HIT && !denied);
    for (int i = 0; i < PARTS; i++) {
        if (!given[i].takes_part || given[i].role != WEIR_ROLE_SHADOW)
            continue;
        struct model *counter = counter_of(given[i].key, given[i].limit);
        if (mode == WEIR_REFUND)
            model_refund(counter, now, given[i].cost, &verdicts[i]);
        else
            model_step(counter, now, given[i].cost, charges, &verdicts[i]);
        if (charges && !verdicts[i].allowed && given[i].label >= 0)
            counted[given[i].label].shadow++;
    }
}

static void model_count(const struct values given[PARTS], const struct weir_verdict verdicts[PARTS],
                        bool settle, bool all) {
    for (int i = 0; i < PARTS; i++) {
        const struct weir_verdict *v = &verdicts[i];
        if (!given[i].takes_part || given[i].role == WEIR_ROLE_SHADOW || given[i].label < 0)
            continue;
        struct weir_stats_counts *counts = &counted[given[i].label];
        if (!v->allowed) {
            counts->denied++;
        } else if (all && is_charged(&given[i], settle)) {
            counts->allowed++;
            counts->near_limit += v->remaining <= v->limit / 5;
        }
    }
}

static struct weir_decision model_choose(const struct values given[PARTS],
                                         const struct weir_verdict verdicts[PARTS]) {
    bool enforced = false;
    int best = -1;
    for (int i = 0; i < PARTS; i++)
        enforced |= given[i].takes_part && given[i].role != WEIR_ROLE_SHADOW;
    for (int i = 0; i < PARTS; i++) {
        if (!given[i].takes_part || (enforced && given[i].role == WEIR_ROLE_SHADOW))
            continue;
        const struct weir_verdict *a = &verdicts[i], *b = &verdicts[best < 0 ? i : best];
        if (best < 0 || (b->allowed && !a->allowed) ||
            (!a->allowed && !b->allowed && a->retry_after_ns > b->retry_after_ns) ||
            (a->allowed && b->allowed && given[i].limit->period_ns < given[best].limit->period_ns))
            best = i;
    }
    return (struct weir_decision){.allowed = enforced ? verdicts[best].allowed : 1,
                                  .deciding = best};
}

static struct weir_decision model_decide(const struct values given[PARTS], enum weir_mode mode,
                                         bool settle, int64_t now,
                                         struct weir_verdict verdicts[PARTS]) {
    bool denied = false, vetoed = false;
    if (mode == WEIR_TEST)
        model_test(given, now, verdicts);
    else
        model_enforced(given, mode, settle, now, verdicts, &denied, &vetoed);
    if (mode == WEIR_HIT || mode == WEIR_EACH)
        model_count(given, verdicts, settle, !denied || (mode == WEIR_EACH && !vetoed));
    model_shadows(given, mode, denied, now, verdicts);
    return model_choose(given, verdicts);
}

/* ---------------------------------------------------------------------------------- random runs */

struct setting {
    struct weir_part part[PARTS];
    char before[PARTS][8], after[PARTS][8];
    struct weir_prepared *prepared;
    int number[PARTS]; /* of the limit */
};

static struct weir_bytes bytes_of(const char *text) {
    return (struct weir_bytes){text, strlen(text)};
}

static void random_setting(struct weir_table *table, struct setting *setting) {
    struct weir_error error;
    for (int i = 0; i < PARTS; i++) {
        int role = (int)random_below(4);
        setting->number[i] = (int)random_below(LIMITS);
        snprintf(setting->before[i], sizeof setting->before[i],
                 role == WEIR_ROLE_SHADOW ? "s%d/" : "b%d/",
                 role == WEIR_ROLE_SHADOW ? i : (int)random_below(2));
        snprintf(setting->after[i], sizeof setting->after[i], random_below(2) ? "" : "/tail");
        int label = (int)random_below(4);
        setting->part[i] = (struct weir_part){
            .limit = &limits[setting->number[i]],
            .before = bytes_of(setting->before[i]),
            .after = bytes_of(setting->after[i]),
            .cost = (int64_t)random_below(4),
            .role = role,
            .label = label < 3 ? weir_stats_label(table, labels[label], strlen(labels[label])) : 0,
        };
    }
    assert_int_equal(weir_prepare(setting->part, PARTS, &setting->prepared, &error), 0);
    assert_int_equal(weir_prepared_count(setting->prepared), PARTS);
}

/* A request, and its values for each part. The arrays belong to the caller. */
struct varied {
    struct weir_bytes clients[PARTS], after[PARTS];
    int64_t costs[PARTS];
};

static const char *const clients[] = {"10.0.0.1", "10.0.0.2", ""};

static struct weir_request random_request(const struct setting *setting, int64_t now, bool settle,
                                          struct varied *varied, struct values given[PARTS]) {
    const char *one = clients[random_below(3)];
    struct weir_request request = {.now_ns = now, .client = bytes_of(one)};
    uint32_t mask = (uint32_t)random_below(1u << PARTS), every = (1u << PARTS) - 1;
    request.mode = settle ? (random_below(3) ? WEIR_EACH : WEIR_REFUND) : (int)random_below(4);
    request.parts = random_below(3) && mask ? mask : settle ? every : 0;
    request.clients = random_below(3) ? NULL : varied->clients;
    request.after = random_below(3) ? NULL : varied->after;
    request.costs = random_below(3) ? NULL : varied->costs;
    for (int i = 0; i < PARTS; i++) {
        const char *client = clients[random_below(3)];
        bool replaced = random_below(2);
        varied->clients[i] = bytes_of(client);
        varied->after[i] = replaced ? bytes_of("+") : (struct weir_bytes){NULL, 0};
        varied->costs[i] = (int64_t)random_below(5);
        const struct weir_part *part = &setting->part[i];
        given[i] = (struct values){
            .limit = part->limit,
            .cost = request.costs ? varied->costs[i] : part->cost,
            .role = part->role,
            .label = part->label - 1,
            .takes_part = !request.parts || request.parts >> i & 1,
        };
        snprintf(given[i].key, sizeof given[i].key, "%s%s%s", setting->before[i],
                 request.clients ? client : one,
                 request.after && replaced ? "+" : setting->after[i]);
    }
    return request;
}

static void compare_verdict(int round, int i, const struct weir_verdict *v,
                            const struct weir_verdict *m) {
    if (v->allowed == m->allowed && v->limit == m->limit && v->remaining == m->remaining &&
        v->reset_at_ns == m->reset_at_ns && v->retry_after_ns == m->retry_after_ns &&
        v->delay_ns == m->delay_ns)
        return;
    fail_msg("WEIR_SEED=%" PRIu64
             ": round %d, part %d: allowed %d/%d remaining %lld/%lld reset %lld/%lld retry "
             "%lld/%lld delay %lld/%lld (table/model)",
             seed, round, i, v->allowed, m->allowed, (long long)v->remaining,
             (long long)m->remaining, (long long)v->reset_at_ns, (long long)m->reset_at_ns,
             (long long)v->retry_after_ns, (long long)m->retry_after_ns, (long long)v->delay_ns,
             (long long)m->delay_ns);
}

static void ask_both(struct weir_table *table, const struct setting *setting, int64_t now,
                     int round) {
    struct weir_verdict got[PARTS], model[PARTS], untouched = {.limit = -77};
    struct weir_decision decision, expected;
    struct varied varied;
    struct values given[PARTS];
    bool settle = random_below(4) == 0;
    struct weir_request request = random_request(setting, now, settle, &varied, given);
    for (int i = 0; i < PARTS; i++)
        got[i] = model[i] = untouched;
    expected = model_decide(given, (enum weir_mode)request.mode, settle, now, model);
    assert_int_equal((settle ? weir_settle_prepared : weir_decide_prepared)(
                         table, setting->prepared, &request, got, &decision),
                     0);
    for (int i = 0; i < PARTS; i++)
        compare_verdict(round, i, &got[i], &model[i]);
    if (decision.allowed != expected.allowed || decision.deciding != expected.deciding)
        fail_msg("WEIR_SEED=%" PRIu64 ": round %d: allowed %d/%d deciding %d/%d (table/model)",
                 seed, round, decision.allowed, expected.allowed, decision.deciding,
                 expected.deciding);
}

static void compare_counts(struct weir_table *table) {
    struct weir_stats_counts counts[WEIR_STATS_LABELS];
    size_t n = WEIR_STATS_LABELS;
    assert_int_equal(weir_stats_counts(table, counts, &n), 0);
    for (size_t i = 0; i < n; i++)
        for (int j = 0; j < 3; j++)
            if (!strcmp(counts[i].label, labels[j])) {
                assert_int_equal(counts[i].allowed, counted[j].allowed);
                assert_int_equal(counts[i].denied, counted[j].denied);
                assert_int_equal(counts[i].near_limit, counted[j].near_limit);
                assert_int_equal(counts[i].shadow, counted[j].shadow);
            }
    for (int j = 0; j < 3; j++)
        assert_true(counted[j].allowed > 100 && counted[j].denied > 100 && counted[j].shadow > 100);
}

static void test_roles_modes_and_masks_agree_with_a_model(void **state) {
    static const int strategies[] = {WEIR_FIXED_WINDOW, WEIR_TOKEN_BUCKET, WEIR_LEAKY_BUCKET};
    struct weir_table *table = open_table("memory://?keys=4096");
    int64_t now = NOW;
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(weir_stats_label(table, labels[i], strlen(labels[i])), i + 1);
    for (int i = 0; i < LIMITS; i++)
        limits[i] = limit_of(strategies[i % 3], 3 + 2 * i, (1 + i % 4) * SECOND);
    for (int round = 0; round < 20000; round++) {
        static struct setting setting;
        if (round % 50 == 0) {
            weir_prepared_free(setting.prepared);
            random_setting(table, &setting);
        }
        now += (int64_t)random_below(SECOND / 3);
        ask_both(table, &setting, now, round);
        if (round == 19999)
            weir_prepared_free(setting.prepared);
    }
    /* The counters are those of weir_decide() for the whole key. */
    for (int i = 0; i < counters_used; i++) {
        struct weir_verdict model;
        model_step(&counters[i].model, now, 1, false, &model);
        assert_int_equal(remaining(table, counters[i].model.limit, counters[i].key, now),
                         model.remaining);
    }
    compare_counts(table);
    check_sound(table);
    weir_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roles_modes_and_masks_agree_with_a_model),
    };
    seed_random();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
