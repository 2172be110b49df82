/*
 * Computes the 128-bit fingerprint of a key and a limit.
 *
 *     fingerprint = SipHash-2-4-128(secret, key)  xor  sum of (limit's words x mix)  mod 2^128
 *                   with sixteen bits replaced by sixteen of that sum: the mark of the limit, by
 *                   which eviction recognizes a flood of keys of one limit (cell.c)
 *
 * The first part is a keyed hash (SipHash, crypto/crypto.h): a client that chooses keys cannot
 * target a cell without the table's secret. The second is a multilinear hash of the members that
 * distinguish counters: strategy, amount, period and burst. Clients do not choose these.
 *
 * SipHash costs more than the rest of a decision, so each handle caches the hashes of a few hundred
 * recent short keys. An entry is a sequence lock of relaxed atomics: if an entry is being written,
 * the reader computes the hash.
 */
#include <stdlib.h>
#include <string.h>

#include "calendar.h"
#include "crypto/crypto.h"
#include "strategy/strategy.h"
#include "table/hash.h"
#include "table/hash_cache.h"

#define JOIN_BYTES 2048 /* longer keys are joined in allocated memory */
#define relaxed memory_order_relaxed

static void siphash(const struct weir_table *table, const void *key, size_t key_len,
                    uint64_t hash[2]) {
    weir_siphash128(key, key_len, table->header->secret, (unsigned char *)hash);
}

static void remember(struct weir_hash_entry *entry, const struct weir_words *key,
                     const uint64_t hash[2]) {
    uint64_t version = atomic_load_explicit(&entry->version, relaxed);
    if (version & 1 || !atomic_compare_exchange_strong_explicit(
                           &entry->version, &version, version + 1, memory_order_acquire, relaxed))
        return;
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&entry->owner, key->owner, relaxed);
    atomic_store_explicit(&entry->key_len, key->len, relaxed);
    for (size_t i = 0; i < key->whole; i++)
        atomic_store_explicit(&entry->key[i], load_word(key->bytes + i * 8), relaxed);
    atomic_store_explicit(&entry->key[key->whole], key->last, relaxed);
    atomic_store_explicit(&entry->hash[0], hash[0], relaxed);
    atomic_store_explicit(&entry->hash[1], hash[1], relaxed);
    atomic_store_explicit(&entry->version, version + 2, memory_order_release);
}

static void keyed_hash(struct weir_table *table, const char *bytes, size_t len, uint64_t hash[2]) {
    if (!weir_may_remember(len)) {
        siphash(table, bytes, len, hash);
        return;
    }
    struct weir_words key = weir_words_of(0, bytes, len);
    struct weir_hash_entry *entry = weir_hash_cache_entry(table, &key);
    if (weir_recall(entry, &key, hash))
        return;
    siphash(table, bytes, len, hash);
    remember(entry, &key, hash);
}

static void add_limit(const struct weir_table *table, const struct weir_limit *limit,
                      uint64_t fingerprint[2]) {
    const uint64_t *mix = table->header->mix;
    uint64_t options = 0;
    if (weir_takes((uint32_t)limit->strategy, WEIR_TAKES_BURST))
        options = (uint64_t)weir_limit_size(limit);
    if (weir_takes((uint32_t)limit->strategy, WEIR_TAKES_ZONE))
        options += weir_calendar_mark(limit);
    unsigned __int128 sum = (unsigned __int128)(uint64_t)limit->amount * mix[0] +
                            (unsigned __int128)(uint64_t)limit->period_ns * mix[1] +
                            (unsigned __int128)options * mix[2] +
                            (unsigned __int128)((uint64_t)limit->strategy + 1) * mix[3];
    fingerprint[0] ^= (uint64_t)sum;
    fingerprint[1] ^= (uint64_t)(sum >> 64);
    fingerprint[1] &= ~(WEIR_LIMIT_BITS << WEIR_LIMIT_SHIFT);
    fingerprint[1] |= ((uint64_t)sum >> 48) << WEIR_LIMIT_SHIFT;
    if (fingerprint[0] == 0 && fingerprint[1] == 0)
        fingerprint[0] = 1; /* 0,0 marks a free cell */
}

void weir_fingerprint(struct weir_table *table, const void *key, size_t key_len,
                      const struct weir_limit *limit, uint64_t fingerprint[2]) {
    keyed_hash(table, key, key_len, fingerprint);
    add_limit(table, limit, fingerprint);
}

static char *put(char *to, const struct weir_bytes *from) {
    if (from->len > 0)
        memcpy(to, from->bytes, from->len);
    return to + from->len;
}

static int hash_parts(struct weir_table *table, const struct weir_key_parts *key,
                      const struct weir_limit *limit, uint64_t fingerprint[2]) {
    char on_stack[JOIN_BYTES];
    char *joined = key->len <= JOIN_BYTES ? on_stack : malloc(key->len);
    if (!joined)
        return WEIR_ENOMEM;
    put(put(put(joined, &key->before), &key->client), &key->after);
    siphash(table, joined, key->len, fingerprint);
    add_limit(table, limit, fingerprint);
    if (joined != on_stack)
        free(joined);
    return 0;
}

int weir_fingerprint_parts(struct weir_table *table, const struct weir_key_parts *key,
                           const struct weir_limit *limit, uint64_t fingerprint[2]) {
    int rc = hash_parts(table, key, limit, fingerprint);
    if (rc == 0 && key->owner != 0 && weir_may_remember(key->client.len)) {
        struct weir_words client = weir_words_of(key->owner, key->client.bytes, key->client.len);
        remember(weir_hash_cache_entry(table, &client), &client, fingerprint);
    }
    return rc;
}

uint64_t weir_client_hash(const struct weir_table *table, const void *client, size_t client_len) {
    uint64_t hash;
    weir_siphash64(client, client_len, table->header->secret, (unsigned char *)&hash);
    return hash;
}

uint64_t weir_checksum(const struct weir_header *header) {
    static const unsigned char key[16] = "weir table head";
    uint64_t sum;
    weir_siphash64(header, offsetof(struct weir_header, checksum), key, (unsigned char *)&sum);
    return sum;
}
