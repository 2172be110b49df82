/*
 * From a key and a limit to 128 bits.
 *
 *     fingerprint = SipHash-2-4-128(secret, key)  xor  sum of (limit's words x mix)  mod 2^128
 *
 * The first part is a keyed hash (SipHash, crypto/crypto.h): clients choose keys, and
 * cannot aim for a cell without the table's secret. The second is a multilinear hash over what makes two
 * limits different counters: strategy, amount, period and burst, none of which clients choose.
 *
 * SipHash costs more than the rest of a decision, so each handle remembers a few hundred recent short keys.
 * A memo entry is a sequence lock of relaxed atomics: a reader that meets a writer just hashes.
 */
#include <string.h>

#include "calendar.h"
#include "crypto/crypto.h"
#include "table/layout.h"

#define MEMO_BYTES (WEIR_MEMO_WORDS * 8)
#define relaxed memory_order_relaxed

static void siphash(const struct weir_table *table, const void *key, size_t key_len,
                    uint64_t hash[2]) {
    weir_siphash128(key, key_len, table->header->secret, (unsigned char *)hash);
}

/* The last `rest` bytes of a key, 1 to 8 of them, as a number that no other such bytes make. */
static uint64_t load_rest(const char *rest, size_t len) {
    uint64_t word = 0;
    if (len == 8) {
        memcpy(&word, rest, 8);
    } else {
        for (size_t i = 0; i < len; i++)
            word |= (uint64_t)(unsigned char)rest[i] << 8 * i;
    }
    return word;
}

/* Calls for a key of 1 to MEMO_BYTES: all whole words but the last, then the rest. */
static bool recall(struct weir_memo *memo, const char *key, size_t key_len, uint64_t rest,
                   uint64_t hash[2]) {
    uint64_t version = atomic_load_explicit(&memo->version, memory_order_acquire);
    uint64_t differs = (version & 1) | (atomic_load_explicit(&memo->key_len, relaxed) ^ key_len);
    size_t words = (key_len - 1) / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, key + i * 8, 8);
        differs |= word ^ atomic_load_explicit(&memo->key[i], relaxed);
    }
    differs |= rest ^ atomic_load_explicit(&memo->key[words], relaxed);
    hash[0] = atomic_load_explicit(&memo->hash[0], relaxed);
    hash[1] = atomic_load_explicit(&memo->hash[1], relaxed);
    atomic_thread_fence(memory_order_acquire);
    return !differs && atomic_load_explicit(&memo->version, relaxed) == version;
}

static void remember(struct weir_memo *memo, const char *key, size_t key_len, uint64_t rest,
                     const uint64_t hash[2]) {
    uint64_t version = atomic_load_explicit(&memo->version, relaxed);
    if (version & 1 || !atomic_compare_exchange_strong_explicit(
                           &memo->version, &version, version + 1, memory_order_acquire, relaxed))
        return;
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&memo->key_len, key_len, relaxed);
    size_t words = (key_len - 1) / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, key + i * 8, 8);
        atomic_store_explicit(&memo->key[i], word, relaxed);
    }
    atomic_store_explicit(&memo->key[words], rest, relaxed);
    atomic_store_explicit(&memo->hash[0], hash[0], relaxed);
    atomic_store_explicit(&memo->hash[1], hash[1], relaxed);
    atomic_store_explicit(&memo->version, version + 2, memory_order_release);
}

/* Which entry a key goes to: any cheap function of it will do. */
static size_t memo_index(const char *key, size_t key_len, uint64_t rest) {
    uint64_t first = 0, last = rest;
    if (key_len > 8) {
        memcpy(&first, key, 8);
        memcpy(&last, key + key_len - 8, 8);
    }
    return (size_t)((first + (last << 21 | last >> 43) + key_len) * UINT64_C(0x9E3779B97F4A7C15) >>
                    56) %
           WEIR_MEMO_ENTRIES;
}

static void keyed_hash(struct weir_table *table, const char *key, size_t key_len,
                       uint64_t hash[2]) {
    if (key_len - 1 >= MEMO_BYTES) {
        siphash(table, key, key_len, hash);
        return;
    }
    size_t words = (key_len - 1) / 8;
    uint64_t rest = load_rest(key + words * 8, key_len - words * 8);
    struct weir_memo *memo = &table->memo[memo_index(key, key_len, rest)];
    if (recall(memo, key, key_len, rest, hash))
        return;
    siphash(table, key, key_len, hash);
    remember(memo, key, key_len, rest, hash);
}

void weir_fingerprint(struct weir_table *table, const void *key, size_t key_len,
                      const struct weir_limit *limit, uint64_t fingerprint[2]) {
    const uint64_t *mix = table->header->mix;
    uint64_t burst = 0;
    if (limit->strategy == WEIR_TOKEN_BUCKET)
        burst = (uint64_t)(limit->burst ? limit->burst : limit->amount);
    else if (limit->strategy == WEIR_CALENDAR_WINDOW)
        burst = weir_calendar_mark(limit);
    unsigned __int128 sum = (unsigned __int128)(uint64_t)limit->amount * mix[0] +
                            (unsigned __int128)(uint64_t)limit->period_ns * mix[1] +
                            (unsigned __int128)burst * mix[2] +
                            (unsigned __int128)((uint64_t)limit->strategy + 1) * mix[3];
    keyed_hash(table, key, key_len, fingerprint);
    fingerprint[0] ^= (uint64_t)sum;
    fingerprint[1] ^= (uint64_t)(sum >> 64);
    if (fingerprint[0] == 0 && fingerprint[1] == 0)
        fingerprint[0] = 1; /* 0,0 marks a free cell */
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
