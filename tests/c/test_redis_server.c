/*
 * The script on a real Redis server beside the table: the timelines, and random decisions over
 * several limits with the largest numbers. The server's times are whole microseconds, so the
 * table's times are rounded up to them. Without redis-server in the PATH the tests are skipped.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "table/cell.h"
#include "table/hash.h"
#include "redis_support.h"
#include "zones.h"

static pid_t server;
static int connection = -1;

static int listen_somewhere(struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof *address;
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &len), 0);
    return fd;
}

static bool in_path(const char *program) {
    char command[256];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", program);
    return system(command) == 0;
}

static int start_server(void **state) {
    (void)state;
    if (!in_path("redis-server"))
        return 0;
    struct sockaddr_in address;
    close(listen_somewhere(&address));
    char port[8];
    snprintf(port, sizeof port, "%d", ntohs(address.sin_port));
    fflush(NULL);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(open("/dev/null", O_WRONLY), 1);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               "--dir", "/tmp", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 6000 && connection < 0; i++) { /* at least two minutes */
        if (waitpid(server, NULL, WNOHANG) != 0) {
            server = 0;
            return 1;
        }
        int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
            connection = fd;
        } else {
            close(fd);
            usleep(20000);
        }
    }
    return connection < 0;
}

static int stop_server(void **state) {
    (void)state;
    if (server > 0) {
        close(connection);
        kill(server, SIGTERM);
        waitpid(server, NULL, 0);
    }
    return 0;
}

static void send_all(const char *bytes, size_t len) {
    for (size_t sent = 0; sent < len;) {
        ssize_t n = write(connection, bytes + sent, len - sent);
        assert_true(n > 0);
        sent += (size_t)n;
    }
}

static int exchange(const struct weir_redis_request *request, struct weir_verdict *verdicts,
                    struct weir_redis_reply *reply) {
    static char bytes[WEIR_REDIS_REPLY_MAX];
    struct weir_redis_command command;
    assert_int_equal(weir_redis_command(request, buffer, sizeof buffer, &command), 0);
    send_all(command.bytes, command.len);
    int rc = 0;
    for (size_t len = 0; rc == 0;) {
        ssize_t n = read(connection, bytes + len, sizeof bytes - len);
        assert_true(n > 0);
        len += (size_t)n;
        rc = weir_redis_read(bytes, len, request, verdicts, reply);
    }
    assert_int_equal(rc, 1);
    return reply->kind;
}

/* Sends a request; sends it with the script if the server does not have the script. */
static void ask_server(struct weir_redis_request *request, struct weir_verdict *verdicts,
                       struct weir_redis_reply *reply) {
    request->whole = 0;
    if (exchange(request, verdicts, reply) == WEIR_REDIS_NOSCRIPT) {
        request->whole = 1;
        exchange(request, verdicts, reply);
    }
    if (reply->kind == WEIR_REDIS_ERROR)
        fail_msg("%.*s", (int)reply->error_len, reply->error);
}

/* A time as the server returns it: whole microseconds, rounded up, at most LATEST. */
static int64_t in_us(int64_t ns) {
    int64_t us = ns / US + (ns % US > 0);
    return us >= LATEST_US ? INT64_MAX : us * US;
}

static void round_up(struct weir_verdict *verdict) {
    verdict->reset_at_ns = in_us(verdict->reset_at_ns);
    verdict->retry_after_ns = in_us(verdict->retry_after_ns);
    verdict->delay_ns = in_us(verdict->delay_ns);
}

static void show(const char *who, const struct weir_verdict *v) {
    print_message("  %-6s allowed %d limit %lld remaining %lld reset %lld retry %lld delay %lld\n",
                  who, v->allowed, (long long)v->limit, (long long)v->remaining,
                  (long long)v->reset_at_ns, (long long)v->retry_after_ns, (long long)v->delay_ns);
}

/* Makes one decision on the server and in the table, and compares the verdicts. */
static void compare(struct weir_table *table, const struct weir_check *checks, size_t n,
                    int64_t now_ns, int mode, const char *where) {
    struct weir_verdict local[WEIR_CHECKS_MAX], remote[WEIR_CHECKS_MAX];
    struct weir_decision decision;
    struct weir_redis_reply reply;
    struct weir_redis_request request = {
        .checks = checks, .n = n, .mode = mode, .clock_given = 1, .clock_ns = now_ns};
    assert_int_equal(weir_decide(table, checks, n, now_ns, (enum weir_mode)mode, local, &decision),
                     0);
    ask_server(&request, remote, &reply);
    assert_true(reply.now_ns == now_ns && reply.decision.allowed == decision.allowed);
    for (size_t i = 0; i < n; i++) {
        round_up(&local[i]);
        if (!memcmp(&local[i], &remote[i], sizeof local[i]))
            continue;
        for (size_t j = 0; j < n; j++) {
            const struct weir_limit *l = checks[j].limit;
            print_message(
                "%s %lld per %lld ns burst %lld max_delay %lld key %.*s cost %lld peek %d\n",
                weir_strategy_name(l->strategy), (long long)l->amount, (long long)l->period_ns,
                (long long)l->burst, (long long)l->max_delay_ns, (int)checks[j].key_len,
                (const char *)checks[j].key, (long long)checks[j].cost, checks[j].flags);
            show("table", &local[j]);
            show("server", &remote[j]);
        }
        fail_msg("%s: mode %d at %lld: verdict %zu", where, mode, (long long)now_ns, i);
    }
}

