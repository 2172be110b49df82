/* See digest.h. 160 bits: nobody finds two keys with the same one. */
#include "digest.h"

#include <sodium.h>
#include <string.h>

void weir_digest(const void *bytes, size_t len, char hex[WEIR_DIGEST_HEX]) {
    static const unsigned char nothing = 0;
    unsigned char hash[WEIR_DIGEST_HEX / 2];
    char text[WEIR_DIGEST_HEX + 1];
    crypto_generichash(hash, sizeof hash, len ? bytes : &nothing, len, NULL, 0);
    sodium_bin2hex(text, sizeof text, hash, sizeof hash);
    memcpy(hex, text, WEIR_DIGEST_HEX);
}
