/*
 * The codec for Redis, without a server: commands, and replies that are whole, cut or damaged.
 */
#include "redis_support.h"

#include "strategy/strategy.h"

static void argument_is(const struct weir_redis_command *command, int i, const char *text) {
    assert_int_equal(command->argv_len[i], strlen(text));
    assert_memory_equal(command->argv[i], text, strlen(text));
}

/* ------------------------------------------------------------------------------------- commands */

static void test_a_command_names_its_counters(void **state) {
    (void)state;
    struct weir_limit fixed = units(10, 1, WEIR_MINUTE, WEIR_FIXED_WINDOW);
    struct weir_limit moving = units(5, 2, WEIR_DAY, WEIR_MOVING_WINDOW);
    struct weir_limit token = units(7, 1, WEIR_SECOND, WEIR_TOKEN_BUCKET);
    token.burst = 9;
    struct weir_check checks[] = {
        check_of(&moving, "LIMITER/10.1.2.3/api.view", 1),
        check_of(&fixed, "LIMITER/10.1.2.3/api.view", 1), check_of(&token, "LIMITER/10.1.2.3", 1),
        check_of(&fixed, "LIMITER/10.1.2.3/api.view", 1), check_of(&fixed, "", 1)};
    struct weir_redis_request request = {.checks = checks, .n = 5};
    struct weir_redis_command command;
    size_t room = weir_redis_room(&request);
    assert_in_range(room, 1, sizeof buffer);
    assert_int_equal(weir_redis_command(&request, buffer, room - 1, &command), WEIR_ENOSPC);
    assert_int_equal(weir_redis_command(&request, buffer, room, &command), 0);
    assert_int_equal(command.argc, 8);
    assert_int_equal(command.keys, 4);
    assert_int_equal(command.key_at, 3);
    argument_is(&command, 0, "EVALSHA");
    argument_is(&command, 1, weir_redis_sha1());
    argument_is(&command, 2, "4");
    argument_is(&command, 3, "weir:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute");
    argument_is(&command, 4, "weir:tb:{LIMITER/10.1.2.3}/7/1/second/9");
    argument_is(&command, 5, "weir:fw:{}/10/1/minute");
    argument_is(&command, 6, "weir:mw:{LIMITER/10.1.2.3}/api.view/5/2/day");
    assert_int_equal(command.argv_len[7], 12 + 5 * 42);
    assert_true(command.len <= room);
}

static void test_a_command_is_the_protocols(void **state) {
    (void)state;
    struct weir_limit limit = units(10, 1, WEIR_MINUTE, WEIR_FIXED_WINDOW);
    struct weir_check checks[] = {check_of(&limit, "LIMITER/a", 1)};
    struct weir_redis_request request = {
        .checks = checks, .n = 1, .clear = 1, .prefix = "x", .prefix_len = 1};
    struct weir_redis_command command;
    assert_int_equal(weir_redis_command(&request, buffer, sizeof buffer, &command), 0);
    const char *bytes = "*2\r\n$3\r\nDEL\r\n$28\r\nx:fw:{LIMITER/a}/10/1/minute\r\n";
    assert_int_equal(command.len, strlen(bytes));
    assert_memory_equal(command.bytes, bytes, command.len);

    request.clear = 0;
    request.whole = 1;
    assert_int_equal(weir_redis_command(&request, buffer, sizeof buffer, &command), 0);
    argument_is(&command, 0, "EVAL");
    size_t len;
    const char *script = weir_redis_script(&len);
    assert_int_equal(command.argv_len[1], len);
    assert_memory_equal(command.argv[1], script, len);
}

