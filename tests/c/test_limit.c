/*
 * Limits as text. Every input ends at a PROT_NONE page; the random runs print their seed
 * (WEIR_SEED=N repeats one).
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "../../fuzz/guarded.h"
#include "error.h"
#include "weir/weir.h"

#define SECOND INT64_C(1000000000)
#define DAY (86400 * SECOND)

/* A string literal with its NULs. */
#define TEXT(literal) literal, sizeof(literal) - 1

static int parse(const char *text, size_t len, struct weir_limit *limit, struct weir_error *error) {
    struct guarded copy = guarded_copy(text, len);
    int rc = weir_limit_parse(copy.bytes, copy.len, limit, error);
    guarded_free(&copy);
    return rc;
}

static int parse_many(const char *text, size_t len, struct weir_limit *limits, size_t *count,
                      struct weir_error *error) {
    struct guarded copy = guarded_copy(text, len);
    int rc = weir_limit_parse_many(copy.bytes, copy.len, limits, count, error);
    guarded_free(&copy);
    return rc;
}

static void test_reads_what_people_write(void **state) {
    static const struct {
        const char *text, *printed;
    } cases[] = {
        {"10 per minute", "10 per 1 minute"},
        {"60/hour", "60 per 1 hour"},
        {"1/second", "1 per 1 second"},
        {"5 per 1 minute", "5 per 1 minute"},
        {"250/7days", "250 per 7 day"},
        {"250 / 7 days", "250 per 7 day"},
        {"1per2hours", "1 per 2 hour"},
        {"10 PER MINUTE", "10 per 1 minute"},
        {"10 Per 3 MonthS", "10 per 3 month"},
        {"10perminute", "10 per 1 minute"},
        {"007 per 05 years", "7 per 5 year"},
        {" \t\n\v\f\r10 \x1c/\x1d 2 \x1e day\x1f", "10 per 2 day"},
        {"0/minute", "0 per 1 minute"},
        {"10/second burst 20", "10 per 1 second burst 20"},
        {"10/second BURST20 ", "10 per 1 second burst 20"},
        {"9223372036854775807/second", "9223372036854775807 per 1 second"},
        {"1 per 100 years", "1 per 100 year"},
        {"1 per 3110400000 seconds", "1 per 3110400000 second"},
        {"00000000000000000000000000000000001/day", "1 per 1 day"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct weir_limit limit;
        struct weir_error error = {.message = ""};
        char printed[96];
        int rc = parse(cases[i].text, strlen(cases[i].text), &limit, &error);
        if (rc < 0)
            fail_msg("%s", error.message);
        weir_limit_print(&limit, printed, sizeof printed);
        assert_string_equal(printed, cases[i].printed);
        assert_int_equal(weir_limit_validate(&limit, &error), 0);
    }
}

static void test_fills_every_member(void **state) {
    struct weir_limit limit;
    (void)state;
    assert_int_equal(parse(TEXT("50 per 2 months"), &limit, NULL), 0);
    assert_int_equal(limit.amount, 50);
    assert_int_equal(limit.multiples, 2);
    assert_int_equal(limit.unit, WEIR_MONTH);
    assert_true(limit.period_ns == 60 * DAY);
    assert_int_equal(limit.strategy, WEIR_FIXED_WINDOW);
    assert_int_equal(limit.burst, 0);
    assert_int_equal(limit.max_delay_ns, WEIR_MAX_DELAY_DEFAULT_NS);
}

static void test_units_have_the_lengths_of_limits(void **state) {
    static const int64_t seconds[] = {1, 60, 3600, 86400, 30 * 86400, 360 * 86400};
    (void)state;
    for (int unit = WEIR_SECOND; unit <= WEIR_YEAR; unit++) {
        struct weir_limit limit;
        assert_int_equal(weir_limit_init(&limit, 1, 3, unit, NULL), 0);
        assert_true(limit.period_ns == 3 * seconds[unit] * SECOND);
    }
}

static void test_burst_makes_a_token_bucket(void **state) {
    struct weir_limit limit;
    (void)state;
    assert_int_equal(parse(TEXT("10/second burst 9223372036854775807"), &limit, NULL), 0);
    assert_int_equal(limit.strategy, WEIR_TOKEN_BUCKET);
    assert_true(limit.burst == INT64_MAX);
}

static void test_reads_several_in_order(void **state) {
    static const char text[] = "5/second; 60 per minute,2500 per hour|1/day burst 2";
    struct weir_limit limits[8];
    size_t count = 8;
    (void)state;
    assert_int_equal(parse_many(TEXT(text), limits, &count, NULL), 0);
    assert_int_equal(count, 4);
    assert_int_equal(limits[0].amount, 5);
    assert_int_equal(limits[1].amount, 60);
    assert_int_equal(limits[2].amount, 2500);
    assert_int_equal(limits[3].burst, 2);
}

static void test_a_colon_before_a_separator_passes_as_in_limits(void **state) {
    struct weir_limit limits[2];
    size_t count = 2;
    (void)state;
    assert_int_equal(parse_many(TEXT("1/second:;2/minute"), limits, &count, NULL), 0);
    assert_int_equal(count, 2);
}

static const struct {
    const char *text;
    size_t len;
    int column;
    const char *message;
} refusals[] = {
    {TEXT("10 per fortnight"), 8, "\"10 per fortnight\": unknown unit \"fortnight\" at column 8"},
    {TEXT("10 per minutess"), 8, "\"10 per minutess\": unknown unit \"minutess\" at column 8"},
    {TEXT("10 per minuteburst 5"), 8,
     "\"10 per minuteburst 5\": unknown unit \"minuteburst\" at column 8"},
    {TEXT("10/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 4,
     "\"10/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\": unknown unit "
     "\"aaaaaaaaaaaaaaaaaaaaaaaa\"... at column 4"},
    {TEXT(""), 1, "\"\": empty limit at column 1"},
    {TEXT("  "), 3, "\"  \": empty limit at column 3"},
    {TEXT("5/second;;"), 10, "\"5/second;;\": empty limit at column 10"},
    {TEXT("5/second;"), 10, "\"5/second;\": empty limit at column 10"},
    {TEXT(";5/second"), 1, "\";5/second\": empty limit at column 1"},
    {TEXT("per minute"), 1, "\"per minute\": a count expected, not \"per\" at column 1"},
    {TEXT("/minute"), 1, "\"/minute\": a count expected, not \"/minute\" at column 1"},
    {TEXT("10"), 3, "\"10\": \"per\" or \"/\" is missing at column 3"},
    {TEXT("10 minute"), 4, "\"10 minute\": \"per\" or \"/\" expected, not \"minute\" at column 4"},
    {TEXT("5;6/day"), 2, "\"5;6/day\": \"per\" or \"/\" is missing at column 2"},
    {TEXT("10 per"), 7, "\"10 per\": a unit is missing at column 7"},
    {TEXT("10/2"), 5, "\"10/2\": a unit is missing at column 5"},
    {TEXT("10/ ;"), 5, "\"10/ ;\": a unit is missing at column 5"},
    {TEXT("10//day"), 4, "\"10//day\": a unit expected, not \"/day\" at column 4"},
    {TEXT("9223372036854775808/day"), 1,
     "\"9223372036854775808/day\": count larger than 9223372036854775807 at column 1"},
    {TEXT("99999999999999999999999/day"), 1,
     "\"99999999999999999999999/day\": count larger than 9223372036854775807 at column 1"},
    {TEXT("5 per 0 hours"), 7, "\"5 per 0 hours\": a period of zero units at column 7"},
    {TEXT("5 per 101 years"), 7,
     "\"5 per 101 years\": period longer than 100 years of 360 days at column 7"},
    {TEXT("5 per 3110400001 seconds"), 7,
     "\"5 per 3110400001 seconds\": period longer than 100 years of 360 days at column 7"},
    {TEXT("5 per 99999999999999999999 days"), 7,
     "\"5 per 99999999999999999999 days\": period longer than 100 years of 360 days at column "
     "7"},
    {TEXT("-5/minute"), 1, "\"-5/minute\": a count cannot be negative at column 1"},
    {TEXT("5/-1minute"), 3, "\"5/-1minute\": a period cannot be negative at column 3"},
    {TEXT("1.5/minute"), 2, "\"1.5/minute\": a count is a whole number, without \".\" at column 2"},
    {TEXT("5/1.5 minutes"), 4,
     "\"5/1.5 minutes\": a period is whole units, without \".\" at column 4"},
    {TEXT("5/minute burst 0"), 16, "\"5/minute burst 0\": a burst of zero at column 16"},
    {TEXT("5/minute burst"), 15,
     "\"5/minute burst\": a count after \"burst\" is missing at column 15"},
    {TEXT("5/minute burst x"), 16,
     "\"5/minute burst x\": a count after \"burst\" expected, not \"x\" at column 16"},
    {TEXT("5/minute burst -1"), 16,
     "\"5/minute burst -1\": a count cannot be negative at column 16"},
    {TEXT("5/minute please"), 10,
     "\"5/minute please\": the end or another limit after \";\" expected, not \"please\" at "
     "column 10"},
    {TEXT("5/minute 6/hour"), 10,
     "\"5/minute 6/hour\": the end or another limit after \";\" expected, not \"6/hour\" at "
     "column 10"},
    {TEXT("5/minute:"), 9,
     "\"5/minute:\": the end or another limit after \";\" expected, not \":\" at column 9"},
    {TEXT("5/min\0ute"), 3, "\"5/min\\x00ute\": unknown unit \"min\" at column 3"},
    {TEXT("\0"), 1, "\"\\x00\": a NUL byte at column 1"},
    {TEXT("5/minute\0"), 9, "\"5/minute\\x00\": a NUL byte at column 9"},
    {TEXT("5/\xc3\xa9t\xc3\xa9"), 3,
     "\"5/\\xc3\\xa9t\\xc3\\xa9\": a byte that is not ASCII at column 3"},
    {TEXT("5\xc2\xa0per minute"), 2,
     "\"5\\xc2\\xa0per minute\": a byte that is not ASCII at column 2"},
    {TEXT("5/\x1b[31m"), 3, "\"5/\\x1b[31m\": a unit expected, not \"\\x1b[31m\" at column 3"},
    {TEXT("5/\"\\"), 3, "\"5/\\\"\\\\\": a unit expected, not \"\\\"\\\\\" at column 3"},
};

static void test_refusals_say_what_and_where(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct weir_limit limits[8];
        struct weir_error error = {.message = ""};
        size_t count = 8;
        int rc = parse_many(refusals[i].text, refusals[i].len, limits, &count, &error);
        assert_string_equal(error.message, refusals[i].message);
        assert_int_equal(error.column, refusals[i].column);
        assert_int_equal(error.code, WEIR_ESYNTAX);
        assert_int_equal(rc, WEIR_ESYNTAX);
    }
}

static void test_a_long_text_is_quoted_around_the_place(void **state) {
    char text[2000];
    struct weir_error error;
    struct weir_limit limits[WEIR_CHECKS_MAX];
    size_t count = WEIR_CHECKS_MAX;
    (void)state;
    memset(text, ' ', sizeof text);
    memcpy(text, "1/day", 5);
    memcpy(text + 1000, ";5/week;", 8);
    assert_int_equal(parse_many(text, sizeof text, limits, &count, &error), WEIR_ESYNTAX);
    assert_int_equal(error.column, 1004);
    assert_non_null(strstr(error.message, "...\""));
    assert_non_null(strstr(error.message, ";5/week;"));
    assert_non_null(strstr(error.message, "\"...: unknown unit \"week\" at column 1004"));
}

static void test_text_has_a_longest_length(void **state) {
    char text[WEIR_TEXT_MAX + 1];
    struct weir_error error;
    struct weir_limit limit;
    (void)state;
    memset(text, ' ', sizeof text);
    memcpy(text, "1/day", 5);
    assert_int_equal(parse(text, WEIR_TEXT_MAX, &limit, &error), 0);
    assert_int_equal(parse(text, WEIR_TEXT_MAX + 1, &limit, &error), WEIR_ESYNTAX);
    assert_non_null(strstr(error.message, "text longer than 4096 bytes at column 4097"));
}

static void test_more_limits_than_room_are_refused(void **state) {
    struct weir_limit limits[WEIR_CHECKS_MAX + 1];
    struct weir_error error;
    char text[(WEIR_CHECKS_MAX + 1) * 6];
    size_t count = WEIR_CHECKS_MAX + 1;
    (void)state;

    for (size_t i = 0; i <= WEIR_CHECKS_MAX; i++)
        memcpy(text + i * 6, "1/day;", 6);
    assert_int_equal(parse_many(text, WEIR_CHECKS_MAX * 6 - 1, limits, &count, &error), 0);
    assert_int_equal(count, WEIR_CHECKS_MAX);

    count = WEIR_CHECKS_MAX + 1;
    assert_int_equal(parse_many(text, sizeof text - 1, limits, &count, &error), WEIR_ETOOMANY);
    assert_int_equal(error.column, WEIR_CHECKS_MAX * 6 + 1);
    assert_non_null(strstr(error.message, "more than 32 limits at column 193"));

    count = 1;
    assert_int_equal(parse_many(TEXT("1/day;2/day"), limits, &count, &error), WEIR_ETOOMANY);
    assert_string_equal(error.message, "\"1/day;2/day\": more than one limit at column 7");
    count = 0;
    assert_int_equal(parse_many(TEXT("1/day"), limits, &count, &error), WEIR_ETOOMANY);
    assert_int_equal(parse(TEXT("1/day;2/day"), limits, &error), WEIR_ETOOMANY);
    assert_string_equal(error.message, "\"1/day;2/day\": more than one limit at column 7");
}

static void test_no_byte_behind_the_end_is_read(void **state) {
    static const char text[] = " 10 per 20 minutes burst 30 ;5/second";
    (void)state;
    for (size_t len = 0; len < sizeof text; len++) {
        struct weir_limit limits[2];
        size_t count = 2;
        parse_many(text, len, limits, &count, NULL);
    }
}

static void test_init_names_the_bad_value(void **state) {
    struct weir_limit limit;
    struct weir_error error;
    (void)state;
    assert_int_equal(weir_limit_init(&limit, -1, 1, WEIR_DAY, &error), WEIR_EINVAL);
    assert_string_equal(error.message, "amount -1 is negative");
    assert_int_equal(weir_limit_init(&limit, 1, 1, 6, &error), WEIR_EINVAL);
    assert_string_equal(error.message, "unit 6 is not one of the 6 units");
    assert_int_equal(weir_limit_init(&limit, 1, 1, -1, &error), WEIR_EINVAL);
    assert_int_equal(weir_limit_init(&limit, 1, 0, WEIR_DAY, &error), WEIR_EINVAL);
    assert_string_equal(error.message, "multiples 0 is out of its range for a day: 1 to 36000");
    assert_int_equal(weir_limit_init(&limit, 1, INT64_MAX, WEIR_YEAR, &error), WEIR_EINVAL);
    assert_int_equal(weir_limit_init(&limit, 1, 101, WEIR_YEAR, &error), WEIR_EINVAL);
    assert_int_equal(weir_limit_init(&limit, 1, 100, WEIR_YEAR, &error), 0);
    assert_true(limit.period_ns == WEIR_PERIOD_MAX_NS);
    assert_int_equal(weir_limit_init(NULL, 1, 1, WEIR_DAY, &error), WEIR_EINVAL);
}

static void test_validate_names_the_bad_member(void **state) {
    struct weir_limit good, bad;
    struct weir_error error;
    (void)state;
    assert_int_equal(weir_limit_init(&good, 10, 1, WEIR_MINUTE, NULL), 0);
    assert_int_equal(weir_limit_validate(&good, &error), 0);

#define REFUSED(member, value, text)                                                               \
    bad = good;                                                                                    \
    bad.member = value;                                                                            \
    assert_int_equal(weir_limit_validate(&bad, &error), WEIR_EINVAL);                              \
    assert_non_null(strstr(error.message, text))

    REFUSED(amount, -1, "amount -1 is negative");
    REFUSED(multiples, 0, "multiples 0");
    REFUSED(unit, 9, "unit 9");
    REFUSED(period_ns, 1, "period_ns 1 is not that of 1 minute: 60000000000");
    REFUSED(strategy, 99, "strategy 99 does not exist");
    REFUSED(strategy, -1, "strategy -1 does not exist");
    REFUSED(burst, -1, "burst -1 is negative");
    REFUSED(burst, 5, "burst is for token-bucket, not for fixed-window");
    REFUSED(max_delay_ns, -1, "max_delay_ns -1 is out of its range");
    REFUSED(max_delay_ns, 60 * SECOND + 1, "max_delay_ns 60000000001 is out of its range");
#undef REFUSED

    good.strategy = WEIR_TOKEN_BUCKET;
    good.burst = INT64_MAX;
    assert_int_equal(weir_limit_validate(&good, &error), 0);
    assert_int_equal(weir_limit_validate(NULL, &error), WEIR_EINVAL);
}

static void test_print_returns_the_length_of_the_whole_text(void **state) {
    struct weir_limit limit;
    char buffer[96];
    (void)state;
    assert_int_equal(parse(TEXT("10 per minute burst 20"), &limit, NULL), 0);
    assert_int_equal(weir_limit_print(&limit, NULL, 0), 24);
    assert_int_equal(weir_limit_print(&limit, buffer, 6), 24);
    assert_string_equal(buffer, "10 pe");
}

static void test_every_result_has_a_text(void **state) {
    (void)state;
    assert_string_equal(weir_strerror(0), "success");
    assert_string_equal(weir_strerror(WEIR_ENOMEM), "out of memory");
    assert_string_equal(weir_strerror(-9999), "unknown error");
    for (int result = WEIR_ECORRUPT; result < 0; result++)
        assert_string_not_equal(weir_strerror(result), "unknown error");
}

static void test_version_is_that_of_the_header(void **state) {
    char version[32];
    (void)state;
    snprintf(version, sizeof version, "%d.%d.%d", WEIR_VERSION_MAJOR, WEIR_VERSION_MINOR,
             WEIR_VERSION_PATCH);
    assert_string_equal(weir_version(), version);
}

static void test_messages_are_escaped_and_cut(void **state) {
    struct weir_error error;
    char text[600];
    (void)state;
    assert_int_equal(weir_fail(&error, WEIR_EACCES, 3, "%s", "a\nb\x7f\xff"), WEIR_EACCES);
    assert_string_equal(error.message, "a\\x0ab\\x7f\\xff");
    assert_int_equal(error.code, WEIR_EACCES);
    assert_int_equal(error.column, 3);

    memset(text, 'a', sizeof text);
    for (size_t len = 250; len < sizeof text; len++) {
        weir_fail(&error, WEIR_EINVAL, 0, "%.*s", (int)len, text);
        if (len < sizeof error.message) {
            assert_int_equal(strlen(error.message), len);
        } else {
            assert_int_equal(strlen(error.message), sizeof error.message - 1);
            assert_string_equal(error.message + sizeof error.message - 4, "...");
        }
    }
    assert_int_equal(weir_fail(NULL, WEIR_EINVAL, 0, "no error argument"), WEIR_EINVAL);
}

/* -------------------------------------------------------------------------------- random runs */

static uint64_t seed, random_state;

static uint64_t random_below(uint64_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % bound;
}

static int start_random(void **state) {
    const char *given = getenv("WEIR_SEED");
    (void)state;
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 2654435761u + 1;
    random_state = seed | 1;
    print_message("# WEIR_SEED=%" PRIu64 "\n", seed);
    return 0;
}

/* Small and large numbers: a random count of random bits. */
static int64_t random_number(int64_t max) {
    uint64_t bits = random_below(64);
    int64_t number = (int64_t)(random_below(UINT64_MAX) >> (63 - bits) >> 1);
    return number > max ? max : number;
}

static void test_what_is_printed_reads_back(void **state) {
    static const int64_t most[] = {3110400000, 51840000, 864000, 36000, 1200, 100};
    (void)state;
    for (int run = 0; run < 200000; run++) {
        struct weir_limit limit, again;
        struct weir_error error = {.message = ""};
        char text[96];
        int unit = (int)random_below(6);
        int64_t multiples = 1 + random_number(most[unit] - 1);
        assert_int_equal(weir_limit_init(&limit, random_number(INT64_MAX), multiples, unit, &error),
                         0);
        if (random_below(2)) {
            limit.strategy = WEIR_TOKEN_BUCKET;
            limit.burst = 1 + random_number(INT64_MAX - 1);
        }
        int length = weir_limit_print(&limit, text, sizeof text);
        int rc = weir_limit_parse(text, (size_t)length, &again, &error);
        if (rc < 0 || memcmp(&limit, &again, sizeof limit) != 0)
            fail_msg("WEIR_SEED=%" PRIu64 ": %s (%s)", seed, text, error.message);
    }
}

static void test_random_words_are_read_or_refused(void **state) {
    static const char *const words[] = {
        "10",  " ",      "per", "/",   "minute", "hours", ";", ",",    "|",  "burst",
        "007", "second", "0",   "day", "-",      ".",     ":", "\xc3", "\n", "9223372036854775808",
    };
    size_t accepted = 0;
    (void)state;
    for (int run = 0; run < 50000; run++) {
        struct weir_limit limits[WEIR_CHECKS_MAX];
        struct weir_error error = {.message = ""};
        char text[256];
        size_t len = 0, count = WEIR_CHECKS_MAX, pieces = random_below(9);
        for (size_t i = 0; i < pieces; i++) {
            const char *word = words[random_below(sizeof words / sizeof words[0])];
            memcpy(text + len, word, strlen(word));
            len += strlen(word);
        }
        int rc = parse_many(text, len, limits, &count, &error);
        bool good = rc == 0 ? count > 0 && weir_limit_validate(&limits[count - 1], NULL) == 0
                            : error.code == rc && error.column >= 1 &&
                                  (size_t)error.column <= len + 1 && error.message[0];
        accepted += rc == 0;
        if (!good)
            fail_msg("WEIR_SEED=%" PRIu64 ": \"%.*s\" (%s)", seed, (int)len, text, error.message);
    }
    assert_true(accepted > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_people_write),
        cmocka_unit_test(test_fills_every_member),
        cmocka_unit_test(test_units_have_the_lengths_of_limits),
        cmocka_unit_test(test_burst_makes_a_token_bucket),
        cmocka_unit_test(test_reads_several_in_order),
        cmocka_unit_test(test_a_colon_before_a_separator_passes_as_in_limits),
        cmocka_unit_test(test_refusals_say_what_and_where),
        cmocka_unit_test(test_a_long_text_is_quoted_around_the_place),
        cmocka_unit_test(test_text_has_a_longest_length),
        cmocka_unit_test(test_more_limits_than_room_are_refused),
        cmocka_unit_test(test_no_byte_behind_the_end_is_read),
        cmocka_unit_test(test_init_names_the_bad_value),
        cmocka_unit_test(test_validate_names_the_bad_member),
        cmocka_unit_test(test_print_returns_the_length_of_the_whole_text),
        cmocka_unit_test(test_every_result_has_a_text),
        cmocka_unit_test(test_version_is_that_of_the_header),
        cmocka_unit_test(test_messages_are_escaped_and_cut),
        cmocka_unit_test(test_what_is_printed_reads_back),
        cmocka_unit_test(test_random_words_are_read_or_refused),
    };
    return cmocka_run_group_tests(tests, start_random, NULL);
}
