/*
 * Error texts. weir.h has the list of errors. Messages are formatted on the stack and escaped byte
 * by byte while they are copied to the caller's struct, so that no input can write a newline or a
 * control sequence of a terminal into a log. Nothing is allocated.
 */
#include "error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define STRING(x) #x
#define VERSION(major, minor, patch) STRING(major) "." STRING(minor) "." STRING(patch)

const char *weir_version(void) {
    return VERSION(WEIR_VERSION_MAJOR, WEIR_VERSION_MINOR, WEIR_VERSION_PATCH);
}

const char *weir_strerror(int result) {
    switch (result) {
    case WEIR_OK:
        return "success";
#define TEXT(name, value, text)                                                                    \
    case WEIR_##name:                                                                              \
        return text;
        WEIR_ERRORS(TEXT)
#undef TEXT
    default:
        return "unknown error";
    }
}

static bool is_printable(unsigned char byte) {
    return byte >= 0x20 && byte < 0x7f;
}

/* Writes \xNN; returns its length. */
static size_t put_hex(char *to, unsigned char byte) {
    static const char digits[] = "0123456789abcdef";
    to[0] = '\\';
    to[1] = 'x';
    to[2] = digits[byte >> 4];
    to[3] = digits[byte & 15];
    return 4;
}

int weir_fail(struct weir_error *error, int code, int column, const char *format, ...) {
    if (!error)
        return code;

    char raw[2 * sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(raw, sizeof raw, format, arguments) < 0)
        snprintf(raw, sizeof raw, "%s", weir_strerror(code));
    va_end(arguments);

    char escaped[4 * sizeof raw];
    size_t used = 0;
    for (const char *byte = raw; *byte; byte++) {
        if (is_printable((unsigned char)*byte))
            escaped[used++] = *byte;
        else
            used += put_hex(escaped + used, (unsigned char)*byte);
    }
    escaped[used] = '\0';
    if (used >= sizeof error->message)
        memcpy(escaped + sizeof error->message - sizeof "...", "...", sizeof "...");
    memcpy(error->message, escaped,
           used < sizeof error->message ? used + 1 : sizeof error->message);
    error->code = code;
    error->column = column;
    return code;
}

const char *weir_quote(char *buffer, size_t size, const char *text, size_t len) {
    size_t used = 0;
    buffer[used++] = '"';
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool escaped = byte == '"' || byte == '\\';
        size_t need = is_printable(byte) ? 1 + (size_t)escaped : 4;
        if (used + need + 2 > size)
            break;
        if (need == 4) {
            used += put_hex(buffer + used, byte);
            continue;
        }
        if (escaped)
            buffer[used++] = '\\';
        buffer[used++] = (char)byte;
    }
    buffer[used++] = '"';
    buffer[used] = '\0';
    return buffer;
}
