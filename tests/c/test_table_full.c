/*
 * A table that gets more keys than it has room for: which keys are evicted, and what evictions must
 * not cost. Random runs print their seed (WEIR_SEED=N repeats one).
 */
#include "support.h"

#include "table/cell.h"
#include "table/hash.h"

#define KEYS 1024
#define FLOOD (10 * KEYS)

static void name_key(char *key, size_t size, const char *what, int number) {
    snprintf(key, size, "%s %d", what, number);
}

/* ------------------------------------------------------------------------------ a flood of keys */

struct flood {
    int64_t amount; /* of the limits of the flood */
    int hits;       /* hits on each key of the flood */
    int every;      /* new keys for each hit on the keys at their limit */
};

static void flood(struct weir_table *table, const struct flood *flood) {
    struct weir_limit limits[WEIR_STRATEGIES],
        other = limit_of(WEIR_FIXED_WINDOW, flood->amount, DAY);
    size_t bytes = table->bytes;
    char key[32];
    for (int i = 0; i < WEIR_STRATEGIES; i++) {
        limits[i] = limit_of(i, 10, DAY);
        for (int hits = 0; hits < 11; hits++)
            hit(table, &limits[i], "regular", NOW + hits);
    }
    for (int i = 0; i < FLOOD; i++) {
        name_key(key, sizeof key, "flood", i);
        for (int hits = 0; hits < flood->hits; hits++)
            hit(table, &other, key, NOW + SECOND + i);
        if (i % flood->every)
            continue;
        for (int strategy = 0; strategy < WEIR_STRATEGIES; strategy++)
            if (hit(table, &limits[strategy], "regular", NOW + SECOND + i))
                fail_msg("WEIR_SEED=%" PRIu64 ": %s admitted again after %d keys", seed,
                         weir_strategy_name(strategy), i);
    }
    struct weir_table_info info = info_of(table, NOW + MINUTE);
    assert_true(info.keys <= KEYS);
    assert_true(info.keys > KEYS * 95 / 100);
    assert_int_equal(info.keys + info.evictions, FLOOD + WEIR_STRATEGIES);
    assert_int_equal(info.bytes, bytes);
    check_sound(table);
}

static void test_a_flood_moves_no_key_that_is_at_its_limit_and_hit(void **state) {
    static const struct flood floods[] = {
        {.amount = 1000, .hits = 1, .every = 1},
        {.amount = 1000, .hits = 1, .every = 256},
        {.amount = 1, .hits = 1, .every = 64}, /* at their limits, too */
        {.amount = 1, .hits = 2, .every = 64}, /* and denied */
    };
    (void)state;
    for (size_t i = 0; i < sizeof floods / sizeof floods[0]; i++) {
        struct weir_table *table = open_table("memory://?keys=1024&hits=1000");
        flood(table, &floods[i]);
        weir_table_close(table);
    }
}

static void test_little_used_keys_go_before_one_at_its_limit(void **state) {
    struct weir_table *table = open_table("memory://?keys=1024&hits=1000");
    struct weir_limit limits[WEIR_LEAKY_BUCKET], other = limit_of(WEIR_FIXED_WINDOW, 1000, DAY);
    char key[32];
    (void)state;
    for (int i = 0; i < WEIR_LEAKY_BUCKET; i++) {
        limits[i] = limit_of(i, 10, DAY);
        for (int hits = 0; hits < 10; hits++) /* never denied, and not seen again */
            assert_true(hit(table, &limits[i], "quiet", NOW));
    }
    for (int i = 0; i < FLOOD; i++) {
        name_key(key, sizeof key, "flood", i);
        hit(table, &other, key, NOW + SECOND + i);
    }
    for (int i = 0; i < WEIR_LEAKY_BUCKET; i++)
        assert_int_equal(remaining(table, &limits[i], "quiet", NOW + MINUTE), 0);
    check_sound(table);
    weir_table_close(table);
}

static void test_expired_keys_make_room_without_eviction(void **state) {
    enum { ROOM = 16384 };
    struct weir_table *table = open_table("memory://?keys=16384&hits=1000");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 1, MINUTE);
    char key[32];
    (void)state;
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < ROOM / 2; i++) {
            name_key(key, sizeof key, "key", round * ROOM + i);
            assert_true(hit(table, &limit, key, NOW + round * MINUTE));
        }
    assert_int_equal(info_of(table, NOW + 4 * MINUTE).evictions, 0);
    assert_int_equal(info_of(table, NOW + 4 * MINUTE).keys, ROOM / 2);
    check_sound(table);
    weir_table_close(table);
}

