/*
 * The top clients of a table: which are listed, with which counts, their names, the error bound of
 * Space-Saving, and how scores age.
 */
#include "stats_support.h"

#include "table/cell.h"
#include "table/hash.h"

static void test_few_clients_are_listed_exactly(void **state) {
    static const char *const uris[] = {"memory://?keys=8", "memory://?keys=64",
                                       "memory://?keys=1024", "memory://"};
    (void)state;
    for (size_t u = 0; u < sizeof uris / sizeof uris[0]; u++) {
        struct weir_table *table = open_table(uris[u]);
        struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 20, MINUTE);
        char key[6][16];
        struct weir_check check[6];
        for (int i = 0; i < 6; i++) {
            snprintf(key[i], sizeof key[i], "10.0.0.%d", i);
            check[i] = labelled(table, &limit, key[i], labels[0]);
            for (int hits = 0; hits < 10 * (i + 1); hits++)
                decide_check(table, &check[i], NOW + i, WEIR_HIT);
        }
        struct weir_top_client list[10];
        size_t n = 10;
        assert_int_equal(weir_stats_top_clients(table, WEIR_BY_DENIED, 0, list, &n), 0);
        assert_int_equal(n, 4); /* two were never denied */
        for (size_t i = 0; i < n; i++) {
            assert_string_equal(list[i].client, key[5 - i]);
            assert_string_equal(list[i].label, labels[0]);
            assert_int_equal(list[i].denied, 40 - 10 * i);
            assert_int_equal(list[i].allowed, 20);
            assert_int_equal(list[i].error, 0);
            assert_int_equal(list[i].last_ns, NOW + 5 - (int64_t)i);
        }
        n = 10;
        assert_int_equal(weir_stats_top_clients(table, WEIR_BY_ALLOWED, check[0].label, list, &n),
                         0);
        assert_int_equal(n, 6);
        assert_string_equal(list[5].client, key[0]);
        assert_int_equal(list[5].allowed, 10);
        n = 2;
        assert_int_equal(weir_stats_top_clients(table, WEIR_BY_ALLOWED, 0, list, &n), 0);
        assert_int_equal(n, 2);
        n = 10;
        assert_int_equal(weir_stats_top_clients(table, WEIR_BY_ALLOWED, 5, list, &n), 0);
        assert_int_equal(n, 0);
        check_sound(table);
        weir_table_close(table);
    }
}

/* The counters of one client are in several stripes. */
static void test_a_clients_counters_are_reported_as_one(void **state) {
    struct weir_table *table = open_table("memory://?keys=8192");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    char key[40];
    (void)state;
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "10.0.0.1/view/%d", i);
        struct weir_check check = labelled(table, &limit, key, labels[i % 2]);
        check.client_len = 8;
        for (int hits = 0; hits < 12; hits++)
            decide_check(table, &check, NOW, WEIR_HIT);
    }
    struct weir_top_client list[10];
    size_t n = 10;
    assert_int_equal(weir_stats_top_clients(table, WEIR_BY_DENIED, 0, list, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(list[0].denied, 40);
    assert_int_equal(list[1].allowed, 200);
    weir_table_close(table);
}

static void test_addresses_are_named_in_their_usual_form(void **state) {
    struct weir_table *table = open_table("memory://?keys=64");
    static const char *const addresses[] = {"10.1.2.3", "::1", "2001:db8::ff", "2001:db8:1:2::/64"};
    static const char *const forms[][2] = {{"::ffff:10.0.0.1", "10.0.0.1"},
                                           {"2001:DB8::1%eth0", "2001:db8::1"},
                                           {"64:ff9b::a00:1", "10.0.0.1"},
                                           {"2001:db8:1:2::%2F64", "2001:db8:1:2::/64"}};
    char name[WEIR_CLIENT_NAME_SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        assert_int_equal(weir_stats_client_name(table, addresses[i], strlen(addresses[i]), name),
                         0);
        assert_string_equal(name, addresses[i]);
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        assert_int_equal(weir_stats_client_name(table, forms[i][0], strlen(forms[i][0]), name), 0);
        assert_string_equal(name, forms[i][1]);
    }
    weir_table_close(table);
}

static void test_clients_are_named_by_hash_unless_revealed_or_addresses(void **state) {
    struct weir_table *table = open_table("memory://?keys=64"),
                      *other = open_table("memory://?keys=64");
    struct weir_limit limit = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    static const char *const names[] = {
        "alice@example.org", "10.1.2", "10.1.2.3.4", "1", "::g", "x"};
    char name[WEIR_CLIENT_NAME_SIZE], again[WEIR_CLIENT_NAME_SIZE], longest[200];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(weir_stats_client_name(table, names[i], strlen(names[i]), name), 0);
        assert_int_equal(strlen(name), 17);
        assert_int_equal(name[0], '#');
        assert_int_equal(strspn(name + 1, "0123456789abcdef"), 16);
        weir_stats_client_name(table, names[i], strlen(names[i]), again);
        assert_string_equal(name, again);
        weir_stats_client_name(other, names[i], strlen(names[i]), again);
        assert_string_not_equal(name, again);
    }
    struct weir_check check = labelled(table, &limit, "alice", labels[0]);
    decide_check(table, &check, NOW, WEIR_HIT);
    assert_int_equal(top_client_of(table, WEIR_BY_ALLOWED, "alice").allowed, 0);
    weir_stats_client_name(table, "alice", 5, name);
    assert_int_equal(top_client_of(table, WEIR_BY_ALLOWED, name).allowed, 1);

    assert_int_equal(weir_stats_reveal(table, 1), 0);
    assert_int_equal(weir_stats_reveal(table, 1), 1);
    check = labelled(table, &limit, "bob", labels[0]);
    decide_check(table, &check, NOW, WEIR_HIT);
    assert_int_equal(top_client_of(table, WEIR_BY_ALLOWED, "bob").allowed, 1);
    memset(longest, 'x', sizeof longest);
    weir_stats_client_name(table, longest, WEIR_CLIENT_NAME_SIZE - 1, name);
    assert_int_equal(strlen(name), WEIR_CLIENT_NAME_SIZE - 1);
    weir_stats_client_name(table, longest, WEIR_CLIENT_NAME_SIZE, name);
    assert_int_equal(name[0], '#');
    assert_int_equal(weir_stats_client_name(table, "", 0, name), WEIR_EINVAL);
    weir_table_close(table);
    weir_table_close(other);
}