static void test_wrong_requests_are_refused(void **state) {
    (void)state;
    struct weir_limit limit = units(10, 1, WEIR_MINUTE, WEIR_FIXED_WINDOW), wrong = limit;
    struct weir_check check = check_of(&limit, "a", 1), other = check, flagged = check;
    struct weir_check many[WEIR_CHECKS_MAX + 1];
    for (size_t i = 0; i <= WEIR_CHECKS_MAX; i++)
        many[i] = check;
    wrong.strategy = WEIR_STRATEGIES;
    other.limit = &wrong;
    flagged.flags = 2;
    struct weir_redis_command command;
    const struct weir_redis_request requests[] = {
        {.checks = NULL, .n = 1},
        {.checks = &check, .n = 0},
        {.checks = &other, .n = 1},
        {.checks = &flagged, .n = 1},
        {.checks = &check, .n = 1, .mode = 4},
        {.checks = &check, .n = 1, .mode = -1},
        {.checks = &check, .n = 1, .prefix = "a{b", .prefix_len = 3},
        {.checks = &check, .n = 1, .prefix = "ab}", .prefix_len = 3},
        {.checks = &check, .n = 1, .prefix = buffer, .prefix_len = WEIR_REDIS_PREFIX_MAX + 1},
        {.checks = &check, .n = 1, .clock_ns = WEIR_NOW_MAX + 1},
    };
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        assert_int_equal(weir_redis_room(&requests[i]), 0);
        assert_int_equal(weir_redis_command(&requests[i], buffer, sizeof buffer, &command),
                         WEIR_EINVAL);
    }
    struct weir_redis_request request = {.checks = many, .n = WEIR_CHECKS_MAX + 1};
    assert_int_equal(weir_redis_command(&request, buffer, sizeof buffer, &command), WEIR_ETOOMANY);
}

static void test_slots_are_the_clusters(void **state) {
    (void)state;
    assert_int_equal(weir_redis_slot("123456789", 9), 0x31C3);
    assert_int_equal(weir_redis_slot("foo{123456789}{bar}", 19), 0x31C3);
    assert_int_equal(weir_redis_slot("foo{}{bar}", 10), 8363); /* an empty tag does not count */
    assert_int_equal(weir_redis_slot("weir:fw:{LIMITER/a}/x/1/1/day", 29),
                     weir_redis_slot("LIMITER/a", 9));
    assert_int_equal(weir_redis_slot("", 0), 0);
}

/* -------------------------------------------------------------------------------------- replies */

static void put_double(char *to, double value) {
    memcpy(to, &value, 8);
}

/* A reply that two verdicts would make. */
static size_t reply_of_two(char *to) {
    size_t len = (size_t)sprintf(to, "$%d\r\n", 8 + 2 * 33);
    char *at = to + len;
    memset(at, 0, 8 + 2 * 33);
    put_double(at, 1e15);
    at += 8;
    at[0] = 1;
    at[17] = 0;
    put_double(at + 18, -1);
    put_double(at + 26, 7);
    at += 34;
    at[0] = 3;
    put_double(at + 8, 1e15 + 5);
    put_double(at + 24, (double)LATEST_US);
    memcpy(at + 32, "\r\n", 2);
    return (size_t)(at + 34 - to);
}

static void test_a_reply_is_read_when_it_is_complete(void **state) {
    (void)state;
    struct weir_limit limit = units(10, 1, WEIR_MINUTE, WEIR_FIXED_WINDOW);
    struct weir_check checks[] = {check_of(&limit, "a", 1), check_of(&limit, "b", 1)};
    struct weir_redis_request request = {.checks = checks, .n = 2};
    struct weir_verdict verdicts[2];
    struct weir_redis_reply reply;
    char bytes[512];
    /* First, what a server pushes in RESP3: a message, and an attribute. */
    const char *pushed = ">3\r\n+invalidate\r\n*1\r\n$3\r\nkey\r\n_\r\n|1\r\n+ttl\r\n:3600\r\n";
    size_t before = strlen(pushed), len = before + reply_of_two(bytes + before);
    memcpy(bytes, pushed, before);
    for (size_t there = 0; there < len; there++)
        assert_int_equal(weir_redis_read(bytes, there, &request, verdicts, &reply), 0);
    assert_int_equal(weir_redis_read(bytes, len, &request, verdicts, &reply), 1);
    assert_int_equal(reply.kind, WEIR_REDIS_DECIDED);
    assert_int_equal(reply.used, len);
    assert_true(reply.now_ns == INT64_C(1000000000000000000));
    assert_int_equal(reply.decision.allowed, 0);
    assert_int_equal(reply.decision.deciding, 1);
    assert_true(verdicts[0].allowed && verdicts[0].remaining == 3 && verdicts[0].limit == 10);
    assert_true(verdicts[0].reset_at_ns == INT64_C(1000000000000005000));
    assert_true(!verdicts[1].allowed && verdicts[1].retry_after_ns == WEIR_NEVER);
    assert_true(verdicts[1].delay_ns == 7000 && verdicts[1].reset_at_ns == INT64_MAX);
}

