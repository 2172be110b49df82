/*
 * How libweir says what went wrong: one sentence in the caller's struct weir_error. What it quotes of the
 * input is escaped, so that a message may be written to a terminal or a log as it is.
 */
#ifndef WEIR_ERROR_H
#define WEIR_ERROR_H

#include <stddef.h>

#include "weir/weir.h"

/*
 * Fills *error (NULL: nothing to fill) with `code`, `column` and the formatted message, in which every
 * byte that is not printable ASCII becomes \xNN and what does not fit ends in "...". Returns `code`, so
 * that failing is one statement: return weir_fail(error, WEIR_EINVAL, 0, "...").
 */
int weir_fail(struct weir_error *error, int code, int column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Room for what weir_quote() makes of `len` bytes at worst. */
#define WEIR_QUOTE_SIZE(len) ((len) * 4 + 3)

/*
 * Writes `text` between double quotes into `buffer`, with \" \\ and \xNN for what needs it (NUL too, which
 * no printf would pass on), cut to `size` and NUL-terminated; size >= 3. Returns `buffer`.
 */
const char *weir_quote(char *buffer, size_t size, const char *text, size_t len);

#endif
