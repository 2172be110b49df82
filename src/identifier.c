/*
 * Parts of keys in the form of weir.flask, so that a C program and a Flask application can share a
 * counter.
 *
 * "/" joins parts, so within a part it is "%2F", and "%" is "%25". Bytes above 127 that are not
 * UTF-8 are escaped; valid text is not. A long part is written as its first bytes, "%#", and a hash
 * of the whole; "%#" is not an escape.
 */
#include <stdbool.h>
#include <string.h>

#include "digest.h"
#include "weir/weir.h"

#define PLAIN_MAX 256 /* bytes of a part that is written out */
#define HEAD 64       /* readable bytes of a part that is cut */

_Static_assert(WEIR_IDENTIFIER_MAX == 3 * PLAIN_MAX, "each byte may become three");

/*
 * The number of bytes after the first byte of a character; -1: not the first byte of a UTF-8
 * character.
 */
static int following(unsigned char first) {
    return first < 0x80   ? 0
           : first < 0xC2 ? -1
           : first < 0xE0 ? 1
           : first < 0xF0 ? 2
           : first < 0xF5 ? 3
                          : -1;
}

static bool is_utf8(const unsigned char *text, size_t len) {
    for (size_t i = 0; i < len;) {
        unsigned char first = text[i];
        int more = following(first);
        if (more < 0 || len - i <= (size_t)more)
            return false;
        for (int k = 1; k <= more; k++)
            if ((text[i + (size_t)k] & 0xC0) != 0x80)
                return false;
        /* overlong, a surrogate, or beyond U+10FFFF */
        if ((first == 0xE0 && text[i + 1] < 0xA0) || (first == 0xED && text[i + 1] > 0x9F) ||
            (first == 0xF0 && text[i + 1] < 0x90) || (first == 0xF4 && text[i + 1] > 0x8F))
            return false;
        i += (size_t)more + 1;
    }
    return true;
}

/* How many of the first HEAD bytes are whole characters. */
static size_t head_len(const unsigned char *text) {
    size_t len = HEAD;
    while (len > HEAD - 4 && (text[len] & 0xC0) == 0x80)
        len--;
    return len;
}

size_t weir_identifier(const void *bytes, size_t len, char *buffer) {
    static const char digits[] = "0123456789ABCDEF";
    const unsigned char *text = bytes;
    if (!text || !buffer)
        return 0;
    bool all = !is_utf8(text, len);
    size_t written = len > PLAIN_MAX ? head_len(text) : len;
    char *out = buffer;
    for (size_t i = 0; i < written; i++) {
        unsigned char c = text[i];
        if (c == '/' || c == '%' || (all && c > 127)) {
            *out++ = '%';
            *out++ = digits[c >> 4];
            *out++ = digits[c & 15];
        } else {
            *out++ = (char)c;
        }
    }
    if (len > PLAIN_MAX) {
        *out++ = '%';
        *out++ = '#';
        weir_digest(text, len, out);
        out += WEIR_DIGEST_HEX;
    }
    return (size_t)(out - buffer);
}
