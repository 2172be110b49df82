/*
 * Private tables as bytes: a copy decides like the original, and bytes that are not a copy are
 * refused.
 */
#include "support.h"

#include "saved.h"
#include "table/table.h"
#include "weir/rules.h"

#define COUNTED WEIR_CALENDAR_WINDOW /* the strategies before it, which need no time zone */

static unsigned char *bytes;
static size_t size;

static struct weir_limit limits[COUNTED];

static struct weir_table *filled(void) {
    struct weir_table *table = NULL;
    char key[32];
    MUST(weir_table_open("memory://?keys=512", &table, NULL) == 0);
    for (int strategy = 0; strategy < COUNTED; strategy++) {
        limits[strategy] = limit_of(strategy, 20, DAY);
        for (int i = 0; i < 40; i++) {
            snprintf(key, sizeof key, "client %d", i);
            for (int j = 0; j < i % 7; j++)
                hit(table, &limits[strategy], key, NOW + j * SECOND);
        }
    }
    MUST(weir_rules_set(table, "192.0.2.1", 9, WEIR_RULE_BLOCK, NOW, WEIR_NEVER, NULL) == 0);
    return table;
}

static int make(void **state) {
    struct weir_table *table = filled();
    (void)state;
    MUST(weir_table_saved_bytes(table, &size, NULL) == 0);
    bytes = malloc(size);
    MUST(bytes && weir_table_save(table, bytes, size, NULL) == 0);
    weir_table_close(table);
    return 0;
}

static int destroy(void **state) {
    (void)state;
    free(bytes);
    return 0;
}

static void test_a_copy_decides_like_the_original(void **state) {
    struct weir_table *original = filled(), *copy;
    struct weir_error error;
    size_t room;
    char key[32];
    (void)state;
    assert_int_equal(weir_table_saved_bytes(original, &room, &error), 0);
    unsigned char *saved = malloc(room);
    assert_int_equal(weir_table_save(original, saved, room, &error), 0);
    assert_int_equal(weir_table_load(saved, room, &copy, &error), 0);
    free(saved);
    for (int round = 0; round < 2000; round++) {
        snprintf(key, sizeof key, "client %d", (int)random_below(60));
        const struct weir_limit *limit = &limits[random_below(COUNTED)];
        int64_t now = NOW + (10 + round) * SECOND;
        struct weir_verdict one = decide_cost(original, limit, key, 1, now, WEIR_HIT);
        struct weir_verdict other = decide_cost(copy, limit, key, 1, now, WEIR_HIT);
        assert_memory_equal(&one, &other, sizeof one);
    }
    assert_int_equal(weir_rules_find(copy, "192.0.2.1", 9, NOW, NULL), WEIR_RULE_BLOCK);
    assert_int_equal(weir_table_check(copy, &error), 0);
    /* They are two tables: what one counts, the other does not. */
    hit(original, &limits[0], "new", NOW);
    assert_int_equal(remaining(original, &limits[0], "new", NOW), 19);
    assert_int_equal(remaining(copy, &limits[0], "new", NOW), 20);
    weir_table_close(original);
    weir_table_close(copy);
}

static void expect_refused(const void *some, size_t len, int code) {
    struct weir_table *table = (void *)&size;
    struct weir_error error = {.message = ""};
    assert_int_equal(weir_table_load(some, len, &table, &error), code);
    assert_null(table);
    assert_true(error.message[0]);
}

static void test_every_other_length_is_refused(void **state) {
    (void)state;
    for (size_t len = 0; len < size; len += 1 + (size_t)random_below(len < 5000 ? 40 : 8000)) {
        unsigned char *part = malloc(len + 1); /* ends with the bytes: ASan detects overreads */
        memcpy(part + 1, bytes, len);
        expect_refused(part + 1, len, WEIR_EFORMAT); /* and is not aligned */
        free(part);
    }
    unsigned char *more = calloc(1, size + 64);
    memcpy(more, bytes, size);
    expect_refused(more, size + 64, WEIR_EFORMAT);
    free(more);
    expect_refused(bytes, WEIR_SAVED_MAX + 1, WEIR_ETOOMANY);
    expect_refused(bytes, SIZE_MAX, WEIR_ETOOMANY);
}

static void test_foreign_bytes_are_refused(void **state) {
    unsigned char *other = malloc(size);
    (void)state;
    for (size_t i = 0; i < size; i++)
        other[i] = (unsigned char)next_random();
    expect_refused(other, size, WEIR_EFORMAT);
    memset(other, 0, size);
    expect_refused(other, size, WEIR_EFORMAT);
    memcpy(other, bytes, size);
    ((struct weir_header *)(void *)other)->version++;
    expect_refused(other, size, WEIR_EVERSION);
    memcpy(other, bytes, size);
    ((struct weir_header *)(void *)other)->signature ^= 1;
    expect_refused(other, size, WEIR_EVERSION);
    memcpy(other, bytes, size);
    ((struct weir_header *)(void *)other)->secret[3] ^= 1;
    expect_refused(other, size, WEIR_EFORMAT);
    free(other);
}

static void test_only_private_tables_are_saved(void **state) {
    struct weir_table *table;
    struct weir_error error;
    size_t room;
    (void)state;
    assert_int_equal(weir_table_open("memory://?keys=64&forks=share", &table, NULL), 0);
    assert_int_equal(weir_table_saved_bytes(table, &room, &error), WEIR_EINVAL);
    weir_table_close(table);
    assert_int_equal(weir_table_open("memory://?keys=4400000&hits=0", &table, NULL), 0);
    assert_int_equal(weir_table_saved_bytes(table, &room, &error), WEIR_ETOOMANY);
    weir_table_close(table);
    assert_int_equal(weir_table_open("memory://?keys=64", &table, NULL), 0);
    assert_int_equal(weir_table_save(table, bytes, 64, &error), WEIR_EINVAL);
    weir_table_close(table);
    assert_int_equal(weir_table_saved_bytes(NULL, &room, &error), WEIR_EINVAL);
    assert_int_equal(weir_table_load(NULL, 0, &table, &error), WEIR_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_copy_decides_like_the_original),
        cmocka_unit_test(test_every_other_length_is_refused),
        cmocka_unit_test(test_foreign_bytes_are_refused),
        cmocka_unit_test(test_only_private_tables_are_saved),
    };
    seed_random();
    return cmocka_run_group_tests_name("saved tables", tests, make, destroy);
}