static void test_other_replies(void **state) {
    (void)state;
    struct weir_limit limit = units(10, 1, WEIR_MINUTE, WEIR_FIXED_WINDOW);
    struct weir_check checks[] = {check_of(&limit, "a", 1), check_of(&limit, "b", 1)};
    struct weir_redis_request request = {.checks = checks, .n = 2};
    struct weir_verdict verdicts[2];
    struct weir_redis_reply reply;
    const struct {
        const char *bytes;
        int rc;
        int kind;
    } cases[] = {
        {"-NOSCRIPT No matching script.\r\n", 1, WEIR_REDIS_NOSCRIPT},
        {"!21\r\nNOSCRIPT no such thing\r\n", WEIR_EFORMAT, 0},
        {"-WRONGTYPE Operation\r\n", 1, WEIR_REDIS_ERROR},
        {"-\r\n", 1, WEIR_REDIS_ERROR},
        {":1\r\n", WEIR_EFORMAT, 0},
        {"+OK\r\n", WEIR_EFORMAT, 0},
        {"$-1\r\n", WEIR_EFORMAT, 0},
        {"$3\r\nabc\r\n", WEIR_EFORMAT, 0},
        {"$99999999\r\n", WEIR_EFORMAT, 0},
        {"*-1\r\n", WEIR_EFORMAT, 0},
        {"*99999999999999999999\r\n", WEIR_EFORMAT, 0},
        {"*2\r\n:1\r\n:2\r\n", WEIR_EFORMAT, 0},
        {"HTTP/1.1 400\r\n", WEIR_EFORMAT, 0},
        {"\r\n", WEIR_EFORMAT, 0},
        {"+a\rb", WEIR_EFORMAT, 0},
        {"-a\nb\r\n", WEIR_EFORMAT, 0},
        {">1\r\n>1\r\n>1\r\n>1\r\n>1\r\n>1\r\n>1\r\n>1\r\n>1\r\n", WEIR_EFORMAT, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc =
            weir_redis_read(cases[i].bytes, strlen(cases[i].bytes), &request, verdicts, &reply);
        if (rc != cases[i].rc || (rc == 1 && reply.kind != cases[i].kind))
            fail_msg("%s: %d, kind %d", cases[i].bytes, rc, reply.kind);
    }
    request.clear = 1;
    assert_int_equal(weir_redis_read(":2\r\n", 4, &request, NULL, &reply), 1);
    assert_int_equal(reply.kind, WEIR_REDIS_CLEARED);
    memset(buffer, 'a', sizeof buffer);
    assert_int_equal(weir_redis_read(buffer, sizeof buffer, &request, NULL, &reply), WEIR_EFORMAT);
}

static void test_a_damaged_reply_is_refused_or_within_bounds(void **state) {
    (void)state;
    struct weir_limit limit = units(10, 1, WEIR_MINUTE, WEIR_FIXED_WINDOW);
    struct weir_check checks[] = {check_of(&limit, "a", 1), check_of(&limit, "b", 1)};
    struct weir_redis_request request = {.checks = checks, .n = 2};
    struct weir_verdict verdicts[2];
    struct weir_redis_reply reply;
    char bytes[256];
    size_t len = reply_of_two(bytes);
    for (size_t i = 0; i < len * 8; i++) {
        bytes[i / 8] = (char)(bytes[i / 8] ^ 1 << i % 8);
        if (weir_redis_read(bytes, len, &request, verdicts, &reply) == 1 &&
            reply.kind == WEIR_REDIS_DECIDED)
            for (int v = 0; v < 2; v++)
                assert_true(verdicts[v].remaining >= 0 && verdicts[v].remaining <= 10 &&
                            verdicts[v].reset_at_ns >= 0 && verdicts[v].retry_after_ns >= 0 &&
                            verdicts[v].delay_ns >= 0);
        bytes[i / 8] = (char)(bytes[i / 8] ^ 1 << i % 8);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_command_names_its_counters),
        cmocka_unit_test(test_a_command_is_the_protocols),
        cmocka_unit_test(test_wrong_requests_are_refused),
        cmocka_unit_test(test_slots_are_the_clusters),
        cmocka_unit_test(test_a_reply_is_read_when_it_is_complete),
        cmocka_unit_test(test_other_replies),
        cmocka_unit_test(test_a_damaged_reply_is_refused_or_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
