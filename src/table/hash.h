/*
 * Fingerprints of keys and limits, hashes of clients, and the checksum of the header.
 */
#ifndef WEIR_HASH_H
#define WEIR_HASH_H

#include "table/table.h"

/* The fingerprint of a key and a limit. */
void weir_fingerprint(struct weir_table *table, const void *key, size_t key_len,
                      const struct weir_limit *limit, uint64_t fingerprint[2]);
/* The checksum of a header. */
uint64_t weir_checksum(const struct weir_header *header);
/*
 * A key in parts: before + client + after. `owner` is a number that identifies before, after and
 * limit in the hash cache; 0: not cached.
 */
struct weir_key_parts {
    uint64_t owner;
    struct weir_bytes before, client, after;
    size_t len; /* of all three */
};
/* The fingerprint of a key in parts; fills the cache. Call weir_recall() first (hash_cache.h). */
int weir_fingerprint_parts(struct weir_table *table, const struct weir_key_parts *key,
                           const struct weir_limit *limit, uint64_t fingerprint[2]);
/* Sixteen bits that keys of one limit have in common. They select neither a bucket nor a cell. */
#define WEIR_LIMIT_SHIFT 8
#define WEIR_LIMIT_BITS UINT64_C(0xffff)
static inline uint32_t weir_limit_mark(const uint64_t fingerprint[2]) {
    return (uint32_t)(fingerprint[1] >> WEIR_LIMIT_SHIFT & WEIR_LIMIT_BITS);
}

/* The keyed 64-bit hash of a client, for statistics and rules. */
uint64_t weir_client_hash(const struct weir_table *table, const void *client, size_t client_len);

#endif
