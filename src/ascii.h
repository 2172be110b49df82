/* Letters, without the locale. */
#ifndef WEIR_ASCII_H
#define WEIR_ASCII_H

static inline char weir_lower(char byte) {
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

#endif
