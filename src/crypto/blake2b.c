/*
 * BLAKE2b without a key (RFC 7693), 20 bytes long, for builds without libsodium. Its digests must
 * equal those of libsodium, because builds of both kinds may share a Memcached server
 * (remote/memcached.c).
 *
 * Blocks of 128 bytes; twelve rounds of eight quarter-mixings each. The last block is marked, so a
 * block is buffered until more data follows or the hash ends.
 */
#include "crypto/crypto.h"

#include <string.h>

#define BLOCK 128

static const uint64_t initial[8] = {
    UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b),
    UINT64_C(0xa54ff53a5f1d36f1), UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f),
    UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179),
};

/* The order in which each round takes the words of the block; round 10 and 11 repeat 0 and 1. */
static const unsigned char order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static uint64_t rotate_right(uint64_t word, int bits) {
    return word >> bits | word << (64 - bits);
}

static void quarter(uint64_t v[16], int a, int b, int c, int d, uint64_t x, uint64_t y) {
    v[a] += v[b] + x;
    v[d] = rotate_right(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotate_right(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotate_right(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate_right(v[b] ^ v[c], 63);
}

/* Mixes hash->block in; `last` is all ones for the last block, else 0. */
static void compress(struct weir_blake2b *hash, uint64_t last) {
    uint64_t v[16], m[16];
    for (int i = 0; i < 16; i++) {
        m[i] = 0;
        for (int j = 0; j < 8; j++)
            m[i] |= (uint64_t)hash->block[8 * i + j] << 8 * j;
    }
    memcpy(v, hash->h, sizeof hash->h);
    memcpy(v + 8, initial, sizeof initial);
    v[12] ^= hash->bytes; /* the high word of the count is 0: inputs are shorter than 2^64 bytes */
    v[14] ^= last;
    for (int round = 0; round < 12; round++) {
        const unsigned char *s = order[round % 10];
        for (int i = 0; i < 4; i++) /* columns */
            quarter(v, i, i + 4, i + 8, i + 12, m[s[2 * i]], m[s[2 * i + 1]]);
        for (int i = 0; i < 4; i++) /* diagonals */
            quarter(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[s[8 + 2 * i]],
                    m[s[9 + 2 * i]]);
    }
    for (int i = 0; i < 8; i++)
        hash->h[i] ^= v[i] ^ v[i + 8];
}

void weir_blake2b_init(struct weir_blake2b *hash) {
    memset(hash, 0, sizeof *hash);
    memcpy(hash->h, initial, sizeof initial);
    hash->h[0] ^= 0x01010000 | WEIR_BLAKE2B_BYTES; /* no key, no tree */
}

void weir_blake2b_update(struct weir_blake2b *hash, const void *data, size_t len) {
    const unsigned char *from = data;
    while (len > 0) {
        if (hash->used == BLOCK) {
            hash->bytes += BLOCK;
            compress(hash, 0);
            hash->used = 0;
        }
        size_t take = BLOCK - hash->used < len ? BLOCK - hash->used : len;
        memcpy(hash->block + hash->used, from, take);
        hash->used += take;
        from += take;
        len -= take;
    }
}

void weir_blake2b_final(struct weir_blake2b *hash, unsigned char out[WEIR_BLAKE2B_BYTES]) {
    hash->bytes += hash->used;
    memset(hash->block + hash->used, 0, BLOCK - hash->used);
    compress(hash, ~UINT64_C(0));
    for (int i = 0; i < WEIR_BLAKE2B_BYTES; i++)
        out[i] = (unsigned char)(hash->h[i / 8] >> 8 * (i % 8));
}
