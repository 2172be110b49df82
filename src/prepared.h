/* A prepared check: everything that is the same for all requests, validated and joined once. */
#ifndef WEIR_PREPARED_INTERNAL_H
#define WEIR_PREPARED_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "weir/weir.h"

struct weir_prepared_part {
    struct weir_limit limit;
    const char *before, *after; /* in the text behind the parts */
    uint32_t before_len, after_len;
    uint64_t owner; /* for the hash cache of tables: unique among the parts of the process */
    int64_t cost;
    int32_t label;
    int32_t role; /* enum weir_role */
};

struct weir_prepared {
    uint32_t count;
    uint32_t all;    /* bit i: there is a part i */
    uint32_t shadow; /* bit i: part i is a shadow */
    uint32_t deferred;
    struct weir_prepared_part part[];
};

/* The key, client and cost of one part in one request. */
struct weir_part_values {
    struct weir_bytes client, after;
    int64_t cost;
    size_t key_len;
    bool replaced; /* `after` is the request's */
};

static inline bool weir_bytes_sound(const struct weir_bytes *bytes) {
    return bytes->len <= WEIR_KEY_MAX && (bytes->bytes || bytes->len == 0);
}

/* Reads the values of a request for part `i`; false if one is out of its range. */
static inline bool weir_prepared_values(const struct weir_prepared *prepared,
                                        const struct weir_request *request, uint32_t i,
                                        struct weir_part_values *values) {
    const struct weir_prepared_part *part = &prepared->part[i];
    values->client = request->clients ? request->clients[i] : request->client;
    values->replaced = request->after && request->after[i].bytes;
    values->after =
        values->replaced ? request->after[i] : (struct weir_bytes){part->after, part->after_len};
    values->cost = request->costs ? request->costs[i] : part->cost;
    values->key_len = part->before_len + values->client.len + values->after.len;
    return weir_bytes_sound(&values->client) && weir_bytes_sound(&values->after) &&
           values->cost >= 0 && values->key_len <= WEIR_KEY_MAX;
}

/* Writes the key of part `i`, values->key_len bytes. */
void weir_prepared_key(const struct weir_prepared *prepared, uint32_t i,
                       const struct weir_part_values *values, char *key);

#endif
