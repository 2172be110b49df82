/*
 * Rules about clients: random lists and look-ups against a naive model that looks at every rule, what a
 * decision makes of them, capacity, bad input.
 */
#include "support.h"

#include "rules/rules.h"
#include "table/hash.h"

/* ------------------------------------------------------------------------------------------- the model */

#define MODEL_MAX 400

struct model_rule {
    char client[64];
    struct weir_range range; /* family NONE: a name */
    int kind;
    int64_t since_ns, until_ns;
};

struct model {
    struct model_rule rule[MODEL_MAX];
    int count;
};

static unsigned __int128 wide(struct weir_address address) {
    return (unsigned __int128)address.high << 64 | address.low;
}

static bool covers(const struct model_rule *rule, const char *client) {
    struct weir_address address;
    enum weir_family family = weir_address_parse(client, strlen(client), &address);
    if (family != rule->range.family)
        return false;
    if (family == WEIR_FAMILY_NONE)
        return strcmp(rule->client, client) == 0;
    uint32_t bits = (family == WEIR_FAMILY_4 ? 32u : 128u) - rule->range.prefix;
    return bits == 128 || wide(address) >> bits == wide(rule->range.first) >> bits;
}

/* The narrowest rule that holds, or NULL. */
static const struct model_rule *model_find(const struct model *model, const char *client,
                                           int64_t now_ns) {
    const struct model_rule *best = NULL;
    for (int i = 0; i < model->count; i++) {
        const struct model_rule *rule = &model->rule[i];
        if (now_ns < rule->until_ns && covers(rule, client) &&
            (!best || rule->range.prefix > best->range.prefix))
            best = rule;
    }
    return best;
}

static int model_index(const struct model *model, const struct weir_range *range,
                       const char *client) {
    for (int i = 0; i < model->count; i++) {
        const struct weir_range *other = &model->rule[i].range;
        if (other->family == range->family &&
            (range->family == WEIR_FAMILY_NONE
                 ? strcmp(model->rule[i].client, client) == 0
                 : other->prefix == range->prefix && wide(other->first) == wide(range->first)))
            return i;
    }
    return -1;
}

static void model_set(struct model *model, const char *client, int kind, int64_t since_ns,
                      int64_t until_ns) {
    struct model_rule rule = {.kind = kind, .since_ns = since_ns, .until_ns = until_ns};
    assert_int_equal(weir_range_parse(client, strlen(client), &rule.range, NULL), 0);
    snprintf(rule.client, sizeof rule.client, "%s", client);
    int i = model_index(model, &rule.range, client);
    if (i < 0) {
        assert_true(model->count < MODEL_MAX);
        i = model->count++;
    }
    model->rule[i] = rule;
}

static bool model_remove(struct model *model, const char *client) {
    struct weir_range range;
    assert_int_equal(weir_range_parse(client, strlen(client), &range, NULL), 0);
    int i = model_index(model, &range, client);
    if (i >= 0)
        model->rule[i] = model->rule[--model->count];
    return i >= 0;
}

/* --------------------------------------------------------------------------------------- random clients */

/* Few bits differ, so that ranges nest, touch and are replaced. */
static struct weir_range random_range(void) {
    struct weir_range range = {.family = random_below(2) ? WEIR_FAMILY_4 : WEIR_FAMILY_6};
    uint32_t bits = range.family == WEIR_FAMILY_4 ? 32 : 128;
    unsigned __int128 value = 0;
    for (int i = 0; i < 4; i++)
        value |= (unsigned __int128)1 << random_below(bits);
    if (random_below(3) == 0)
        value = ~value;
    if (random_below(20) == 0)
        value = random_below(2) ? 0 : ~(unsigned __int128)0;
    range.prefix = (uint8_t)random_below(bits + 1);
    if (random_below(3) == 0)
        range.prefix = (uint8_t)bits;
    uint32_t behind = bits - range.prefix;
    value = behind == 128 ? 0 : value >> behind << behind;
    if (range.family == WEIR_FAMILY_4)
        value &= UINT32_MAX;
    range.first = (struct weir_address){(uint64_t)(value >> 64), (uint64_t)value};
    return range;
}

static void random_client(char *text, size_t size) {
    if (random_below(4) == 0) {
        snprintf(text, size, "user-%" PRIu64, random_below(40));
        return;
    }
    struct weir_range range = random_range();
    struct weir_address address;
    size_t len = weir_range_print(&range, text, size);
    if (range.family == WEIR_FAMILY_6 &&
        weir_address_parse(text, strcspn(text, "/"), &address) == WEIR_FAMILY_4)
        snprintf(text, size, "::/%u",
                 range.prefix > 3 ? 3 : range.prefix); /* a mapped one: another family */
    (void)len;
}

