/*
 * Decisions over hiredis' asynchronous connections. One block of memory holds what is needed to
 * read the reply and to send the request a second time. hiredis returns it with the reply. hiredis
 * calls the callback of each command once, with no reply if the connection ends, so every block is
 * freed.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/async.h>

#include "reply.h"
#include "weir/hiredis.h"

struct weir_hiredis_pending {
    struct weir_redis_request request;
    void (*decided)(void *, int, const struct weir_verdict *,
                    const struct weir_decision *); /* NULL: canceled */
    void *data;
    struct weir_check check[WEIR_CHECKS_MAX];
    struct weir_limit limit[WEIR_CHECKS_MAX];
    char bytes[]; /* the keys, then the prefix */
};

static void finish(struct weir_hiredis_pending *pending, int result,
                   const struct weir_verdict *verdicts, const struct weir_decision *decision) {
    if (pending->decided)
        pending->decided(pending->data, result, verdicts, decision);
    free(pending);
}

static int send_request(redisAsyncContext *context, struct weir_hiredis_pending *pending,
                        struct weir_error *error);

static void answered(redisAsyncContext *context, void *got, void *data) {
    struct weir_hiredis_pending *pending = data;
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_redis_reply reply;
    char text[160];
    if (!got) {
        finish(pending, WEIR_ESYSTEM, NULL, NULL);
        return;
    }
    int rc = weir_hiredis_read(got, &pending->request, verdicts, &reply, text, sizeof text);
    if (rc == 0 && reply.kind == WEIR_REDIS_NOSCRIPT && !pending->request.whole &&
        pending->decided) {
        pending->request.whole = 1;
        rc = send_request(context, pending, NULL);
        if (rc == 0)
            return;
    }
    if (rc == 0 && reply.kind != WEIR_REDIS_DECIDED)
        rc = WEIR_ESYSTEM;
    finish(pending, rc, rc == 0 ? verdicts : NULL, rc == 0 ? &reply.decision : NULL);
}

static int send_request(redisAsyncContext *context, struct weir_hiredis_pending *pending,
                        struct weir_error *error) {
    struct weir_redis_command command;
    size_t room = weir_redis_room(&pending->request);
    if (room == 0)
        return weir_hiredis_fail(error, WEIR_EINVAL, "%s", weir_strerror(WEIR_EINVAL));
    char *buffer = malloc(room);
    if (!buffer)
        return weir_hiredis_fail(error, WEIR_ENOMEM, "out of memory");
    int rc = weir_redis_command(&pending->request, buffer, room, &command);
    if (rc < 0)
        weir_hiredis_fail(error, rc, "%s", weir_strerror(rc));
    else if (redisAsyncFormattedCommand(context, answered, pending, command.bytes, command.len) !=
             REDIS_OK)
        rc = weir_hiredis_fail(error, WEIR_ESYSTEM, "Redis: the connection is ending");
    free(buffer);
    return rc;
}

/* Copies checks, limits, keys and prefix. The block has the size computed for them. */
static void copy(struct weir_hiredis_pending *pending, const struct weir_check *checks, size_t n,
                 const char *prefix) {
    char *to = pending->bytes;
    for (size_t i = 0; i < n; i++) {
        pending->limit[i] = *checks[i].limit;
        pending->check[i] = checks[i];
        pending->check[i].limit = &pending->limit[i];
        pending->check[i].client = NULL;
        pending->check[i].client_len = 0;
        pending->check[i].key = to;
        if (checks[i].key_len)
            memcpy(to, checks[i].key, checks[i].key_len);
        to += checks[i].key_len;
    }
    if (prefix) {
        pending->request.prefix_len = strlen(prefix);
        memcpy(to, prefix, pending->request.prefix_len);
        pending->request.prefix = to;
    }
}

struct weir_hiredis_pending *weir_hiredis_decide_async(
    struct redisAsyncContext *context, const char *prefix, const struct weir_check *checks,
    size_t n, enum weir_mode mode,
    void (*decided)(void *data, int result, const struct weir_verdict *verdicts,
                    const struct weir_decision *decision),
    void *data, struct weir_error *error) {
    size_t bytes = prefix ? strlen(prefix) : 0;
    if (!context || !checks || !decided || n == 0) {
        weir_hiredis_fail(error, WEIR_EINVAL, "a connection, checks or a function are missing");
        return NULL;
    }
    if (n > WEIR_CHECKS_MAX) {
        weir_hiredis_fail(error, WEIR_ETOOMANY, "%s", weir_strerror(WEIR_ETOOMANY));
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (!checks[i].limit || checks[i].key_len > WEIR_KEY_MAX ||
            (checks[i].key_len && !checks[i].key)) {
            weir_hiredis_fail(error, WEIR_EINVAL, "check %zu has no limit or key", i);
            return NULL;
        }
        bytes += checks[i].key_len;
    }
    struct weir_hiredis_pending *pending = calloc(1, sizeof *pending + bytes);
    if (!pending) {
        weir_hiredis_fail(error, WEIR_ENOMEM, "out of memory");
        return NULL;
    }
    copy(pending, checks, n, prefix);
    pending->request.checks = pending->check;
    pending->request.n = n;
    pending->request.mode = (int32_t)mode;
    pending->request.now_ns = weir_hiredis_now();
    pending->decided = decided;
    pending->data = data;
    if (send_request(context, pending, error) < 0) {
        free(pending);
        return NULL;
    }
    return pending;
}

void weir_hiredis_cancel(struct weir_hiredis_pending *pending) {
    if (pending)
        pending->decided = NULL;
}
