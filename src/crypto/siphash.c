/*
 * SipHash-2-4 with 64 or 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input
 * PRF", 2012; the longer output is their later variant). Used in builds without libsodium.
 *
 * Four words of state, each 8 input bytes mixed in by two rounds, four rounds at the end. It takes
 * the same time for every key, and its memory accesses do not depend on the data. The tests compare
 * it with libsodium's and with the published vectors.
 */
#include "crypto/crypto.h"

#include <string.h>

static inline uint64_t rotate(uint64_t word, int bits) {
    return word << bits | word >> (64 - bits);
}

/* Little-endian, as the algorithm defines its words. Compilers make one load of it. */
static inline uint64_t load(const unsigned char *from, size_t len) {
    uint64_t word = 0;
    for (size_t i = 0; i < len; i++)
        word |= (uint64_t)from[i] << 8 * i;
    return word;
}

static inline void store(unsigned char *to, uint64_t word) {
    for (int i = 0; i < 8; i++)
        to[i] = (unsigned char)(word >> 8 * i);
}

static inline void mix(uint64_t v[4], int rounds) {
    for (int i = 0; i < rounds; i++) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static inline void absorb(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    mix(v, 2);
    v[0] ^= word;
}

/* The state before the final rounds. `tweak` selects the long or the short variant. */
static inline void hash_all(uint64_t v[4], const unsigned char *data, size_t len,
                            const unsigned char *key, uint64_t tweak) {
    uint64_t k0 = load(key, 8), k1 = load(key + 8, 8);
    v[0] = k0 ^ UINT64_C(0x736f6d6570736575); /* "somepseudorandomlygeneratedbytes" */
    v[1] = k1 ^ UINT64_C(0x646f72616e646f6d) ^ tweak;
    v[2] = k0 ^ UINT64_C(0x6c7967656e657261);
    v[3] = k1 ^ UINT64_C(0x7465646279746573);
    size_t whole = len & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8)
        absorb(v, load(data + i, 8));
    uint64_t last = (uint64_t)len << 56;
    if (len > whole)
        last |= load(data + whole, len - whole);
    absorb(v, last);
}

void weir_siphash64(const void *data, size_t len, const unsigned char key[WEIR_SIPHASH_KEY],
                    unsigned char out[8]) {
    uint64_t v[4];
    hash_all(v, data, len, key, 0);
    v[2] ^= 0xff;
    mix(v, 4);
    store(out, v[0] ^ v[1] ^ v[2] ^ v[3]);
}

void weir_siphash128(const void *data, size_t len, const unsigned char key[WEIR_SIPHASH_KEY],
                     unsigned char out[16]) {
    uint64_t v[4];
    hash_all(v, data, len, key, 0xee);
    v[2] ^= 0xee;
    mix(v, 4);
    store(out, v[0] ^ v[1] ^ v[2] ^ v[3]);
    v[1] ^= 0xdd;
    mix(v, 4);
    store(out + 8, v[0] ^ v[1] ^ v[2] ^ v[3]);
}
