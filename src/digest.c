/* See digest.h. With 160 bits, finding two keys with the same digest is infeasible. */
#include "digest.h"

#include "crypto/crypto.h"

_Static_assert(WEIR_DIGEST_HEX == 2 * WEIR_BLAKE2B_BYTES, "a digest is a whole BLAKE2b");

void weir_hex(const unsigned char *bytes, size_t len, char *hex) {
    for (size_t i = 0; i < len; i++) {
        hex[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
}

void weir_digest(const void *bytes, size_t len, char hex[WEIR_DIGEST_HEX]) {
    unsigned char digest[WEIR_BLAKE2B_BYTES];
    struct weir_blake2b hash;
    weir_blake2b_init(&hash);
    weir_blake2b_update(&hash, bytes, len);
    weir_blake2b_final(&hash, digest);
    weir_hex(digest, sizeof digest, hex);
}
