/*
 * The keyed hash, the long hash and the random bytes that libweir needs.
 *
 * With libsodium (meson option "sodium"), sodium.c calls it. Without, siphash.c and blake2b.c are
 * compiled instead: about 150 lines for two published algorithms, written for Weir and under Weir's
 * licence. Both give the same bytes, so a table file or a Memcached server may be shared by builds
 * of either kind. Random bytes come from the kernel in both.
 */
#ifndef WEIR_CRYPTO_H
#define WEIR_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#if defined(WEIR_SODIUM)
#include <sodium.h>
/* Bytes that hold libsodium's state at an address it accepts, wherever the struct itself lies. */
struct weir_blake2b {
    unsigned char room[sizeof(crypto_generichash_state) + _Alignof(crypto_generichash_state)];
};
#else
struct weir_blake2b {
    uint64_t h[8];
    uint64_t bytes;           /* hashed so far, without those in `block` */
    unsigned char block[128]; /* the last block is known only at the end */
    size_t used;              /* bytes in `block` */
};
#endif

#define WEIR_SIPHASH_KEY 16
#define WEIR_BLAKE2B_BYTES 20

/* SipHash-2-4 of `len` bytes (data may be NULL if len is 0). `out` needs no alignment. */
void weir_siphash64(const void *data, size_t len, const unsigned char key[WEIR_SIPHASH_KEY],
                    unsigned char out[8]);
void weir_siphash128(const void *data, size_t len, const unsigned char key[WEIR_SIPHASH_KEY],
                     unsigned char out[16]);

/* BLAKE2b without a key, WEIR_BLAKE2B_BYTES long. Data may be NULL if its length is 0. */
void weir_blake2b_init(struct weir_blake2b *hash);
void weir_blake2b_update(struct weir_blake2b *hash, const void *data, size_t len);
void weir_blake2b_final(struct weir_blake2b *hash, unsigned char out[WEIR_BLAKE2B_BYTES]);

/* Bytes fit for a secret, at most 256; 0, or -1 with errno set. */
int weir_random(void *to, size_t len);

#endif
