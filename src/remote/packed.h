/* States packed as bytes, and steps on them: src/remote/packed.c. */
#ifndef WEIR_PACKED_H
#define WEIR_PACKED_H

#include <stddef.h>

#include "strategy/strategy.h"

/* The most bytes that one step can add to a packed state. */
#define WEIR_PACKED_GROWTH 96

/*
 * One step of a packed state. value: NULL if there is none. Writes the new state into `next`, at
 * most `room` bytes; *next_len is 0 if there is nothing to store. Returns 0, WEIR_EFORMAT (value is
 * not a state of this limit) or WEIR_EFULL (longer than `room`).
 */
int weir_packed_step(const struct weir_step *step, enum weir_mode mode, const char *value,
                     size_t len, struct weir_verdict *verdict, char *next, size_t room,
                     size_t *next_len, int64_t *expires_ns);

#endif
