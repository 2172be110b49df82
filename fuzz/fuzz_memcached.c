/*
 * Any bytes as a value or reply of a Memcached server: nothing is read after their end. An accepted
 * state gives a verdict within its bounds and a next state that is accepted, too. The first two
 * bytes select strategy, mode, cost and time.
 */
#include <stdint.h>
#include <stdio.h>

#include "guarded.h"
#include "must.h"
#include "strategy/strategy.h"
#include "weir/memcached.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char next[WEIR_MEMCACHED_VALUE_MAX], after[WEIR_MEMCACHED_VALUE_MAX];

static void step(const struct weir_check *check, const struct guarded *value, int64_t now_ns,
                 int mode) {
    struct weir_verdict verdict;
    size_t len, after_len;
    int64_t expires_s;
    int changed;
    int rc = weir_memcached_step(check, value->bytes, value->len, now_ns, (enum weir_mode)mode,
                                 &verdict, next, &len, &expires_s, &changed);
    MUST(rc == 0 || rc == WEIR_EFORMAT || rc == WEIR_EFULL);
    if (rc < 0)
        return;
    MUST(verdict.remaining >= 0 && verdict.remaining <= check->limit->amount);
    MUST(verdict.retry_after_ns >= 0 && verdict.reset_at_ns >= 0 && verdict.delay_ns >= 0);
    MUST(expires_s >= 1 && len <= sizeof next && (mode != WEIR_TEST || !changed));
    if (len > 0)
        MUST(weir_memcached_step(check, next, len, now_ns, WEIR_TEST, &verdict, after, &after_len,
                                 &expires_s, &changed) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct weir_memcached_reply reply;
    struct weir_limit limit;
    if (size < 2)
        return 0;
    MUST(weir_limit_init(&limit, 1 + data[1] % 8 * 100, 1, WEIR_MINUTE, NULL) == 0);
    limit.strategy = data[0] % WEIR_STRATEGIES;
    uint32_t seconds = data[0] / WEIR_STRATEGIES;
    struct weir_check check = {.limit = &limit, .cost = data[1] / 64};
    struct guarded bytes = guarded_copy(data + 2, size - 2);
    step(&check, &bytes, INT64_C(1000000000) * seconds, seconds % 4);
    int rc = weir_memcached_read(bytes.bytes, bytes.len, &reply);
    MUST(rc == 0 || rc == 1 || rc == WEIR_EFORMAT);
    MUST(rc != 1 || (reply.used > 0 && reply.used <= bytes.len));
    MUST(rc != 1 || !reply.error ||
         (reply.error >= bytes.bytes && reply.error + reply.error_len <= bytes.bytes + bytes.len));
    weir_memcached_window(&limit, &reply, INT64_C(1000000000) * data[0]);
    MUST(reply.left_ns >= 0);
    guarded_free(&bytes);
    return 0;
}