static void test_a_table_fills_to_nine_tenths_with_hardly_an_eviction(void **state) {
    enum { ROOM = 65536 };
    struct weir_table *table = open_table("memory://?keys=65536&hits=1000");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    char key[32];
    (void)state;
    for (int i = 0; i < ROOM * 9 / 10; i++) {
        name_key(key, sizeof key, "key", i);
        assert_true(hit(table, &limit, key, NOW));
    }
    assert_in_range(info_of(table, NOW).evictions, 0, ROOM / 100);
    weir_table_close(table);
}

/* ---------------------------------------------- a flood of one limit beside counters of another */

/*
 * Requests by which a client tries to evict the counter of its log-in attempts, after `hits` of 5.
 */
struct attack {
    int hits, flood_limits, flood_hits;
    bool same_limit; /* the flood uses the limit of log-ins, too */
    int least; /* in how many of 9 tables the counter must exist after `factor` requests for each
                  key of the table */
    int factor;
};

static bool outlasts(const struct attack *attack) {
    struct weir_table *table = open_table("memory://?keys=1024&hits=0");
    struct weir_limit login = limit_of(WEIR_FIXED_WINDOW, 5, 60 * MINUTE), flood[16];
    int64_t left = attack->hits < 5 ? 5 - attack->hits : 0;
    char key[32];
    for (int i = 0; i < 16; i++)
        flood[i] = attack->same_limit ? login : limit_of(WEIR_FIXED_WINDOW, 1, (60 + i) * MINUTE);
    for (int i = 0; i < attack->hits; i++)
        hit(table, &login, "login", NOW + i);
    for (int made = 0, i = 0; made < attack->factor * KEYS; i++) {
        name_key(key, sizeof key, "flood", i);
        for (int hits = 0; hits < attack->flood_hits; hits++, made++)
            hit(table, &flood[i % attack->flood_limits], key, NOW + SECOND + i);
    }
    bool there = remaining(table, &login, "login", NOW + MINUTE) == left;
    assert_true(info_of(table, NOW + MINUTE).evictions > KEYS);
    check_sound(table);
    weir_table_close(table);
    return there;
}

static void test_a_flood_of_one_limit_leaves_counters_of_another_alone(void **state) {
    static const struct attack attacks[] = {
        {.hits = 6, .flood_limits = 1, .flood_hits = 1, .least = 9, .factor = 30},
        {.hits = 5, .flood_limits = 1, .flood_hits = 1, .least = 9, .factor = 30},
        {.hits = 4, .flood_limits = 1, .flood_hits = 1, .least = 9, .factor = 30},
        {.hits = 1, .flood_limits = 1, .flood_hits = 1, .least = 9, .factor = 30},
        {.hits = 6,
         .flood_limits = 1,
         .flood_hits = 2,
         .least = 9,
         .factor = 30}, /* all are denied, too */
        {.hits = 4, .flood_limits = 1, .flood_hits = 5, .least = 9, .factor = 60},
        {.hits = 6, .flood_limits = 3, .flood_hits = 2, .least = 9, .factor = 30},
        /* keys of the same limit, which used as much and were not denied */
        {.hits = 6,
         .flood_limits = 1,
         .flood_hits = 5,
         .same_limit = true,
         .least = 9,
         .factor = 60},
        {.hits = 6,
         .flood_limits = 1,
         .flood_hits = 1,
         .same_limit = true,
         .least = 9,
         .factor = 30},
        /* and keys that were denied as often: each takes as many requests */
        {.hits = 10,
         .flood_limits = 1,
         .flood_hits = 6,
         .same_limit = true,
         .least = 7,
         .factor = 20},
    };
    (void)state;
    for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++) {
        int there = 0;
        for (int j = 0; j < 9; j++) /* each table has another secret */
            there += outlasts(&attacks[i]);
        if (there < attacks[i].least)
            fail_msg("attack %zu: the counter is kept in %d of 9 tables", i, there);
    }
}

/* Keys that use little of a generous limit do not replace counters that deny. */
static void test_little_used_keys_go_first_even_among_many_of_another_limit(void **state) {
    struct weir_table *table = open_table("memory://?keys=1024&hits=0");
    struct weir_limit login = limit_of(WEIR_FIXED_WINDOW, 5, 60 * MINUTE);
    struct weir_limit generous = limit_of(WEIR_FIXED_WINDOW, 1000, 60 * MINUTE);
    char key[32];
    int there = 0;
    (void)state;
    for (int i = 0; i < KEYS * 3 / 4; i++) {
        name_key(key, sizeof key, "login", i);
        for (int hits = 0; hits < 6; hits++)
            hit(table, &login, key, NOW + hits);
    }
    for (int i = 0; i < FLOOD; i++) {
        name_key(key, sizeof key, "reader", i);
        assert_true(hit(table, &generous, key, NOW + SECOND + i));
    }
    for (int i = 0; i < KEYS * 3 / 4; i++) {
        name_key(key, sizeof key, "login", i);
        there += remaining(table, &login, key, NOW + MINUTE) == 0;
    }
    /* each pair of full buckets gives one cell to the others */
    assert_in_range(there, KEYS * 3 / 4 - KEYS / 16, KEYS * 3 / 4);
    weir_table_close(table);
}

