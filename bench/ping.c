/*
 * Round trips of a blocking C client with hiredis: a PING, and a check of three limits with
 * libweir's codec. bench/redis_check.py measures it alternately with other clients. It reads "ping
 * N K" or "check N K" and prints the average microseconds of N round trips; or "load N K", where 50
 * connections send at the same time, with K limits for one of 10,000 clients each (K = 0: a PING),
 * and prints the number per second.
 *
 * Usage: ping PORT, and these commands on standard input
 */
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "weir/redis.h"

#define CONNECTIONS 50

static redisContext *redis;
static struct weir_limit limits[3];
static char buffer[8192];

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void ping(void) {
    redisReply *reply = redisCommand(redis, "PING");
    if (!reply || reply->type != REDIS_REPLY_STATUS)
        exit(1);
    freeReplyObject(reply);
}

static int exchange(struct weir_redis_request *request, struct weir_verdict *verdicts,
                    struct weir_redis_reply *reply) {
    static char bytes[WEIR_REDIS_REPLY_MAX], whole[1 << 16];
    struct weir_redis_command command;
    char *to = request->whole ? whole : buffer;
    size_t room = request->whole ? sizeof whole : sizeof buffer;
    if (weir_redis_command(request, to, room, &command) < 0 ||
        write(redis->fd, command.bytes, command.len) != (ssize_t)command.len)
        exit(1);
    size_t len = 0;
    int rc = 0;
    while (rc == 0) {
        ssize_t n = read(redis->fd, bytes + len, sizeof bytes - len);
        if (n <= 0)
            exit(1);
        len += (size_t)n;
        rc = weir_redis_read(bytes, len, request, verdicts, reply);
    }
    return rc < 0 ? rc : reply->kind;
}

/* Checks of the first `n` limits for a client. */
static struct weir_redis_request request_of(struct weir_check checks[3], size_t n,
                                            const char *key) {
    for (size_t i = 0; i < n; i++)
        checks[i] =
            (struct weir_check){.limit = &limits[i], .key = key, .key_len = strlen(key), .cost = 1};
    return (struct weir_redis_request){.checks = checks, .n = n};
}

static void check(void) {
    struct weir_check checks[3];
    struct weir_verdict verdicts[3];
    struct weir_redis_reply reply;
    struct weir_redis_request request = request_of(checks, 3, "LIMITER/10.1.2.3/bench.c");
    if (exchange(&request, verdicts, &reply) == WEIR_REDIS_NOSCRIPT) {
        request.whole = 1;
        exchange(&request, verdicts, &reply);
    }
    if (reply.kind != WEIR_REDIS_DECIDED || !reply.decision.allowed)
        exit(1);
}

static void send_one(int fd, size_t n) {
    struct weir_check checks[3];
    struct weir_redis_command command = {.bytes = "*1\r\n$4\r\nPING\r\n", .len = 14};
    char key[64];
    snprintf(key, sizeof key, "LIMITER/client-%ld/view", random() % 10000);
    struct weir_redis_request request = request_of(checks, n, key);
    if ((n > 0 && weir_redis_command(&request, buffer, sizeof buffer, &command) < 0) ||
        write(fd, command.bytes, command.len) != (ssize_t)command.len)
        exit(1);
}

/* Replies are short and come in one piece. */
static void receive_one(int fd, size_t n) {
    struct weir_check checks[3];
    struct weir_verdict verdicts[3];
    struct weir_redis_reply reply;
    char bytes[4096];
    struct weir_redis_request request = request_of(checks, n, "");
    ssize_t len = read(fd, bytes, sizeof bytes);
    if (len <= 0 ||
        (n > 0 && (weir_redis_read(bytes, (size_t)len, &request, verdicts, &reply) != 1 ||
                   reply.kind != WEIR_REDIS_DECIDED)))
        exit(1);
}

/*
 * Sends `count` requests over all connections, one at a time on each. Returns the number per
 * second.
 */
static double load(int port, int count, size_t n) {
    redisContext *context[CONNECTIONS];
    struct pollfd polls[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
        context[i] = redisConnect("127.0.0.1", port);
        if (!context[i] || context[i]->err)
            exit(1);
        polls[i] = (struct pollfd){.fd = context[i]->fd, .events = POLLIN};
    }
    double start = now_us();
    int sent = 0, received = 0;
    for (; sent < CONNECTIONS; sent++)
        send_one(polls[sent].fd, n);
    while (received < sent) {
        if (poll(polls, CONNECTIONS, 1000) <= 0)
            exit(1);
        for (int i = 0; i < CONNECTIONS; i++) {
            if (!(polls[i].revents & POLLIN))
                continue;
            receive_one(polls[i].fd, n);
            received++;
            if (sent < count) {
                send_one(polls[i].fd, n);
                sent++;
            }
        }
    }
    double rate = received / (now_us() - start) * 1e6;
    for (int i = 0; i < CONNECTIONS; i++)
        redisFree(context[i]);
    return rate;
}

int main(int argc, char **argv) {
    const int units[] = {WEIR_MINUTE, WEIR_HOUR, WEIR_DAY};
    char what[8];
    int count;
    unsigned n;
    redis = argc == 2 ? redisConnect("127.0.0.1", atoi(argv[1])) : NULL;
    if (!redis || redis->err) {
        fprintf(stderr, "usage: ping PORT\n");
        return 1;
    }
    for (int i = 0; i < 3; i++)
        weir_limit_init(&limits[i], 1000000000, 1, units[i], NULL);
    check(); /* loads the script into the server */
    while (scanf("%7s %d %u", what, &count, &n) == 3) {
        double start = now_us();
        if (what[0] == 'l') {
            printf("%.0f\n", load(atoi(argv[1]), count, n < 3 ? n : 3));
        } else {
            for (int i = 0; i < count; i++)
                if (what[0] == 'p')
                    ping();
                else
                    check();
            printf("%.3f\n", (now_us() - start) / count);
        }
        fflush(stdout);
    }
    redisFree(redis);
    return 0;
}
