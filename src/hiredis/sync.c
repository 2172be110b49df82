/*
 * One connection, one call at a time, each with a deadline. hiredis connects and parses. The
 * waiting is done here, because hiredis' timeouts apply to single system calls. Writing is done
 * here, too, because a write of hiredis to a server that has disconnected raises SIGPIPE.
 */
#include "weir/hiredis.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <arpa/inet.h>

#include "reply.h"

#define DEADLINE_DEFAULT_MS 250
#define DEADLINE_MAX_MS 60000
#define ADDRESSES_MAX 8

struct weir_hiredis {
    redisContext *context; /* NULL: not connected */
    int64_t deadline_ms;
    int port, database, addresses;
    char address[ADDRESSES_MAX][INET6_ADDRSTRLEN + 16]; /* as resolved, with their zone */
    char *path, *user, *password, *prefix;
};

static int64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until the socket is ready for `events`. Returns 0 or an errno. */
static int await(const redisContext *context, short events, int64_t end_ms) {
    for (;;) {
        int64_t left = end_ms - clock_ms();
        struct pollfd pollfd = {.fd = context->fd, .events = events};
        if (left <= 0)
            return ETIMEDOUT;
        int rc = poll(&pollfd, 1, (int)left);
        if (rc > 0)
            return 0;
        if (rc < 0 && errno != EINTR)
            return errno;
    }
}

static void disconnect(struct weir_hiredis *redis) {
    if (redis->context)
        redisFree(redis->context);
    redis->context = NULL;
}

/* ------------------------------------------------------------------------------------ one trip */

