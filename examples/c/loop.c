/*
 * An event loop that decides on a Redis server with hiredis' asynchronous API. Each line of input
 * is the name of a client and means one request. Further lines are read while replies are pending.
 *
 *     cc loop.c $(pkg-config --cflags --libs weir-hiredis hiredis) -o loop
 *     printf 'alice\nalice\nbob\n' | ./loop 127.0.0.1 6379 "1 per minute"
 *
 * The loop is poll(); hiredis has adapters for libevent, libuv and others, which replace `hooks`.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/async.h>
#include <weir/hiredis.h>

#ifndef DEADLINE_MS
#define DEADLINE_MS 1000
#endif

static short wanted; /* events that hiredis waits for */
static int sent, answered, failed;

static void add_read(void *data) {
    (void)data;
    wanted |= POLLIN;
}
static void del_read(void *data) {
    (void)data;
    wanted &= (short)~POLLIN;
}
static void add_write(void *data) {
    (void)data;
    wanted |= POLLOUT;
}
static void del_write(void *data) {
    (void)data;
    wanted &= (short)~POLLOUT;
}
static void clean_up(void *data) {
    (void)data;
    wanted = 0;
}

struct request {
    struct weir_hiredis_pending *pending;
    int64_t end_ms;
    char client[64];
};

static struct request requests[256]; /* an unused one has no pending */

static int64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void decided(void *data, int result, const struct weir_verdict *verdicts,
                    const struct weir_decision *decision) {
    struct request *request = data;
    request->pending = NULL;
    answered++;
    if (result < 0) {
        failed++;
        printf("%s: no decision: %s\n", request->client, weir_strerror(result));
    } else if (decision->allowed) {
        printf("%s passes: %lld left\n", request->client,
               (long long)verdicts[decision->deciding].remaining);
    } else {
        printf("%s is denied for %.1f s\n", request->client,
               (double)verdicts[decision->deciding].retry_after_ns / 1e9);
    }
}

/* Ends requests whose reply did not arrive in time. */
static void expire(int64_t now_ms) {
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        struct request *request = &requests[i];
        if (request->pending && request->end_ms <= now_ms) {
            weir_hiredis_cancel(request->pending);
            decided(request, WEIR_ESYSTEM, NULL, NULL);
        }
    }
}

static void send_request(redisAsyncContext *redis, const struct weir_limit *limit,
                         const char *client) {
    struct request *request = requests;
    struct weir_error error;
    while (request->pending)
        if (++request == requests + sizeof requests / sizeof requests[0])
            return; /* too many are pending; a server would refuse the request here */
    snprintf(request->client, sizeof request->client, "%s", client);
    struct weir_check check = {.limit = limit, .cost = 1};
    check.key = request->client;
    check.key_len = strlen(request->client);
    sent++;
    request->end_ms = clock_ms() + DEADLINE_MS;
    request->pending =
        weir_hiredis_decide_async(redis, NULL, &check, 1, WEIR_HIT, decided, request, &error);
    if (!request->pending) {
        fprintf(stderr, "%s\n", error.message);
        answered++;
        failed++;
    }
}

/* Reads clients until the end of standard input, and waits for all replies. */
static void loop(redisAsyncContext *redis, const struct weir_limit *limit) {
    char line[64];
    int more = 1;
    while (more || answered < sent) {
        int has_redis = wanted != 0;
        struct pollfd polled[2] = {{.fd = more ? 0 : -1, .events = POLLIN},
                                   {.fd = has_redis ? redis->c.fd : -1, .events = wanted}};
        if (poll(polled, 2, 50) < 0 && errno != EINTR)
            return;
        if (has_redis && polled[1].revents & (POLLOUT | POLLERR | POLLHUP) && wanted & POLLOUT)
            redisAsyncHandleWrite(redis);
        if (has_redis && polled[1].revents & (POLLIN | POLLERR | POLLHUP) && wanted & POLLIN)
            redisAsyncHandleRead(redis);
        expire(clock_ms());
        if (!wanted && has_redis)
            more = 0; /* the connection has ended; a server would connect again */
        if (more && polled[0].revents) {
            if (!fgets(line, sizeof line, stdin)) {
                more = 0;
                continue;
            }
            line[strcspn(line, "\n")] = '\0';
            send_request(redis, limit, line);
        }
    }
}

int main(int argc, char **argv) {
    struct weir_limit limit;
    struct weir_error error;
    if (argc != 4) {
        fputs("usage: loop HOST PORT LIMIT\n", stderr);
        return 2;
    }
    if (weir_limit_parse(argv[3], strlen(argv[3]), &limit, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        return 2;
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* unbuffered, so that poll() sees all unread input */
    redisAsyncContext *redis = redisAsyncConnect(argv[1], atoi(argv[2]));
    if (!redis || redis->err) {
        fprintf(stderr, "cannot connect: %s\n", redis ? redis->errstr : "out of memory");
        return 1;
    }
    redis->ev.addRead = add_read;
    redis->ev.delRead = del_read;
    redis->ev.addWrite = add_write;
    redis->ev.delWrite = del_write;
    redis->ev.cleanup = clean_up;
    add_write(NULL); /* until it is connected */
    loop(redis, &limit);
    if (wanted)
        redisAsyncFree(redis);
    return failed ? 1 : 0;
}
