/*
 * The hash cache of a handle: recently hashed bytes and their hashes. An entry is a sequence lock
 * of relaxed atomics: if an entry is being written, the reader treats it as a miss.
 */
#ifndef WEIR_HASH_CACHE_H
#define WEIR_HASH_CACHE_H

#include <string.h>

#include "table/table.h"

/* 1 to 8 bytes as a number, unique among bytes of the same length. */
static inline uint64_t load_few(const char *bytes, size_t len) {
    uint32_t low, high;
    if (len >= 4) {
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + len - 4, 4);
        return (uint64_t)high << 32 | low;
    }
    return (uint64_t)(unsigned char)bytes[0] | (uint64_t)(unsigned char)bytes[len / 2] << 8 |
           (uint64_t)(unsigned char)bytes[len - 1] << 16;
}

static inline uint64_t load_word(const char *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

/* 1 to WEIR_HASH_CACHE_BYTES bytes as words: the whole words, and the last eight bytes. */
struct weir_words {
    uint64_t owner;
    const char *bytes;
    size_t len, whole;
    uint64_t last;
    uint64_t mixed; /* of the bytes */
};

static inline struct weir_words weir_words_of(uint64_t owner, const char *bytes, size_t len) {
    struct weir_words key = {.owner = owner, .bytes = bytes, .len = len, .whole = (len - 1) / 8};
    key.last = key.whole ? load_word(bytes + len - 8) : load_few(bytes, len);
    key.mixed = (key.whole ? load_word(bytes) : 0) + (key.last << 21 | key.last >> 43) + len;
    return key;
}

static inline bool weir_recall(struct weir_hash_entry *entry, const struct weir_words *key,
                               uint64_t hash[2]) {
    uint64_t version = atomic_load_explicit(&entry->version, memory_order_acquire);
    uint64_t differs = (version & 1) |
                       (atomic_load_explicit(&entry->owner, memory_order_relaxed) ^ key->owner) |
                       (atomic_load_explicit(&entry->key_len, memory_order_relaxed) ^ key->len);
    for (size_t i = 0; i < key->whole; i++)
        differs |= load_word(key->bytes + i * 8) ^
                   atomic_load_explicit(&entry->key[i], memory_order_relaxed);
    differs |= key->last ^ atomic_load_explicit(&entry->key[key->whole], memory_order_relaxed);
    hash[0] = atomic_load_explicit(&entry->hash[0], memory_order_relaxed);
    hash[1] = atomic_load_explicit(&entry->hash[1], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return !differs && atomic_load_explicit(&entry->version, memory_order_relaxed) == version;
}

/* The entry for these bytes and their owner. */
static inline struct weir_hash_entry *weir_hash_cache_entry(struct weir_table *table,
                                                            const struct weir_words *key) {
    uint64_t mixed = key->mixed + (key->owner << 32);
    return &table->hash_cache[(mixed * UINT64_C(0x9E3779B97F4A7C15) >> 55) %
                              WEIR_HASH_CACHE_ENTRIES];
}

static inline bool weir_may_remember(size_t len) {
    return len - 1 < WEIR_HASH_CACHE_BYTES;
}

#endif