/* An address in, at the edge of, or right behind a range; or a name. */
static void random_probe(const struct model *model, char *text, size_t size) {
    struct weir_range range = random_range();
    if (random_below(5) == 0) {
        snprintf(text, size, "user-%" PRIu64, random_below(44));
        return;
    }
    if (model->count > 0 && random_below(8)) {
        const struct model_rule *rule = &model->rule[random_below((uint64_t)model->count)];
        if (rule->range.family != WEIR_FAMILY_NONE)
            range = rule->range;
    }
    bool four = range.family == WEIR_FAMILY_4;
    unsigned __int128 first = wide(range.first), last = wide(weir_range_last(&range));
    unsigned __int128 inside = (unsigned __int128)next_random() << 64 | next_random();
    unsigned __int128 places[] = {first, last, first - 1, last + 1,
                                  first | (inside & (last - first))};
    unsigned __int128 value = places[random_below(5)];
    if (four)
        value &= UINT32_MAX;
    struct weir_range probe = {.first = {(uint64_t)(value >> 64), (uint64_t)value},
                               .family = range.family,
                               .prefix = four ? 32 : 128};
    if (four && random_below(4) == 0)
        snprintf(text, size, "::ffff:%u.%u.%u.%u", (unsigned)(probe.first.low >> 24),
                 (unsigned)(probe.first.low >> 16 & 255), (unsigned)(probe.first.low >> 8 & 255),
                 (unsigned)(probe.first.low & 255));
    else
        weir_range_print(&probe, text, size);
}

static int64_t random_until(int64_t now_ns) {
    return random_below(3) == 0 ? WEIR_NEVER : now_ns + 1 + (int64_t)random_below(100 * SECOND);
}

/* ------------------------------------------------------------------------------------- model against table */

static void set(struct weir_table *table, const char *client, int kind, int64_t now_ns,
                int64_t until_ns) {
    struct weir_error error = {.message = "?"};
    if (weir_rules_set(table, client, strlen(client), kind, now_ns, until_ns, &error) < 0)
        fail_msg("WEIR_SEED=%" PRIu64 ": \"%s\": %s", seed, client, error.message);
}

static void compare_lookup(struct weir_table *table, const struct model *model, int64_t now_ns) {
    char text[80];
    struct weir_rule rule;
    random_probe(model, text, sizeof text);
    const struct model_rule *expected = model_find(model, text, now_ns);
    int kind = weir_rules_find(table, text, strlen(text), now_ns, &rule);
    struct weir_rule_match match = weir_rules_match_client(table, text, strlen(text), now_ns);
    if (kind != (expected ? expected->kind : WEIR_RULE_NONE) || match.kind != kind)
        fail_msg("WEIR_SEED=%" PRIu64 ": \"%s\": kind %d and %d, not %d", seed, text, kind,
                 match.kind, expected ? expected->kind : 0);
    if (!expected)
        return;
    assert_int_equal(rule.until_ns, expected->until_ns);
    assert_int_equal(match.until_ns, expected->until_ns);
    assert_int_equal(rule.since_ns, expected->since_ns);
    assert_int_equal(rule.kind, kind);
    struct weir_range a, b;
    assert_int_equal(weir_range_parse(rule.client, rule.client_len, &a, NULL), 0);
    b = expected->range;
    assert_int_equal(a.family, b.family);
    if (a.family == WEIR_FAMILY_NONE)
        assert_string_equal(rule.client, expected->client);
    assert_true(a.prefix == b.prefix && wide(a.first) == wide(b.first));
}

static void compare_list(struct weir_table *table, const struct model *model) {
    static struct weir_rule list[MODEL_MAX];
    size_t n = MODEL_MAX;
    assert_int_equal(weir_rules_list(table, list, &n), 0);
    if ((int)n != model->count)
        fail_msg("WEIR_SEED=%" PRIu64 ": %zu rules, not %d", seed, n, model->count);
    for (size_t i = 0; i < n; i++) {
        struct weir_range range;
        assert_int_equal(weir_range_parse(list[i].client, list[i].client_len, &range, NULL), 0);
        int at = model_index(model, &range, list[i].client);
        if (at < 0)
            fail_msg("WEIR_SEED=%" PRIu64 ": \"%s\" is not in the model", seed, list[i].client);
        assert_int_equal(list[i].kind, model->rule[at].kind);
        assert_int_equal(list[i].until_ns, model->rule[at].until_ns);
        assert_int_equal(list[i].since_ns, model->rule[at].since_ns);
    }
}

static void load_some(struct weir_table *table, struct model *model, int64_t now_ns) {
    static struct weir_rule rules[60];
    size_t count = (size_t)random_below(60);
    if (model->count + (int)count > MODEL_MAX)
        return;
    for (size_t i = 0; i < count; i++) {
        random_client(rules[i].client, sizeof rules[i].client);
        rules[i].client_len = (uint32_t)strlen(rules[i].client);
        rules[i].kind = random_below(2) ? WEIR_RULE_BLOCK : WEIR_RULE_ALLOW;
        rules[i].until_ns = random_until(now_ns);
    }
    struct weir_error error;
    if (weir_rules_load(table, rules, count, now_ns, &error) < 0)
        fail_msg("WEIR_SEED=%" PRIu64 ": %s", seed, error.message);
    struct model before = *model;
    for (size_t i = 0; i < count; i++)
        model_set(model, rules[i].client, rules[i].kind, now_ns, rules[i].until_ns);
    for (int i = 0; i < model->count;
         i++) { /* what a load finds as it shall be keeps its beginning */
        struct model_rule *rule = &model->rule[i];
        int at = model_index(&before, &rule->range, rule->client);
        if (at >= 0 && before.rule[at].kind == rule->kind &&
            before.rule[at].until_ns == rule->until_ns)
            rule->since_ns = before.rule[at].since_ns;
    }
}

