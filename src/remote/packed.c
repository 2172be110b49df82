/*
 * States as bytes, for stores that only store values.
 *
 *     "W1", the strategy; expires_ns and the words of struct weir_state, eight bytes each,
 *     little-endian "W1", the strategy; a log (src/strategy/log/flat.c)
 */
#include "remote/packed.h"

#include <string.h>

#include "strategy/log/flat.h"

#define STATE_BYTES (WEIR_FLAT_MARK + 4 * 8)

static void put_word(char *to, int64_t value) {
    for (int i = 0; i < 8; i++)
        to[i] = (char)((uint64_t)value >> (8 * i) & 0xFF);
}

static int64_t get_word(const char *from) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | (unsigned char)from[i];
    return (int64_t)value;
}

static int read_state(const char *value, size_t len, struct weir_state *state) {
    if (len != STATE_BYTES)
        return WEIR_EFORMAT;
    value += WEIR_FLAT_MARK;
    state->expires_ns = get_word(value);
    for (int i = 0; i < 3; i++)
        state->word[i] = get_word(value + 8 + 8 * i);
    bool wrong = state->expires_ns < 0;
    for (int i = 0; i < 3; i++)
        wrong |= state->word[i] < 0;
    return wrong ? WEIR_EFORMAT : 0;
}

static size_t write_state(const struct weir_state *state, char *next) {
    if (state->expires_ns == 0)
        return 0;
    put_word(next + WEIR_FLAT_MARK, state->expires_ns);
    for (int i = 0; i < 3; i++)
        put_word(next + WEIR_FLAT_MARK + 8 + 8 * i, state->word[i]);
    return STATE_BYTES;
}

/* A state of fixed size. */
static int step_state(const struct weir_step *step, enum weir_mode mode, const char *value,
                      size_t len, struct weir_verdict *verdict, char *next, size_t room,
                      size_t *next_len, int64_t *expires_ns) {
    struct weir_state state = {0};
    const struct weir_strategy_ops *strategy = weir_strategies[step->limit->strategy];
    if (room < STATE_BYTES)
        return WEIR_EFULL;
    int rc = value ? read_state(value, len, &state) : 0;
    if (rc == 0)
        rc = mode == WEIR_REFUND ? strategy->refund(&state, step, verdict)
                                 : strategy->step(&state, step, verdict);
    if (rc == 0) {
        *next_len = write_state(&state, next);
        *expires_ns = state.expires_ns;
    }
    return rc;
}

int weir_packed_step(const struct weir_step *step, enum weir_mode mode, const char *value,
                     size_t len, struct weir_verdict *verdict, char *next, size_t room,
                     size_t *next_len, int64_t *expires_ns) {
    const char mark[WEIR_FLAT_MARK] = {'W', '1', (char)step->limit->strategy};
    if (value && (len < sizeof mark || memcmp(value, mark, sizeof mark)))
        return WEIR_EFORMAT;
    if (room < sizeof mark)
        return WEIR_EFULL;
    verdict->reserved = 0;
    memcpy(next, mark, sizeof mark);
    return weir_strategies[step->limit->strategy]->packing == WEIR_PACK_LOG
               ? weir_flat_step(step, mode, value, len, verdict, next, room, next_len, expires_ns)
               : step_state(step, mode, value, len, verdict, next, room, next_len, expires_ns);
}
