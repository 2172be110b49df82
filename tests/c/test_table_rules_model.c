/*
 * Rules about clients: random lists and look-ups against a naive model that compares every rule,
 * lists of all sizes, and damaged lists.
 */
#include "rules_support.h"

#include "table/hash.h"

/* ------------------------------------------------------------------------------------ the model */

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

/* ------------------------------------------------------------------------------- random clients */

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
                 range.prefix > 3 ? 3 : range.prefix); /* a mapped address: another family */
    (void)len;
}

/* An address in, at the edge of, or directly after a range; or a name. */
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

/* -------------------------------------------------------------------------- model against table */

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
         i++) { /* a load keeps the start of a rule that it does not change */
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
            int count = sizes[s], apart = six ? 1 : 2; /* adjacent, or with a gap between */
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

/* --------------------------------------------------------------------------------------- damage */

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

/*
 * Any bytes in the section, except its lock, are overwritten: no crash, no endless loop, and all
 * damage is detected.
 */
static void test_a_damaged_list_is_safe(void **state) {
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
    /* one bit of the searched data */
    for (uint32_t number = 0; number < (uint32_t)model.count; number++) {
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
        cmocka_unit_test(test_a_damaged_list_is_safe),
    };
    seed_random();
    return cmocka_run_group_tests_name("rules and a model", tests, NULL, NULL);
}