/* ------------------------------------------------------------------ several limits, little room */

static void test_a_new_key_never_takes_the_cell_of_its_neighbour_in_the_decision(void **state) {
    struct weir_limit expired = limit_of(WEIR_MOVING_WINDOW, 100, SECOND);
    struct weir_limit lasting = limit_of(WEIR_FIXED_WINDOW, 100, DAY);
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct weir_table *table = open_table("memory://?keys=8&hits=1000");
        struct weir_check checks[2];
        struct weir_verdict verdicts[2];
        char old[32], new[32], key[32];
        name_key(old, sizeof old, "old", round);
        name_key(new, sizeof new, "new", round);
        for (int i = 0; i < 50; i++)
            assert_true(hit(table, &expired, old, NOW + i));
        for (int i = 0; i < 7; i++) {
            name_key(key, sizeof key, "other", i);
            assert_true(hit(table, &lasting, key, NOW));
        }
        checks[0] = check_of(&lasting, new, 1);
        checks[1] = check_of(&expired, old, 1);
        assert_int_equal(weir_decide(table, checks, 2, NOW + MINUTE, WEIR_HIT, verdicts, NULL), 0);
        assert_int_equal(remaining(table, &lasting, new, NOW + MINUTE), 99);
        assert_int_equal(remaining(table, &expired, old, NOW + MINUTE), 99);
        check_sound(table);
        weir_table_close(table);
    }
}

static void test_what_is_admitted_is_charged_however_full_the_table(void **state) {
    (void)state;
    struct weir_table *table = open_table("memory://?keys=16&hits=100");
    struct weir_limit limits[WEIR_STRATEGIES];
    int64_t now_ns = NOW;
    for (int i = 0; i < WEIR_STRATEGIES; i++)
        limits[i] = limit_of(i, 20, (i + 1) * SECOND);
    for (int round = 0; round < 20000; round++) {
        struct weir_check checks[4];
        struct weir_verdict verdicts[4];
        struct weir_decision decision;
        char keys[4][32];
        size_t n = 1 + random_below(4);
        for (size_t i = 0; i < n; i++) {
            name_key(keys[i], sizeof keys[i], "k", (int)random_below(30));
            checks[i] =
                check_of(&limits[random_below(WEIR_STRATEGIES)], keys[i], (int64_t)random_below(3));
        }
        now_ns += (int64_t)random_below(SECOND / 4);
        enum weir_mode mode = random_below(3) ? WEIR_HIT : WEIR_EACH;
        int rc = weir_decide(table, checks, n, now_ns, mode, verdicts, &decision);
        if (rc < 0)
            fail_msg("WEIR_SEED=%" PRIu64 ", round %d: %s", seed, round, weir_strerror(rc));
        if (round % 16 == 0)
            check_sound(table);
        for (size_t i = 0; i < n; i++) {
            bool last = true;
            for (size_t j = i + 1; j < n; j++)
                last &= checks[j].limit != checks[i].limit || strcmp(keys[j], keys[i]) != 0;
            if (last && verdicts[i].allowed && checks[i].cost > 0 &&
                remaining(table, checks[i].limit, keys[i], now_ns) != verdicts[i].remaining)
                fail_msg("WEIR_SEED=%" PRIu64 ", round %d: check %zu of %zu, %s, is not charged",
                         seed, round, i, n, weir_strategy_name(checks[i].limit->strategy));
        }
    }
    weir_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flood_moves_no_key_that_is_at_its_limit_and_hit),
        cmocka_unit_test(test_little_used_keys_go_before_one_at_its_limit),
        cmocka_unit_test(test_expired_keys_make_room_without_eviction),
        cmocka_unit_test(test_a_table_fills_to_nine_tenths_with_hardly_an_eviction),
        cmocka_unit_test(test_a_flood_of_one_limit_leaves_counters_of_another_alone),
        cmocka_unit_test(test_little_used_keys_go_first_even_among_many_of_another_limit),
        cmocka_unit_test(test_a_new_key_never_takes_the_cell_of_its_neighbour_in_the_decision),
        cmocka_unit_test(test_what_is_admitted_is_charged_however_full_the_table),
    };
    seed_random();
    return cmocka_run_group_tests_name("full table", tests, NULL, NULL);
}
