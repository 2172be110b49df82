/*
 * From a key and a limit to 128 bits.
 *
 *     fingerprint = SipHash-2-4-128(secret, key)  xor  sum of (limit's words x mix)  mod 2^128
 *
 * The first part is a keyed hash (Aumasson and Bernstein, 2012; libsodium's): clients choose keys, and
 * cannot aim for a cell without the table's secret. The second is a multilinear hash over what makes two
 * limits different counters: strategy, amount, period and burst, none of which clients choose.
 *
 * SipHash costs more than the rest of a decision, so each handle remembers a few hundred recent short keys.
 * A memo entry is a sequence lock of relaxed atomics: a reader that meets a writer just hashes.
 */
#include <sodium.h>
#include <string.h>

#include "layout.h"

#define MEMO_BYTES (WEIR_MEMO_WORDS * 8)

static void siphash(const struct weir_table *table, const void *key, size_t key_len,
                    uint64_t hash[2]) {
    static const unsigned char nothing;
    crypto_shorthash_siphashx24((unsigned char *)hash, key_len ? key : &nothing, key_len,
                                table->header->secret);
}

static bool recall(struct weir_memo *memo, const uint64_t *word, size_t key_len, uint64_t hash[2]) {
    uint64_t version = atomic_load_explicit(&memo->version, memory_order_acquire);
    if (version & 1 || atomic_load_explicit(&memo->key_len, memory_order_relaxed) != key_len + 1)
        return false;
    uint64_t differs = 0;
    for (size_t i = 0; i * 8 < key_len; i++)
        differs |= word[i] ^ atomic_load_explicit(&memo->key[i], memory_order_relaxed);
    hash[0] = atomic_load_explicit(&memo->hash[0], memory_order_relaxed);
    hash[1] = atomic_load_explicit(&memo->hash[1], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return !differs && atomic_load_explicit(&memo->version, memory_order_relaxed) == version;
}

static void remember(struct weir_memo *memo, const uint64_t *word, size_t key_len,
                     const uint64_t hash[2]) {
    uint64_t version = atomic_load_explicit(&memo->version, memory_order_relaxed);
    if (version & 1 ||
        !atomic_compare_exchange_strong_explicit(&memo->version, &version, version + 1,
                                                 memory_order_acquire, memory_order_relaxed))
        return;
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&memo->key_len, key_len + 1, memory_order_relaxed);
    for (size_t i = 0; i * 8 < key_len; i++)
        atomic_store_explicit(&memo->key[i], word[i], memory_order_relaxed);
    atomic_store_explicit(&memo->hash[0], hash[0], memory_order_relaxed);
    atomic_store_explicit(&memo->hash[1], hash[1], memory_order_relaxed);
    atomic_store_explicit(&memo->version, version + 2, memory_order_release);
}

/* `word` gets the key's bytes and zeroes behind them; returns a cheap hash to choose the memo entry by. */
static uint64_t load_words(uint64_t word[WEIR_MEMO_WORDS], const char *key, size_t key_len) {
    uint64_t cheap = key_len, last = 0;
    size_t whole = key_len / 8, rest = key_len % 8;
    for (size_t i = 0; i < whole; i++) {
        memcpy(&word[i], key + i * 8, 8);
        cheap = (cheap << 9 | cheap >> 55) ^ word[i];
    }
    if (rest) {
        if (whole && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) { /* the last 8 bytes, in one load */
            memcpy(&last, key + key_len - 8, 8);
            last >>= (8 - rest) * 8;
        } else {
            for (size_t i = 0; i < rest; i++)
                last |= (uint64_t)(unsigned char)key[whole * 8 + i] << 8 * i;
        }
        word[whole] = last;
        cheap = (cheap << 9 | cheap >> 55) ^ last;
    }
    return (cheap * UINT64_C(0x9E3779B97F4A7C15)) >> 32;
}

static void keyed_hash(struct weir_table *table, const void *key, size_t key_len, uint64_t hash[2]) {
    if (key_len == 0 || key_len > MEMO_BYTES) {
        siphash(table, key, key_len, hash);
        return;
    }
    uint64_t word[WEIR_MEMO_WORDS];
    uint64_t cheap = load_words(word, key, key_len);
    struct weir_memo *memo = &table->memo[cheap % WEIR_MEMO_ENTRIES];
    if (recall(memo, word, key_len, hash))
        return;
    siphash(table, key, key_len, hash);
    remember(memo, word, key_len, hash);
}

void weir_fingerprint(struct weir_table *table, const void *key, size_t key_len,
                      const struct weir_limit *limit, uint64_t fingerprint[2]) {
    const uint64_t *mix = table->header->mix;
    uint64_t burst = 0;
    if (limit->strategy == WEIR_TOKEN_BUCKET)
        burst = (uint64_t)(limit->burst ? limit->burst : limit->amount);
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

uint64_t weir_checksum(const struct weir_header *header) {
    static const unsigned char key[16] = "weir table head";
    uint64_t sum;
    crypto_shorthash_siphash24((unsigned char *)&sum, (const unsigned char *)header,
                               offsetof(struct weir_header, checksum), key);
    return sum;
}
