/*
 * A table file is damaged at one place at a time: header, locks, undo records, cells, lines, free
 * list, statistics. It is refused, or it is used without crashes and endless loops (fuzz/damaged.h
 * makes the calls). The same holds for cells, lines and statistics that are damaged while the table
 * is open, when nothing verifies them.
 */
#include "support.h"

#include "../../fuzz/damaged.h"

static struct damaged damaged;
static unsigned char *bytes;

static int make(void **state) {
    (void)state;
    damaged_make(&damaged);
    bytes = malloc(damaged.size);
    return bytes ? 0 : -1;
}

static int destroy(void **state) {
    (void)state;
    damaged_free(&damaged);
    free(bytes);
    return 0;
}

/* The current case, which the signal handler prints. */
static struct {
    size_t at;
    int live;
    uint64_t value;
} current;

static void report(int signal) {
    fprintf(stderr, "WEIR_SEED=%" PRIu64 ": signal %d at offset %zu, value %#" PRIx64 "%s\n", seed,
            signal, current.at, current.value, current.live ? ", live" : "");
    unlink(damaged.path);
    _exit(1);
}

/* Tries the bytes as they are. A try of more than two minutes counts as hanging. */
static int attempt(size_t at, uint64_t value, int live) {
    current.at = at, current.value = value, current.live = live;
    alarm(120); /* long enough for a busy machine */
    int64_t began_ns = clock_now();
    int opened = damaged_try(&damaged, bytes, live);
    if (clock_now() - began_ns > 2 * SECOND)
        print_message("# slow: offset %zu, value %#" PRIx64 "\n", at, value);
    alarm(0);
    return opened;
}

static size_t unused_from, unused_to; /* the rest of the header's page */

static void find_unused(void) {
    unused_from = sizeof(struct weir_header);
    unused_to = WEIR_HEADER_BYTES;
}

static void test_the_undamaged_file_is_undone_and_used(void **state) {
    (void)state;
    memcpy(bytes, damaged.base, damaged.size);
    assert_true(attempt(0, 0, 0));
}

static void test_every_byte_flipped(void **state) {
    int opened = 0, refused = 0;
    (void)state;
    for (size_t at = 0; at < damaged.size; at++) {
        if (at >= unused_from && at < unused_to)
            continue;
        memcpy(bytes, damaged.base, damaged.size);
        uint64_t value = next_random() & 255;
        bytes[at] ^= (unsigned char)(value ? value : 255);
        if (attempt(at, bytes[at], 0))
            opened++;
        else
            refused++;
    }
    print_message("# %d opened, %d refused\n", opened, refused);
    assert_true(opened > 100 && refused > 100);
}

static const uint64_t values[] = {0,
                                  1,
                                  UINT64_MAX,
                                  INT64_MAX,
                                  UINT64_C(1) << 63,
                                  UINT64_C(0x3fffffff3fffffff),
                                  UINT64_C(0x0000000100000001)};

/* Every word, set to boundary values; in the header the checksum is corrected. */
static void test_every_word_overwritten(void **state) {
    int opened = 0, refused = 0;
    (void)state;
    for (size_t at = 0; at + 8 <= damaged.size; at += 8) {
        if (at >= unused_from && at < unused_to)
            continue;
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            if (UNDER_ASAN && random_below(2))
                continue; /* half of them in each run */
            memcpy(bytes, damaged.base, damaged.size);
            memcpy(bytes + at, &values[i], 8);
            struct weir_header header;
            memcpy(&header, bytes, sizeof header);
            if (at < offsetof(struct weir_header, checksum))
                header.checksum = weir_checksum(&header);
            memcpy(bytes, &header, sizeof header);
            if (attempt(at, values[i], 0))
                opened++;
            else
                refused++;
        }
    }
    print_message("# %d opened, %d refused\n", opened, refused);
    assert_true(opened > 100 && refused > 100);
}

static void test_cells_and_lines_overwritten_while_open(void **state) {
    struct weir_header header;
    (void)state;
    memcpy(&header, damaged.base, sizeof header);
    for (size_t at = header.cells_at; at < damaged.size - WEIR_END_BYTES; at += 8)
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            if (UNDER_ASAN && random_below(2))
                continue;
            memcpy(bytes, damaged.base, damaged.size);
            memcpy(bytes + at, &values[i], 8);
            attempt(at, values[i], 1);
        }
}

static void test_many_places_damaged_at_once(void **state) {
    struct weir_header header;
    (void)state;
    memcpy(&header, damaged.base, sizeof header);
    for (int round = 0; round < (UNDER_ASAN ? 2000 : 10000); round++) {
        memcpy(bytes, damaged.base, damaged.size);
        int live = (int)random_below(2);
        size_t from = !live             ? WEIR_HEADER_BYTES
                      : random_below(2) ? header.stats_at
                                        : header.cells_at;
        for (uint64_t i = 1 + random_below(12); i-- > 0;) {
            size_t at = from + (size_t)random_below(damaged.size - WEIR_END_BYTES - from - 8);
            uint64_t value = random_below(2) ? next_random() : values[random_below(7)];
            memcpy(bytes + at, &value, 1 + (size_t)random_below(8));
        }
        attempt((size_t)round, 0, live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_undamaged_file_is_undone_and_used),
        cmocka_unit_test(test_every_byte_flipped),
        cmocka_unit_test(test_every_word_overwritten),
        cmocka_unit_test(test_cells_and_lines_overwritten_while_open),
        cmocka_unit_test(test_many_places_damaged_at_once),
    };
    seed_random();
    find_unused();
    signal(SIGALRM, report);
    signal(SIGABRT, report);
    return cmocka_run_group_tests_name("damaged tables", tests, make, destroy);
}