/* True numbers of clients, by rank; more hits of lower ranks. */
#define RANKS 20000

struct stream {
    struct weir_table *table;
    struct weir_limit limit;
    int32_t label;
    uint64_t allowed[RANKS], denied[RANKS];
    uint64_t weight[WEIR_STRIPES_MAX]; /* the weight in each stripe */
};

/* About Zipf's law with exponent 1: rank r is as likely as 1/r. */
static uint32_t rank_of(void) {
    uint32_t rank = 0;
    double at = (double)next_random() / 18446744073709551616.0, sum = 1;
    for (double x = at * 9.9; x > 0 && sum < RANKS; x -= 0.6931)
        sum *= 2;
    do
        rank = (uint32_t)random_below((uint64_t)sum);
    while (rank >= RANKS);
    return rank;
}

static uint32_t stripe_of(struct stream *stream, uint32_t rank) {
    uint64_t fingerprint[2];
    char key[24];
    int len = snprintf(key, sizeof key, "10.1.%u.%u", rank / 256, rank % 256);
    weir_fingerprint(stream->table, key, (size_t)len, &stream->limit, fingerprint);
    return weir_cell_stripe(stream->table, fingerprint);
}

static void add_request(struct stream *stream, uint32_t rank, int64_t now_ns) {
    char key[24];
    snprintf(key, sizeof key, "10.1.%u.%u", rank / 256, rank % 256);
    struct weir_check check = check_of(&stream->limit, key, 1);
    check.client = key;
    check.client_len = check.key_len;
    check.label = stream->label;
    bool allowed = decide_check(stream->table, &check, now_ns, WEIR_HIT).allowed;
    *(allowed ? &stream->allowed[rank] : &stream->denied[rank]) += 1;
    stream->weight[stripe_of(stream, rank)] += allowed ? 1 : WEIR_HITTERS_DENIED;
}

/*
 * Only denials: Space-Saving as in the paper. No client is missed, and no error exceeds the bound.
 */
