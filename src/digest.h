/* Short names for bytes of any length. */
#ifndef WEIR_DIGEST_H
#define WEIR_DIGEST_H

#include <stddef.h>

#define WEIR_DIGEST_HEX 40

/* Writes the BLAKE2b-160 of `bytes` as 40 hex digits, without a NUL: the same on every host. */
void weir_digest(const void *bytes, size_t len, char hex[WEIR_DIGEST_HEX]);

/* `len` bytes as 2 * len hexadecimal digits, without a NUL. */
void weir_hex(const unsigned char *bytes, size_t len, char *hex);

#endif
