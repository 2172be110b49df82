/* States packed as bytes, and stepped: src/remote/packed.c. */
#ifndef WEIR_PACKED_H
#define WEIR_PACKED_H

#include <stddef.h>

#include "strategy/strategy.h"

/* Bytes by which one step can make a packed state longer, at most. */
#define WEIR_PACKED_GROWTH 96

/*
 * One step of a packed state. value: NULL if there is none. Writes what is to be kept into `next`, at most `room`
 * bytes; *next_len: 0 if nothing.
 * Returns 0, WEIR_EFORMAT (value is no state of this limit) or WEIR_EFULL (it would be longer than `room`).
 */
int weir_packed_step(const struct weir_step *step, enum weir_mode mode, const char *value,
                     size_t len, struct weir_verdict *verdict, char *next, size_t room,
                     size_t *next_len, int64_t *expires_ns);

#endif