static void test_the_error_bound_of_a_stream_of_denials(void **state) {
    static struct stream stream;
    static struct weir_top_client list[8192];
    (void)state;
    memset(&stream, 0, sizeof stream);
    stream.table = open_table("memory://?keys=32768");
    stream.limit = limit_of(WEIR_FIXED_WINDOW, 0, MINUTE);
    stream.label = weir_stats_label(stream.table, labels[0], strlen(labels[0]));
    for (int i = 0; i < 300000; i++)
        add_request(&stream, rank_of(), NOW + i);
    size_t n = 8192;
    assert_int_equal(weir_stats_top_clients(stream.table, WEIR_BY_DENIED, 0, list, &n), 0);
    assert_true(n > 1000);
    uint32_t missed = 0, due = 0;
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        uint64_t bound =
            stream.weight[stripe_of(&stream, rank)] / WEIR_HITTERS / WEIR_HITTERS_DENIED;
        char key[24];
        snprintf(key, sizeof key, "10.1.%u.%u", rank / 256, rank % 256);
        const struct weir_top_client *found = NULL;
        for (size_t i = 0; i < n && !found && stream.denied[rank] > 0; i++)
            found = strcmp(list[i].client, key) ? NULL : &list[i];
        if (!found) {
            missed += stream.denied[rank] > bound;
            continue;
        }
        due += stream.denied[rank] > bound;
        if (found->denied > stream.denied[rank] ||
            found->denied + found->error < stream.denied[rank] || found->error > bound + 1)
            fail_msg("WEIR_SEED=%" PRIu64 ": %s: %" PRIu64 " denied, reported: %" PRIu64
                     " and at most %" PRIu64 " more, bound %" PRIu64,
                     seed, key, stream.denied[rank], found->denied, found->error, bound);
    }
    assert_int_equal(missed, 0);
    assert_true(due > 100);
    check_sound(stream.table);
    weir_table_close(stream.table);
}

/* Most hits are allowed and sampled; the denials of a client must still be counted exactly. */
static void test_denied_clients_are_found_among_many(void **state) {
    static struct stream stream;
    (void)state;
    memset(&stream, 0, sizeof stream);
    stream.table = open_table("memory://?keys=32768");
    stream.limit = limit_of(WEIR_FIXED_WINDOW, 1000, MINUTE);
    stream.label = weir_stats_label(stream.table, labels[0], strlen(labels[0]));
    for (int i = 0; i < 200000; i++) {
        add_request(&stream, (uint32_t)random_below(RANKS), NOW + i);
        if (i % 100 == 0) { /* one client in a hundred */
            add_request(&stream, 7, NOW + i);
        }
    }
    assert_true(stream.denied[7] > 900);
    struct weir_top_client top = top_client_of(stream.table, WEIR_BY_DENIED, "10.1.0.7");
    assert_int_equal(top.denied, stream.denied[7]);
    top = top_client_of(stream.table, WEIR_BY_ALLOWED, "10.1.0.7");
    assert_true(top.allowed <= stream.allowed[7]);
    assert_true(top.allowed + top.error + 800 >= stream.allowed[7]); /* sampled at first */
    check_sound(stream.table);
    weir_table_close(stream.table);
}

/*
 * A client that had the most requests an hour ago is replaced by newer clients, even if they have
 * fewer.
 */
static void test_old_heavy_hitters_age_out(void **state) {
    struct weir_table *table = open_table("memory://?keys=8");
    struct weir_limit closed = limit_of(WEIR_FIXED_WINDOW, 0, MINUTE);
    char key[40];
    (void)state;
    for (int i = 0; i < 40; i++) { /* 32 of them are listed */
        snprintf(key, sizeof key, "10.9.0.%d", i);
        struct weir_check check = labelled(table, &closed, key, labels[0]);
        for (int hits = 0; hits < 1000; hits++)
            decide_check(table, &check, NOW, WEIR_HIT);
    }
    for (int i = 0; i < 32; i++) {
        snprintf(key, sizeof key, "10.8.0.%d", i);
        struct weir_check check = labelled(table, &closed, key, labels[0]);
        for (int hits = 0; hits < 10; hits++)
            decide_check(table, &check, NOW + 7200 * SECOND, WEIR_HIT);
    }
    for (int i = 0; i < 32; i++) {
        snprintf(key, sizeof key, "10.8.0.%d", i);
        assert_true(top_client_of(table, WEIR_BY_DENIED, key).denied > 0);
    }
    struct weir_check check = labelled(table, &closed, "10.7.0.1", labels[0]);
    decide_check(table, &check, NOW, WEIR_HIT); /* a clock that steps back does no harm */
    assert_int_equal(top_client_of(table, WEIR_BY_DENIED, "10.7.0.1").denied, 1);
    check_sound(table);
    weir_table_close(table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_clients_are_listed_exactly),
        cmocka_unit_test(test_a_clients_counters_are_reported_as_one),
        cmocka_unit_test(test_addresses_are_named_in_their_usual_form),
        cmocka_unit_test(test_clients_are_named_by_hash_unless_revealed_or_addresses),
        cmocka_unit_test(test_the_error_bound_of_a_stream_of_denials),
        cmocka_unit_test(test_denied_clients_are_found_among_many),
        cmocka_unit_test(test_old_heavy_hitters_age_out),
    };
    seed_random();
    return cmocka_run_group_tests_name("top clients", tests, NULL, NULL);
}