static int send_all(const redisContext *context, const char *bytes, size_t len, int64_t end_ms) {
    while (len > 0) {
        ssize_t sent = send(context->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            bytes += sent;
            len -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            int err = await(context, POLLOUT, end_ms);
            if (err)
                return err;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* Sends a command and reads one reply. Any failure ends the connection. */
static int trip(struct weir_hiredis *redis, const char *bytes, size_t len, int64_t end_ms,
                redisReply **reply, struct weir_error *error) {
    redisContext *context = redis->context;
    void *got = NULL;
    int err = send_all(context, bytes, len, end_ms);
    while (!err && !got) {
        if (redisGetReplyFromReader(context, &got) != REDIS_OK) {
            disconnect(redis);
            return weir_hiredis_fail(error, WEIR_EFORMAT, "Redis: the peer is not a Redis server");
        }
        if (got)
            break;
        err = await(context, POLLIN, end_ms);
        if (!err && redisBufferRead(context) != REDIS_OK)
            err = context->err == REDIS_ERR_EOF ? ECONNRESET : errno ? errno : EIO;
    }
    if (err) {
        disconnect(redis);
        return weir_hiredis_fail(error, WEIR_ESYSTEM, "Redis: %s", strerror(err));
    }
    *reply = got;
    return 0;
}

/* Sends a command whose reply must be OK. */
static int run_command(struct weir_hiredis *redis, int argc, const char **argv, int64_t end_ms,
                       struct weir_error *error) {
    char *bytes = NULL;
    redisReply *reply = NULL;
    int len = redisFormatCommandArgv(&bytes, argc, argv, NULL);
    if (len < 0)
        return weir_hiredis_fail(error, WEIR_ENOMEM, "out of memory");
    int rc = trip(redis, bytes, (size_t)len, end_ms, &reply, error);
    redisFreeCommand(bytes);
    if (rc == 0 && reply->type == REDIS_REPLY_ERROR) {
        rc = weir_hiredis_fail(error, WEIR_ESYSTEM, "Redis: %s", reply->str);
        disconnect(redis);
    }
    if (reply)
        freeReplyObject(reply);
    return rc;
}

/* ----------------------------------------------------------------------------------- connecting */

static int try_address(struct weir_hiredis *redis, const char *address, int64_t end_ms) {
    int err = 0;
    socklen_t size = sizeof err;
    redisContext *context = redis->path ? redisConnectUnixNonBlock(redis->path)
                                        : redisConnectNonBlock(address, redis->port);
    if (!context)
        return ENOMEM;
    if (context->err)
        err = errno ? errno : EIO;
    else if ((err = await(context, POLLOUT, end_ms)) == 0 &&
             getsockopt(context->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0)
        err = errno;
    if (err) {
        redisFree(context);
        return err;
    }
    redis->context = context;
    return 0;
}

static int sign_in(struct weir_hiredis *redis, int64_t end_ms, struct weir_error *error) {
    char database[16];
    int rc = 0;
    if (redis->password && redis->user) {
        const char *argv[] = {"AUTH", redis->user, redis->password};
        rc = run_command(redis, 3, argv, end_ms, error);
    } else if (redis->password) {
        const char *argv[] = {"AUTH", redis->password};
        rc = run_command(redis, 2, argv, end_ms, error);
    }
    if (rc == 0 && redis->database) {
        snprintf(database, sizeof database, "%d", redis->database);
        const char *argv[] = {"SELECT", database};
        rc = run_command(redis, 2, argv, end_ms, error);
    }
    return rc;
}

/* Whether the server has closed the idle connection: the socket is then readable (end of file). */
static bool has_ended(const redisContext *context) {
    struct pollfd pollfd = {.fd = context->fd, .events = POLLIN};
    return poll(&pollfd, 1, 0) != 0;
}

static int connect_to(struct weir_hiredis *redis, int64_t end_ms, struct weir_error *error) {
    if (redis->context && has_ended(redis->context))
        disconnect(redis);
    if (redis->context)
        return 0;
    int err = EADDRNOTAVAIL;
    int tries = redis->path ? 1 : redis->addresses;
    for (int i = 0; i < tries && !redis->context; i++) {
        /*
         * The time is divided, so that an address that does not answer leaves time for the others.
         */
        int64_t now = clock_ms(), share = (end_ms - now) / (tries - i);
        err = try_address(redis, redis->address[i], now + share);
    }
    if (!redis->context)
        return weir_hiredis_fail(error, WEIR_ESYSTEM, "Redis: cannot connect: %s", strerror(err));
    return sign_in(redis, end_ms, error);
}

/* ------------------------------------------------------------------------------------- requests */

static int request_once(struct weir_hiredis *redis, struct weir_redis_request *request,
                        int64_t end_ms, struct weir_verdict *verdicts, struct weir_redis_reply *out,
                        struct weir_error *error) {
    struct weir_redis_command command;
    char text[160] = "";
    redisReply *reply = NULL;
    size_t room = weir_redis_room(request);
    char *buffer = malloc(room ? room : 1);
    if (!buffer)
        return weir_hiredis_fail(error, WEIR_ENOMEM, "out of memory");
    int rc = weir_redis_command(request, buffer, room, &command);
    if (rc < 0)
        rc = weir_hiredis_fail(error, rc, "%s", weir_strerror(rc));
    else
        rc = trip(redis, command.bytes, command.len, end_ms, &reply, error);
    free(buffer);
    if (rc < 0)
        return rc;
    rc = weir_hiredis_read(reply, request, verdicts, out, text, sizeof text);
    freeReplyObject(reply);
    if (rc < 0) {
        disconnect(redis);
        return weir_hiredis_fail(error, rc, "Redis: the reply is not a decision");
    }
    if (out->kind == WEIR_REDIS_ERROR)
        return weir_hiredis_fail(error, WEIR_ESYSTEM, "Redis: %s", text);
    return 0;
}

static int request_reply(struct weir_hiredis *redis, struct weir_redis_request *request,
                         struct weir_verdict *verdicts, struct weir_redis_reply *out,
                         struct weir_error *error) {
    int64_t end_ms = clock_ms() + redis->deadline_ms;
    request->prefix = redis->prefix;
    request->prefix_len = redis->prefix ? strlen(redis->prefix) : 0;
    request->now_ns = weir_hiredis_now();
    if (weir_redis_room(request) == 0)
        return weir_hiredis_fail(error, WEIR_EINVAL, "%s", weir_strerror(WEIR_EINVAL));
    int rc = connect_to(redis, end_ms, error);
    if (rc == 0)
        rc = request_once(redis, request, end_ms, verdicts, out, error);
    if (rc == 0 && out->kind == WEIR_REDIS_NOSCRIPT) {
        request->whole = 1;
        rc = request_once(redis, request, end_ms, verdicts, out, error);
    }
    return rc;
}

int weir_hiredis_decide(struct weir_hiredis *redis, const struct weir_check *checks, size_t n,
                        enum weir_mode mode, struct weir_verdict *verdicts,
                        struct weir_decision *decision, struct weir_error *error) {
    struct weir_redis_request request = {.checks = checks, .n = n, .mode = (int32_t)mode};
    struct weir_redis_reply reply;
    if (!redis || !checks || !verdicts)
        return weir_hiredis_fail(error, WEIR_EINVAL, "a handle, checks or verdicts are missing");
    int rc = request_reply(redis, &request, verdicts, &reply, error);
    if (rc == 0 && reply.kind != WEIR_REDIS_DECIDED)
        rc = weir_hiredis_fail(error, WEIR_ESYSTEM, "Redis: the server does not keep the script");
    if (rc == 0 && decision)
        *decision = reply.decision;
    return rc;
}

int weir_hiredis_clear(struct weir_hiredis *redis, const struct weir_check *checks, size_t n,
                       struct weir_error *error) {
    struct weir_redis_request request = {.checks = checks, .n = n, .clear = 1};
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_redis_reply reply;
    if (!redis || !checks)
        return weir_hiredis_fail(error, WEIR_EINVAL, "a handle or checks are missing");
    return request_reply(redis, &request, verdicts, &reply, error);
}

/* ------------------------------------------------------------------------------------- handles */

static int resolve(struct weir_hiredis *redis, const char *host, struct weir_error *error) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &found);
    if (rc)
        return weir_hiredis_fail(error, WEIR_ENOENT, "no host \"%.100s\": %s", host,
                                 gai_strerror(rc));
    for (struct addrinfo *at = found; at && redis->addresses < ADDRESSES_MAX; at = at->ai_next)
        if (getnameinfo(at->ai_addr, at->ai_addrlen, redis->address[redis->addresses],
                        sizeof redis->address[0], NULL, 0, NI_NUMERICHOST) == 0)
            redis->addresses++;
    freeaddrinfo(found);
    return 0;
}

static bool copy(char **to, const char *from) {
    return !from || (*to = strdup(from)) != NULL;
}

int weir_hiredis_open(const struct weir_hiredis_options *options, struct weir_hiredis **out,
                      struct weir_error *error) {
    if (!options || !out)
        return weir_hiredis_fail(error, WEIR_EINVAL,
                                 "options or a place for the handle are missing");
    *out = NULL;
    if (options->port < 0 || options->port > 65535)
        return weir_hiredis_fail(error, WEIR_EINVAL, "port must be from 1 to 65535");
    if (options->database < 0)
        return weir_hiredis_fail(error, WEIR_EINVAL, "database must be 0 or more");
    if (options->deadline_ms < 0 || options->deadline_ms > DEADLINE_MAX_MS)
        return weir_hiredis_fail(error, WEIR_EINVAL, "deadline_ms must be from 1 to 60000");
    if (options->user && !options->password)
        return weir_hiredis_fail(error, WEIR_EINVAL, "a user needs a password");
    struct weir_hiredis *redis = calloc(1, sizeof *redis);
    if (!redis)
        return weir_hiredis_fail(error, WEIR_ENOMEM, "out of memory");
    redis->port = options->port ? options->port : 6379;
    redis->database = options->database;
    redis->deadline_ms = options->deadline_ms ? options->deadline_ms : DEADLINE_DEFAULT_MS;
    int rc = 0;
    if (!copy(&redis->path, options->path) || !copy(&redis->user, options->user) ||
        !copy(&redis->password, options->password) || !copy(&redis->prefix, options->prefix))
        rc = weir_hiredis_fail(error, WEIR_ENOMEM, "out of memory");
    else if (!redis->path)
        rc = resolve(redis, options->host ? options->host : "127.0.0.1", error);
    if (rc < 0)
        weir_hiredis_close(redis);
    else
        *out = redis;
    return rc;
}

void weir_hiredis_close(struct weir_hiredis *redis) {
    if (!redis)
        return;
    disconnect(redis);
    free(redis->path);
    free(redis->user);
    free(redis->password);
    free(redis->prefix);
    free(redis);
}
