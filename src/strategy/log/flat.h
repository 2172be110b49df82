/* The log of a moving window as one value, for stores of values: src/strategy/log/flat.c. */
#ifndef WEIR_FLAT_LOG_H
#define WEIR_FLAT_LOG_H

#include <stddef.h>

#include "strategy/strategy.h"

#define WEIR_FLAT_MARK 3 /* bytes at the beginning of a value that belong to the caller */

/*
 * One step of the moving window, with the results of src/strategy/moving_window.c. value: NULL if
 * there is none. Writes the new log into `next`, after the mark: at most `room` bytes with the
 * mark. *next_len is 0 if there is nothing to store. Returns 0, WEIR_EFORMAT (value is not a log)
 * or WEIR_EFULL (longer than `room`).
 */
int weir_flat_step(const struct weir_step *step, enum weir_mode mode, const char *value, size_t len,
                   struct weir_verdict *verdict, char *next, size_t room, size_t *next_len,
                   int64_t *expires_ns);

#endif