static void test_random_rules_against_a_model(void **state) {
    static struct model model;
    int rounds = UNDER_TSAN ? 10 : 60;
    (void)state;
    for (int round = 0; round < rounds; round++) {
        struct weir_table *table = open_table("memory://?keys=64&rules=400");
        int64_t now_ns = NOW;
        char text[80];
        model.count = 0;
        for (int i = 0; i < 60; i++) {
            uint64_t action = random_below(8);
            now_ns += (int64_t)random_below(5 * SECOND);
            if (action == 0) {
                load_some(table, &model, now_ns);
            } else if (action == 1 && model.count > 0) {
                snprintf(text, sizeof text, "%s",
                         model.rule[random_below((uint64_t)model.count)].client);
                assert_int_equal(weir_rules_remove(table, text, strlen(text), NULL), 1);
                assert_true(model_remove(&model, text));
            } else if (action == 2) {
                random_client(text, sizeof text);
                assert_int_equal(weir_rules_remove(table, text, strlen(text), NULL),
                                 model_remove(&model, text));
            } else if (model.count < MODEL_MAX) {
                int kind = random_below(2) ? WEIR_RULE_BLOCK : WEIR_RULE_ALLOW;
                int64_t until_ns = random_until(now_ns);
                random_client(text, sizeof text);
                set(table, text, kind, now_ns, until_ns);
                model_set(&model, text, kind, now_ns, until_ns);
            }
            for (int j = 0; j < 30; j++)
                compare_lookup(table, &model, now_ns + (int64_t)random_below(50 * SECOND));
            if (i % 10 == 0) {
                compare_list(table, &model);
                check_sound(table);
            }
        }
        compare_list(table, &model);
        check_sound(table);
        weir_table_close(table);
    }
}

/* Many ranges that touch, so that each level of the index is full, and then one more. */
static void test_lists_of_every_size_around_whole_groups(void **state) {
    static const int sizes[] = {1,   2,   7,   8,   9,   15,   16,   17,   127,
                                128, 129, 255, 256, 257, 2047, 2048, 2049, 5000};
    static struct weir_rule rules[5000];
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int six = 0; six < 2; six++) {
            int count = sizes[s], apart = six ? 1 : 2; /* neighbours, or with a hole between */
            struct weir_table *table = open_table("memory://?keys=64&rules=5000");
            for (int i = 0; i < count; i++) {
                int number = i * apart;
                rules[i].kind = i % 3 ? WEIR_RULE_BLOCK : WEIR_RULE_ALLOW;
                rules[i].until_ns = NOW + 1 + i;
                rules[i].client_len =
                    (uint32_t)sprintf(rules[i].client, six ? "2001:db8:0:%x::/64" : "10.%d.%d.0/24",
                                      six ? number : number / 256, number % 256);
            }
            assert_int_equal(weir_rules_load(table, rules, (size_t)count, NOW, NULL), 0);
            check_sound(table);
            for (int i = 0; i < count; i++) {
                char text[64];
                int number = i * apart;
                int len = sprintf(text, six ? "2001:db8:0:%x:1::%x" : "10.%d.%d.77",
                                  six ? number : number / 256, number % 256);
                struct weir_rule_match match =
                    weir_rules_match_client(table, text, (size_t)len, NOW);
                if (match.kind != rules[i].kind || match.until_ns != NOW + 1 + i)
                    fail_msg("%d rules: \"%s\": kind %d", count, text, match.kind);
                assert_int_equal(
                    weir_rules_match_client(table, text, (size_t)len, NOW + 1 + i).kind, 0);
                len = sprintf(text, six ? "2001:db8:1:%x::1" : "10.%d.%d.0",
                              six ? number : (number + 1) / 256, (number + 1) % 256);
                assert_int_equal(weir_rules_match_client(table, text, (size_t)len, NOW).kind, 0);
            }
            weir_table_close(table);
        }
}

static void test_all_nested(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    (void)state;
    for (int prefix = 0; prefix <= 128; prefix++) { /* the narrowest ends first */
        struct weir_range range = {.family = WEIR_FAMILY_6, .prefix = (uint8_t)prefix};
        char text[64];
        unsigned __int128 value = prefix == 0 ? 0 : ~(unsigned __int128)0 << (128 - prefix);
        range.first = (struct weir_address){(uint64_t)(value >> 64), (uint64_t)value};
        weir_range_print(&range, text, sizeof text);
        set(table, text, prefix % 2 ? WEIR_RULE_BLOCK : WEIR_RULE_ALLOW, NOW, NOW + 1000 - prefix);
    }
    check_sound(table);
    const char *last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for (int prefix = 128; prefix >= 0; prefix--)
        assert_int_equal(weir_rules_find(table, last, strlen(last), NOW + 1000 - prefix - 1, NULL),
                         prefix % 2 ? WEIR_RULE_BLOCK : WEIR_RULE_ALLOW);
    assert_int_equal(weir_rules_find(table, last, strlen(last), NOW + 1000, NULL), WEIR_RULE_NONE);
    weir_table_close(table);
}

