/*
 * Error messages: one sentence in the caller's struct weir_error. Quoted input is escaped, so that
 * a message can be written to a terminal or a log.
 */
#ifndef WEIR_ERROR_H
#define WEIR_ERROR_H

#include <stddef.h>

#include "weir/weir.h"

/*
 * Fills *error (NULL: nothing to fill) with `code`, `column` and the formatted message, in which
 * every byte that is not printable ASCII becomes \xNN, and a message that is too long ends in
 * "...". Returns `code`, for return weir_fail(error, WEIR_EINVAL, 0, "...").
 */
int weir_fail(struct weir_error *error, int code, int column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The most bytes that weir_quote() writes for `len` bytes. */
#define WEIR_QUOTE_SIZE(len) ((len) * 4 + 3)

/*
 * Writes `text` between double quotes into `buffer`, with \" \\ and \xNN for what needs it (NUL
 * too, which no printf would pass on), cut to `size` and NUL-terminated; size >= 3. Returns
 * `buffer`.
 */
const char *weir_quote(char *buffer, size_t size, const char *text, size_t len);

#endif
