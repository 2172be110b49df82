/* The log of a moving window as one value, for stores that keep values: src/strategy/log/flat.c. */
#ifndef WEIR_FLAT_LOG_H
#define WEIR_FLAT_LOG_H

#include <stddef.h>

#include "strategy/strategy.h"

#define WEIR_FLAT_MARK 3 /* bytes at the beginning of a value that are the caller's */

/*
 * One step of the moving window, as src/strategy/moving_window.c takes it. value: NULL if there is none.
 * Writes what is kept behind the mark of `next`, at most `room` bytes in all; *next_len: 0 if nothing.
 * Returns 0, WEIR_EFORMAT (value is no log) or WEIR_EFULL (it would be longer than `room`).
 */
int weir_flat_step(const struct weir_step *step, enum weir_mode mode, const char *value, size_t len,
                   struct weir_verdict *verdict, char *next, size_t room, size_t *next_len,
                   int64_t *expires_ns);

#endif