/* --------------------------------------------------------------------------------------------- decisions */

static struct weir_check check_by(const struct weir_limit *limit, const char *client) {
    struct weir_check check = check_of(limit, client, 1);
    check.client = check.key;
    check.client_len = check.key_len;
    return check;
}

static struct weir_decision decide(struct weir_table *table, const struct weir_check *checks,
                                   size_t n, int64_t now_ns, enum weir_mode mode,
                                   struct weir_verdict *verdicts) {
    struct weir_decision decision = {.rule = 9};
    int rc = weir_decide(table, checks, n, now_ns, mode, verdicts, &decision);
    if (rc < 0)
        fail_msg("%s", weir_strerror(rc));
    return decision;
}

static void test_a_blocked_client_is_denied_until_the_rule_ends(void **state) {
    static const enum weir_mode modes[] = {WEIR_HIT, WEIR_TEST, WEIR_EACH};
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_check check = check_by(&limit, "10.1.2.3");
    struct weir_verdict verdict;
    (void)state;
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_NONE);
    set(table, "10.0.0.0/8", WEIR_RULE_BLOCK, NOW, NOW + 5 * SECOND);
    for (int i = 0; i < 3; i++) {
        struct weir_decision decision = decide(table, &check, 1, NOW + SECOND, modes[i], &verdict);
        assert_int_equal(decision.allowed, 0);
        assert_int_equal(decision.rule, WEIR_RULE_BLOCK);
        assert_int_equal(decision.deciding, 0);
        assert_int_equal(verdict.allowed, 0);
        assert_int_equal(verdict.limit, 10);
        assert_int_equal(verdict.remaining, 0);
        assert_int_equal(verdict.retry_after_ns, 4 * SECOND);
        assert_int_equal(verdict.reset_at_ns, NOW + 5 * SECOND);
        assert_int_equal(verdict.delay_ns, 0);
    }
    assert_int_equal(decide(table, &check, 1, NOW + 5 * SECOND - 1, WEIR_HIT, &verdict).allowed, 0);
    struct weir_decision decision = decide(table, &check, 1, NOW + 5 * SECOND, WEIR_HIT, &verdict);
    assert_int_equal(decision.allowed, 1);
    assert_int_equal(decision.rule, WEIR_RULE_NONE);
    assert_int_equal(verdict.remaining, 8); /* nothing was charged meanwhile */
    weir_table_close(table);
}

static void test_a_block_for_good_never_lets_pass(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_TOKEN_BUCKET, 10, MINUTE);
    struct weir_check check = check_by(&limit, "alice");
    struct weir_verdict verdict;
    (void)state;
    limit.burst = 30;
    set(table, "alice", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(decide(table, &check, 1, WEIR_NOW_MAX, WEIR_HIT, &verdict).allowed, 0);
    assert_int_equal(verdict.retry_after_ns, WEIR_NEVER);
    assert_int_equal(verdict.reset_at_ns, WEIR_NOW_MAX + MINUTE);
    assert_int_equal(verdict.limit, 30);
    check.cost = 0;
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).allowed, 0);
    assert_int_equal(weir_rules_remove(table, "alice", 5, NULL), 1);
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).allowed, 1);
    weir_table_close(table);
}

static void test_one_let_through_is_charged_nothing(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check check = check_by(&limit, "2001:db8::7");
    struct weir_verdict verdict;
    (void)state;
    decide(table, &check, 1, NOW, WEIR_HIT, &verdict);
    set(table, "2001:db8::/32", WEIR_RULE_ALLOW, NOW, NOW + SECOND);
    for (int i = 0; i < 5; i++) {
        struct weir_decision decision = decide(table, &check, 1, NOW, WEIR_HIT, &verdict);
        assert_int_equal(decision.allowed, 1);
        assert_int_equal(decision.rule, WEIR_RULE_ALLOW);
        assert_int_equal(verdict.remaining, 2);
        assert_int_equal(verdict.retry_after_ns, 0);
        assert_int_equal(verdict.reset_at_ns, NOW);
    }
    assert_int_equal(decide(table, &check, 1, NOW + SECOND, WEIR_HIT, &verdict).rule,
                     WEIR_RULE_NONE);
    assert_int_equal(verdict.remaining, 0);
    assert_int_equal(decide(table, &check, 1, NOW + SECOND, WEIR_HIT, &verdict).allowed, 0);
    weir_table_close(table);
}

