/*
 * Any bytes as the reply of a Redis server: nothing is read after their end, for any cut. An
 * accepted reply is a verdict within its bounds. The first byte is the number of requested
 * verdicts.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "guarded.h"
#include "must.h"
#include "weir/redis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct weir_limit limit;
    struct weir_check checks[WEIR_CHECKS_MAX];
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_redis_reply reply;
    if (size == 0)
        return 0;
    MUST(weir_limit_init(&limit, 1000, 1, WEIR_MINUTE, NULL) == 0);
    for (int i = 0; i < WEIR_CHECKS_MAX; i++)
        checks[i] = (struct weir_check){.limit = &limit};
    struct weir_redis_request request = {
        .checks = checks, .n = 1 + data[0] % WEIR_CHECKS_MAX, .clear = data[0] >> 7};
    struct guarded bytes = guarded_copy(data + 1, size - 1);

    int rc = weir_redis_read(bytes.bytes, bytes.len, &request, verdicts, &reply);
    MUST(rc == 0 || rc == 1 || rc == WEIR_EFORMAT);
    MUST(rc < 0 || reply.used <= bytes.len);
    if (rc == 1 && reply.kind == WEIR_REDIS_DECIDED) {
        MUST(reply.decision.deciding >= 0 && (size_t)reply.decision.deciding < request.n);
        for (size_t i = 0; i < request.n; i++)
            MUST(verdicts[i].remaining >= 0 && verdicts[i].remaining <= 1000 &&
                 verdicts[i].reset_at_ns >= 0 && verdicts[i].retry_after_ns >= 0 &&
                 verdicts[i].delay_ns >= 0);
    }
    if (rc == 1 && reply.error) {
        bool in_input = reply.error >= bytes.bytes && reply.error < bytes.bytes + bytes.len + 1;
        MUST(in_input ? reply.error + reply.error_len <= bytes.bytes + bytes.len
                      : reply.error_len == strlen(reply.error));
    }
    /* A complete reply that is cut is incomplete, or gives the same result. */
    if (rc == 1)
        for (size_t len = reply.used; len-- > 0;)
            MUST(weir_redis_read(bytes.bytes, len, &request, verdicts, &reply) == 0);
    guarded_free(&bytes);
    return 0;
}
