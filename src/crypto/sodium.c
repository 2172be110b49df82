/*
 * libsodium's SipHash and BLAKE2b behind crypto.h. None of these calls needs sodium_init(): they
 * use no random bytes, and choose their implementation safely from any thread.
 */
#include "crypto/crypto.h"

/* libsodium declares its pointers non-null, even for no bytes at all. */
static const unsigned char nothing;

static const unsigned char *bytes(const void *data, size_t len) {
    return len != 0 ? data : &nothing;
}

void weir_siphash64(const void *data, size_t len, const unsigned char key[WEIR_SIPHASH_KEY],
                    unsigned char out[8]) {
    crypto_shorthash_siphash24(out, bytes(data, len), len, key);
}

void weir_siphash128(const void *data, size_t len, const unsigned char key[WEIR_SIPHASH_KEY],
                     unsigned char out[16]) {
    crypto_shorthash_siphashx24(out, bytes(data, len), len, key);
}

/* With AddressSanitizer and use-after-return checks, the stack is not aligned to 64 bytes. */
static crypto_generichash_state *state_in(struct weir_blake2b *hash) {
    size_t past = (uintptr_t)hash->room % _Alignof(crypto_generichash_state);
    size_t skip = past ? _Alignof(crypto_generichash_state) - past : 0;
    return (crypto_generichash_state *)(void *)(hash->room + skip);
}

void weir_blake2b_init(struct weir_blake2b *hash) {
    crypto_generichash_init(state_in(hash), NULL, 0, WEIR_BLAKE2B_BYTES);
}

void weir_blake2b_update(struct weir_blake2b *hash, const void *data, size_t len) {
    crypto_generichash_update(state_in(hash), bytes(data, len), len);
}

void weir_blake2b_final(struct weir_blake2b *hash, unsigned char out[WEIR_BLAKE2B_BYTES]) {
    crypto_generichash_final(state_in(hash), out, WEIR_BLAKE2B_BYTES);
}