static void test_several_clients_in_one_decision(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check checks[3] = {check_by(&limit, "10.1.2.3"), check_by(&limit, "alice"),
                                   check_of(&limit, "nobody", 1)};
    struct weir_verdict verdicts[3];
    (void)state;
    set(table, "10.1.2.3", WEIR_RULE_ALLOW, NOW, WEIR_NEVER);
    for (int i = 0; i < 2; i++) { /* the address passes, the others are counted */
        struct weir_decision decision = decide(table, checks, 3, NOW, WEIR_HIT, verdicts);
        assert_int_equal(decision.allowed, 1);
        assert_int_equal(decision.rule, WEIR_RULE_NONE);
        assert_int_equal(verdicts[0].remaining, 2);
        assert_int_equal(verdicts[1].remaining, 1 - i);
        assert_int_equal(verdicts[2].remaining, 1 - i);
    }
    struct weir_decision decision = decide(table, checks, 3, NOW, WEIR_HIT, verdicts);
    assert_int_equal(decision.allowed, 0);
    assert_int_equal(decision.deciding, 1);
    assert_int_equal(verdicts[0].allowed, 1);
    assert_int_equal(weir_rules_match(table, checks, 3, NOW, verdicts, NULL), 0);
    assert_int_equal(weir_rules_match(table, checks, 1, NOW, verdicts, &decision), 1);
    assert_int_equal(decision.rule, WEIR_RULE_ALLOW);
    set(table, "alice", WEIR_RULE_BLOCK, NOW, NOW + 3 * SECOND); /* one who is blocked blocks all */
    decision = decide(table, checks, 3, NOW, WEIR_EACH, verdicts);
    assert_int_equal(decision.allowed, 0);
    assert_int_equal(decision.rule, WEIR_RULE_BLOCK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(verdicts[i].allowed, 0);
        assert_int_equal(verdicts[i].retry_after_ns, 3 * SECOND);
    }
    assert_int_equal(weir_rules_match(table, checks, 3, NOW, verdicts, &decision), 1);
    assert_int_equal(decision.rule, WEIR_RULE_BLOCK);
    assert_int_equal(weir_rules_match(table, checks, 3, NOW + 3 * SECOND, verdicts, &decision), 0);
    weir_table_close(table);
}

static void test_who_is_nobody_has_no_rule(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check check = check_of(&limit, "alice", 1);
    struct weir_verdict verdict;
    (void)state;
    set(table, "alice", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    set(table, "0.0.0.0/0", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_NONE);
    check.client = "";
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_NONE);
    weir_table_close(table);
}

static void test_refund_and_reset_leave_rules_alone(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 2, MINUTE);
    struct weir_check check = check_by(&limit, "alice");
    struct weir_verdict verdict;
    (void)state;
    decide(table, &check, 1, NOW, WEIR_HIT, &verdict);
    set(table, "alice", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    struct weir_decision decision = decide(table, &check, 1, NOW, WEIR_REFUND, &verdict);
    assert_int_equal(decision.allowed, 1);
    assert_int_equal(decision.rule, WEIR_RULE_NONE);
    assert_int_equal(verdict.remaining, 2);
    assert_int_equal(weir_table_reset(table), 0);
    assert_int_equal(decide(table, &check, 1, NOW, WEIR_HIT, &verdict).rule, WEIR_RULE_BLOCK);
    weir_table_close(table);
}

/* --------------------------------------------------------------------------------------- names by hash */

static void test_a_client_may_be_named_by_its_hash(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_rule rule;
    char name[32];
    size_t n = 1;
    (void)state;
    snprintf(name, sizeof name, "#%016" PRIx64, weir_client_hash(table, "alice", 5));
    set(table, name, WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(weir_rules_match_client(table, "alice", 5, NOW).kind, WEIR_RULE_BLOCK);
    assert_int_equal(weir_rules_find(table, name, strlen(name), NOW, &rule), WEIR_RULE_BLOCK);
    assert_string_equal(rule.client, name);
    /* A client that calls itself so is another one. */
    assert_int_equal(weir_rules_match_client(table, name, strlen(name), NOW).kind, WEIR_RULE_NONE);
    set(table, "alice", WEIR_RULE_ALLOW, NOW, WEIR_NEVER); /* the same rule, now with its name */
    assert_int_equal(weir_rules_list(table, &rule, &n), 0);
    assert_int_equal(n, 1);
    assert_string_equal(rule.client, "alice");
    set(table, name, WEIR_RULE_BLOCK, NOW, WEIR_NEVER); /* which stays known */
    assert_int_equal(weir_rules_find(table, "alice", 5, NOW, &rule), WEIR_RULE_BLOCK);
    assert_string_equal(rule.client, "alice");
    assert_int_equal(weir_rules_remove(table, name, strlen(name), NULL), 1);
    assert_int_equal(weir_rules_find(table, "alice", 5, NOW, NULL), WEIR_RULE_NONE);
    check_sound(table);
    weir_table_close(table);
}

/* All hashes at the end of their range: the hash table's tail goes on at its beginning. */
static void test_hashes_that_crowd(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=100");
    char name[32];
    (void)state;
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "#%016" PRIx64, UINT64_MAX - (uint64_t)i);
        set(table, name, WEIR_RULE_BLOCK, NOW, NOW + 1000 - i);
    }
    check_sound(table);
    for (int i = 0; i < 100; i++) {
        struct weir_rule rule;
        snprintf(name, sizeof name, "#%016" PRIx64, UINT64_MAX - (uint64_t)i);
        assert_int_equal(weir_rules_find(table, name, strlen(name), NOW, &rule), WEIR_RULE_BLOCK);
        assert_int_equal(rule.until_ns, NOW + 1000 - i);
    }
    assert_int_equal(weir_rules_find(table, "#0000000000000000", 17, NOW, NULL), WEIR_RULE_NONE);
    weir_table_close(table);
}