#define NEED_SERVER()                                                                              \
    do {                                                                                           \
        (void)state;                                                                               \
        if (connection < 0)                                                                        \
            SKIP("no redis-server in the PATH");                                                   \
    } while (0)

static void test_timelines_on_a_server(void **state) {
    NEED_SERVER();
    char path[1024], line[1024], key[64], where[32];
    const char *folder = getenv("WEIR_TESTS");
    snprintf(path, sizeof path, "%s/timelines.txt", folder ? folder : "tests");
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("cannot read %s: set WEIR_TESTS", path);
    struct weir_table *table;
    struct weir_limit limit = {0};
    table = open_table("memory://?keys=4096");
    int timelines = 0;
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        char strategy[32], text[96], third[32], op[8];
        long long now, cost;
        if (line[0] == '=') {
            assert_int_equal(sscanf(line, "= %31[^ |] | %95[^|] | %31[^ |]", strategy, text, third),
                             3);
            size_t len = strlen(text);
            while (len > 0 && text[len - 1] == ' ')
                len--;
            assert_int_equal(weir_limit_parse(text, len, &limit, NULL), 0);
            limit.strategy = weir_strategy_parse(strategy, strlen(strategy));
            third_of_timeline(&limit, third);
            limit.max_delay_ns = limit.max_delay_ns / US * US;
            if (limit.max_delay_ns > limit.period_ns)
                limit.max_delay_ns = limit.period_ns;
            snprintf(key, sizeof key, "LIMITER/%d/x", number);
            timelines++;
        } else if (line[0] != '#' && line[0] != '\n') {
            assert_int_equal(sscanf(line, "%lld %7s %lld", &now, op, &cost), 3);
            struct weir_check check = check_of(&limit, key, cost);
            snprintf(where, sizeof where, "timelines.txt:%d", number);
            compare(table, &check, 1, now / US * US,
                    !strcmp(op, "hit")    ? WEIR_HIT
                    : !strcmp(op, "test") ? WEIR_TEST
                                          : WEIR_REFUND,
                    where);
        }
    }
    fclose(file);
    weir_table_close(table);
    assert_in_range(timelines, 125, 10000);
}

static const int64_t amounts[] = {0,
                                  1,
                                  2,
                                  3,
                                  7,
                                  10,
                                  100,
                                  1000,
                                  1000000,
                                  999999999,
                                  INT64_C(1) << 31,
                                  (INT64_C(1) << 40) - 1,
                                  INT64_C(1) << 40,
                                  INT64_C(1) << 47,
                                  (INT64_C(1) << 47) + 1,
                                  INT64_C(1) << 53,
                                  INT64_C(1) << 62,
                                  INT64_MAX};
enum { AMOUNTS = sizeof amounts / sizeof amounts[0] };

static struct weir_limit draw_limit(void) {
    static const int64_t multiples[] = {1, 1, 1, 2, 7, 30};
    int strategy = (int)random_below(WEIR_STRATEGIES);
    int64_t amount = amounts[random_below(random_below(10) < 7 ? 12 : AMOUNTS)];
    struct weir_limit limit = units(amount, multiples[random_below(6)],
                                    (int)random_below(random_below(5) ? 4 : 6), strategy);
    if (strategy == WEIR_TOKEN_BUCKET && random_below(2))
        limit.burst = amounts[1 + random_below(AMOUNTS - 1)];
    const int64_t delays[] = {0, US, SECOND / 2, limit.period_ns / 3 / US * US, limit.period_ns};
    int64_t delay = delays[random_below(5)];
    limit.max_delay_ns = delay < limit.period_ns ? delay : limit.period_ns;
    return limit;
}

static int64_t draw_step(const struct weir_limit *limit) {
    uint64_t period = (uint64_t)limit->period_ns, kind = random_below(100);
    return kind < 25   ? 0
           : kind < 55 ? (int64_t)random_below((uint64_t)SECOND)
           : kind < 70 ? (int64_t)random_below(period / 50 + 1)
           : kind < 85 ? (int64_t)random_below(period + 1)
           : kind < 89 ? (int64_t)period * (int64_t)(1 + random_below(2) % 2)
           : kind < 94 ? -(int64_t)random_below((uint64_t)SECOND / 10)
                       : -(int64_t)random_below(period + 1);
}

