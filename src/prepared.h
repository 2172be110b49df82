/* A prepared check: what a request does not change, validated and joined once. */
#ifndef WEIR_PREPARED_INTERNAL_H
#define WEIR_PREPARED_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "weir/weir.h"

struct weir_prepared_part {
    struct weir_limit limit;
    const char *before, *after; /* in the text behind the parts */
    uint32_t before_len, after_len;
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
struct weir_asked {
    struct weir_bytes client, after;
    int64_t cost;
    size_t key_len;
};

/* Reads what a request says about part `i`; false if a member is out of its range. */
bool weir_prepared_ask(const struct weir_prepared *prepared, const struct weir_request *request,
                       uint32_t i, struct weir_asked *asked);

/* Writes the key of part `i`, asked->key_len bytes. */
void weir_prepared_key(const struct weir_prepared *prepared, uint32_t i,
                       const struct weir_asked *asked, char *key);

#endif