/* ---------------------------------------------------------------------------------------------- capacity */

static void test_a_full_list_says_so_and_takes_the_room_of_the_expired(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=4");
    struct weir_error error;
    struct weir_rule list[5] = {
        {.kind = WEIR_RULE_BLOCK, .client = "e", .client_len = 1, .until_ns = WEIR_NEVER}};
    size_t n = 5;
    (void)state;
    set(table, "a", WEIR_RULE_BLOCK, NOW, NOW + SECOND);
    set(table, "10.0.0.0/8", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    set(table, "::1", WEIR_RULE_ALLOW, NOW, NOW + 2 * SECOND);
    set(table, "d", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    uint64_t version = weir_rules_version(table);
    assert_int_equal(weir_rules_set(table, "e", 1, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, &error),
                     WEIR_ENOSPC);
    assert_non_null(strstr(error.message, "4 rules"));
    assert_non_null(strstr(error.message, "?rules="));
    assert_int_equal(weir_rules_load(table, list, 1, NOW, &error), WEIR_ENOSPC);
    assert_int_equal(weir_rules_version(table), version); /* nothing has changed */
    set(table, "d", WEIR_RULE_ALLOW, NOW, WEIR_NEVER);    /* one that is there needs no room */
    assert_int_equal(
        weir_rules_set(table, "e", 1, WEIR_RULE_BLOCK, NOW + SECOND, WEIR_NEVER, &error), 0);
    assert_int_equal(weir_rules_list(table, list, &n), 0);
    assert_int_equal(n, 4);
    assert_int_equal(weir_rules_find(table, "a", 1, NOW, NULL),
                     WEIR_RULE_NONE); /* its room was taken */
    assert_int_equal(weir_rules_find(table, "::1", 3, NOW, NULL), WEIR_RULE_ALLOW);
    check_sound(table);
    weir_table_close(table);
}

static void test_long_names_of_all_rules_fit_into_a_small_table(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=50");
    char name[WEIR_RULE_CLIENT_MAX];
    (void)state;
    memset(name, 'x', sizeof name);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 50; i++) {
            name[7] = (char)i;
            assert_int_equal(
                weir_rules_set(table, name, sizeof name, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL),
                0);
            assert_int_equal(weir_rules_match_client(table, name, sizeof name, NOW).kind,
                             WEIR_RULE_BLOCK);
        }
    check_sound(table);
    weir_table_close(table);
}

static void test_room_for_names_runs_out_first_in_a_large_table(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=2000");
    struct weir_error error = {.message = "?"};
    char name[WEIR_RULE_CLIENT_MAX + 1];
    int rc = 0, i = 0;
    (void)state;
    for (; i < 2000 && rc == 0; i++) {
        snprintf(name, sizeof name, "%0*d", WEIR_RULE_CLIENT_MAX, i);
        rc = weir_rules_set(table, name, WEIR_RULE_CLIENT_MAX, WEIR_RULE_BLOCK, NOW, NOW + 1,
                            &error);
    }
    assert_int_equal(rc, WEIR_ENOSPC);
    assert_int_equal(i, 1025);
    assert_non_null(strstr(error.message, "names"));
    assert_int_equal(weir_rules_set(table, name, WEIR_RULE_CLIENT_MAX, WEIR_RULE_BLOCK, NOW + 1,
                                    NOW + 2, &error),
                     0);
    check_sound(table);
    weir_table_close(table);
}

static void test_a_table_for_no_rules(void **state) {
    struct weir_table *table = open_table("memory://?keys=64&rules=0");
    size_t n = 0;
    (void)state;
    assert_int_equal(weir_rules_set(table, "a", 1, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL),
                     WEIR_ENOSPC);
    assert_int_equal(weir_rules_remove(table, "a", 1, NULL), 0);
    assert_int_equal(weir_rules_find(table, "a", 1, NOW, NULL), WEIR_RULE_NONE);
    assert_int_equal(weir_rules_list(table, NULL, &n), 0);
    assert_int_equal(n, 0);
    check_sound(table);
    weir_table_close(table);
}

static void test_when_all_rules_are_over_nobody_asks_for_them(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    (void)state;
    assert_false(weir_rules_any(table, 0));
    set(table, "a", WEIR_RULE_BLOCK, NOW, NOW + SECOND);
    set(table, "b", WEIR_RULE_BLOCK, NOW, NOW + 2 * SECOND);
    assert_true(weir_rules_any(table, NOW + 2 * SECOND - 1));
    assert_false(weir_rules_any(table, NOW + 2 * SECOND));
    assert_int_equal(weir_rules_remove(table, "b", 1, NULL), 1);
    assert_false(weir_rules_any(table, NOW + SECOND));
    set(table, "c", WEIR_RULE_ALLOW, NOW, WEIR_NEVER);
    assert_true(weir_rules_any(table, WEIR_NOW_MAX));
    assert_int_equal(weir_rules_remove(table, "c", 1, NULL), 1);
    assert_int_equal(weir_rules_remove(table, "a", 1, NULL), 1);
    assert_false(weir_rules_any(table, NOW));
    weir_table_close(table);
}

static void test_the_version_changes_with_each_change_and_no_other_time(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_rule rule = {
        .kind = WEIR_RULE_BLOCK, .client = "a", .client_len = 1, .until_ns = WEIR_NEVER};
    (void)state;
    assert_int_equal(weir_rules_version(table), 0);
    set(table, "a", WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    assert_int_equal(weir_rules_version(table), 1);
    assert_int_equal(weir_rules_remove(table, "b", 1, NULL), 0);
    assert_int_equal(weir_rules_load(table, &rule, 1, NOW, NULL), 0);
    assert_int_equal(weir_rules_load(table, NULL, 0, NOW, NULL), 0);
    assert_int_equal(weir_rules_version(table), 1);
    rule.until_ns = NOW + 1;
    assert_int_equal(weir_rules_load(table, &rule, 1, NOW, NULL), 0);
    assert_int_equal(weir_rules_version(table), 2);
    weir_table_close(table);
}

/* --------------------------------------------------------------------------------------------- bad input */

static void test_bad_input_is_told_and_changes_nothing(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_error error;
    struct weir_rule rules[2] = {
        {.kind = WEIR_RULE_BLOCK, .client = "a", .client_len = 1, .until_ns = WEIR_NEVER},
        {.kind = WEIR_RULE_BLOCK,
         .client = "10.0.0.1/8",
         .client_len = 10,
         .until_ns = WEIR_NEVER}};
    char longest[WEIR_RULE_CLIENT_MAX + 1] = {0};
    size_t n = 1;
    (void)state;
    assert_int_equal(weir_rules_set(NULL, "a", 1, 1, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, NULL, 1, 1, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 0, 1, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, longest, sizeof longest, 1, NOW, WEIR_NEVER, &error),
                     WEIR_EINVAL);
    assert_non_null(strstr(error.message, "256"));
    assert_int_equal(weir_rules_set(table, "a", 1, 0, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 3, NOW, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, NOW, NOW, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, NOW, 0, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, NOW, WEIR_NOW_MAX + 1, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "a", 1, 1, -1, WEIR_NEVER, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_set(table, "10.0.0.1/8", 10, 1, NOW, WEIR_NEVER, &error),
                     WEIR_ESYNTAX);
    assert_int_equal(weir_rules_remove(table, "10.0.0.1/8", 10, &error), WEIR_ESYNTAX);
    assert_int_equal(weir_rules_remove(NULL, "a", 1, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_load(table, rules, 2, NOW, &error), WEIR_ESYNTAX);
    assert_int_equal(weir_rules_load(table, NULL, 2, NOW, &error), WEIR_EINVAL);
    rules[1].client_len = 0;
    assert_int_equal(weir_rules_load(table, rules, 2, NOW, &error), WEIR_EINVAL);
    assert_int_equal(weir_rules_find(table, "a", 1, -1, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_find(table, "a", 0, NOW, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_list(table, NULL, &n), WEIR_EINVAL);
    assert_int_equal(weir_rules_list(table, NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_match(table, NULL, 1, NOW, NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rules_version(table), 0);
    check_sound(table);
    weir_table_close(table);
}

static void test_any_bytes_are_a_name(void **state) {
    static const char bytes[] = "a\0b\xff/%\n";
    struct weir_table *table = open_table("memory://?keys=64");
    struct weir_rule rule;
    (void)state;
    assert_int_equal(
        weir_rules_set(table, bytes, sizeof bytes, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL), 0);
    assert_int_equal(weir_rules_find(table, bytes, sizeof bytes, NOW, &rule), WEIR_RULE_BLOCK);
    assert_int_equal(rule.client_len, sizeof bytes);
    assert_memory_equal(rule.client, bytes, sizeof bytes);
    assert_int_equal(weir_rules_find(table, bytes, 2, NOW, NULL), WEIR_RULE_NONE);
    weir_table_close(table);
}

static void test_rules_survive_their_processes_in_a_file(void **state) {
    char path[64], uri[100];
    struct weir_rule rule;
    (void)state;
    snprintf(path, sizeof path, "/tmp/weir-rules-%d", (int)getpid());
    snprintf(uri, sizeof uri, "file://%s?keys=64", path);
    struct weir_table *table = open_table(uri);
    set(table, "2001:db8::/32", WEIR_RULE_BLOCK, NOW, NOW + SECOND);
    weir_table_close(table);
    table = open_table(uri);
    assert_int_equal(weir_rules_find(table, "2001:db8::1", 11, NOW, &rule), WEIR_RULE_BLOCK);
    assert_string_equal(rule.client, "2001:db8::/32");
    check_sound(table);
    weir_table_close(table);
    unlink(path);
}

/* ------------------------------------------------------------------------------------------------ damage */

static void use_damaged(struct weir_table *table, const struct model *model) {
    static struct weir_rule list[400];
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    struct weir_verdict verdict;
    struct weir_error error;
    size_t n = 400;
    for (int i = 0; i < 40; i++) {
        char text[80];
        random_probe(model, text, sizeof text);
        struct weir_check check = check_by(&limit, text);
        int rc = weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL);
        assert_true(rc == 0 || rc == WEIR_ECORRUPT);
        struct weir_rule rule;
        rc = weir_rules_find(table, text, strlen(text), NOW, &rule);
        assert_true((rc >= WEIR_RULE_NONE && rc <= WEIR_RULE_ALLOW) || rc == WEIR_ECORRUPT);
    }
    int rc = weir_table_check(table, &error);
    assert_true(rc == 0 || rc == WEIR_ECORRUPT);
    rc = weir_rules_list(table, list, &n);
    assert_true(rc == WEIR_ECORRUPT || (rc == 0 && n <= 400));
    rc = weir_rules_set(table, "10.1.2.3", 8, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, &error);
    assert_true(rc == 0 || rc == WEIR_ECORRUPT || rc == WEIR_ENOSPC);
}

/* Whatever is written over the section but its lock: no crash, no endless loop, and no damage goes unseen. */
static void test_a_damaged_list_is_no_danger(void **state) {
    static struct model model;
    struct weir_table *table = open_table("memory://?keys=64&rules=400");
    size_t bytes = weir_rules_bytes(400), unseen = 0, head = sizeof(struct weir_rules);
    (void)state;
    model.count = 0;
    for (int i = 0; i < 300; i++) {
        char text[80];
        random_client(text, sizeof text);
        set(table, text, WEIR_RULE_BLOCK, NOW, random_until(NOW));
        model_set(&model, text, WEIR_RULE_BLOCK, NOW, WEIR_NEVER);
    }
    unsigned char *section = (unsigned char *)table->rules, *kept = malloc(bytes);
    assert_non_null(kept);
    memcpy(kept, section, bytes);
    size_t copy = head + (table->rules->version & 1) * table->rules_plan.copy_bytes;
    for (int round = 0; round < (UNDER_TSAN ? 100 : 2000); round++) {
        size_t from = random_below(4) ? copy : 0, span = from ? table->rules_plan.copy_bytes : 24;
        if (random_below(3) == 0)
            span = from ? 64 : span; /* its head */
        for (uint64_t i = 1 + random_below(random_below(4) ? 4 : 400); i > 0; i--)
            section[from + random_below(span)] =
                random_below(2) ? (unsigned char)next_random() : 0xff;
        use_damaged(table, &model);
        memcpy(section, kept, bytes);
    }
    for (uint32_t number = 0; number < (uint32_t)model.count;
         number++) { /* one bit of what is searched */
        _Atomic uint32_t *wider =
            weir_rules_wider(table, weir_rules_copy(table, table->rules->version));
        wider[number] ^= 1;
        unseen += weir_table_check(table, NULL) == 0;
        memcpy(section, kept, bytes);
    }
    assert_int_equal(unseen, 0);
    check_sound(table);
    free(kept);
    weir_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_rules_against_a_model),
        cmocka_unit_test(test_lists_of_every_size_around_whole_groups),
        cmocka_unit_test(test_all_nested),
        cmocka_unit_test(test_a_blocked_client_is_denied_until_the_rule_ends),
        cmocka_unit_test(test_a_block_for_good_never_lets_pass),
        cmocka_unit_test(test_one_let_through_is_charged_nothing),
        cmocka_unit_test(test_several_clients_in_one_decision),
        cmocka_unit_test(test_who_is_nobody_has_no_rule),
        cmocka_unit_test(test_refund_and_reset_leave_rules_alone),
        cmocka_unit_test(test_a_client_may_be_named_by_its_hash),
        cmocka_unit_test(test_hashes_that_crowd),
        cmocka_unit_test(test_a_full_list_says_so_and_takes_the_room_of_the_expired),
        cmocka_unit_test(test_long_names_of_all_rules_fit_into_a_small_table),
        cmocka_unit_test(test_room_for_names_runs_out_first_in_a_large_table),
        cmocka_unit_test(test_a_table_for_no_rules),
        cmocka_unit_test(test_when_all_rules_are_over_nobody_asks_for_them),
        cmocka_unit_test(test_the_version_changes_with_each_change_and_no_other_time),
        cmocka_unit_test(test_bad_input_is_told_and_changes_nothing),
        cmocka_unit_test(test_any_bytes_are_a_name),
        cmocka_unit_test(test_rules_survive_their_processes_in_a_file),
        cmocka_unit_test(test_a_damaged_list_is_no_danger),
    };
    seed_random();
    return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