static int64_t draw_cost(const struct weir_limit *limit) {
    int64_t most = limit->burst ? limit->burst : limit->amount;
    const int64_t costs[] = {
        0, 1, 1, 1, 1, 2, 3, most / 2, most, most < INT64_MAX ? most + 1 : most, INT64_MAX};
    return costs[random_below(sizeof costs / sizeof costs[0])];
}

#define STORY_LIMITS 5
#define STORY_KEY 64

/*
 * Names a key that shares no bucket with the keys before it. A table gives the cell of an expired
 * key to the next key that needs one, and the server keeps the key a little longer. If the clock
 * then steps back, the key exists on the server but not in the table. That is correct, but this
 * test would report it as a difference.
 */
static void name_apart(struct weir_table *table, const struct weir_limit *limits,
                       char keys[][STORY_KEY], uint64_t buckets[][2], size_t i, int number) {
    for (int tries = 0; tries < 1000; tries++) {
        uint64_t fingerprint[2];
        bool apart = true;
        int len = snprintf(keys[i], STORY_KEY, "LIMITER/random %d/%zu-%d", number, i, tries);
        weir_fingerprint(table, keys[i], (size_t)len, &limits[i], fingerprint);
        weir_buckets_of(table, fingerprint, buckets[i]);
        for (size_t j = 0; j < i; j++)
            for (int k = 0; k < 4; k++)
                apart &= buckets[i][k & 1] != buckets[j][k >> 1];
        if (apart)
            return;
    }
    fail_msg("no key apart from the others in 1000");
}

static void story(int number) {
    static const int64_t starts[] = {0, SECOND, NOW, WEIR_NOW_MAX / US * US - 1000 * SECOND};
    struct weir_table *table;
    struct weir_limit limits[STORY_LIMITS];
    char keys[STORY_LIMITS][STORY_KEY], where[64];
    uint64_t buckets[STORY_LIMITS][2];
    table = open_table("memory://?keys=1024");
    size_t count = 1 + (size_t)random_below(STORY_LIMITS);
    int64_t now_ns = starts[random_below(4)];
    for (size_t i = 0; i < count; i++) {
        limits[i] = draw_limit();
        name_apart(table, limits, keys, buckets, i, number);
    }
    for (uint64_t step = 5 + random_below(60); step > 0; step--) {
        struct weir_check checks[STORY_LIMITS];
        size_t n = 1 + (random_below(2) ? 0 : (size_t)random_below(STORY_LIMITS));
        int64_t by = draw_step(&limits[random_below(count)]);
        now_ns = by > WEIR_NOW_MAX - now_ns ? WEIR_NOW_MAX : now_ns + by;
        now_ns = (now_ns < 0 ? 0 : now_ns) / US * US;
        for (size_t i = 0; i < n; i++) {
            size_t which = (size_t)random_below(count);
            checks[i] = check_of(&limits[which], keys[which], draw_cost(&limits[which]));
            if (random_below(4) == 0)
                checks[i].flags = WEIR_CHECK_PEEK;
        }
        int mode = random_below(9) < 6 ? WEIR_HIT : (int)(1 + random_below(3));
        snprintf(where, sizeof where, "WEIR_SEED=%" PRIu64 ", story %d", seed, number);
        compare(table, checks, n, now_ns, mode, where);
    }
    weir_table_close(table);
}

static void test_random_decisions_on_a_server(void **state) {
    NEED_SERVER();
    seed_random();
    send_all("*1\r\n$8\r\nFLUSHALL\r\n", 18);
    assert_int_equal(read(connection, buffer, 5), 5);
    for (int i = 0; i < 400; i++)
        story(i);
}

static void test_the_servers_own_clock(void **state) {
    NEED_SERVER();
    struct weir_limit limit = units(3, 1, WEIR_HOUR, WEIR_MOVING_WINDOW);
    struct weir_check check = check_of(&limit, "LIMITER/clock", 1);
    struct weir_redis_request request = {.checks = &check, .n = 1};
    struct weir_redis_reply reply;
    struct weir_verdict verdict;
    int64_t before_ns = clock_now();
    ask_server(&request, &verdict, &reply);
    assert_in_range(reply.now_ns, before_ns - SECOND, clock_now() + SECOND);
    assert_int_equal(verdict.remaining, 2);
    request.clock_ns = 3540 * SECOND;
    ask_server(&request, &verdict, &reply);
    assert_int_equal(verdict.remaining, 1);
    request.clock_ns = 3611 * SECOND;
    ask_server(&request, &verdict, &reply);
    assert_int_equal(verdict.remaining, 1);
    request.clear = 1;
    assert_int_equal(exchange(&request, NULL, &reply), WEIR_REDIS_CLEARED);
    request.clear = 0;
    ask_server(&request, &verdict, &reply);
    assert_int_equal(verdict.remaining, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timelines_on_a_server),
        cmocka_unit_test(test_random_decisions_on_a_server),
        cmocka_unit_test(test_the_servers_own_clock),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
