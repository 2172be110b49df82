/* The log of the moving window: being written. */
#include "log.h"

int weir_log_drop(const struct weir_state *state, struct weir_lines *lines) {
    (void)state, (void)lines;
    return 0;
}

int weir_log_verify(const struct weir_state *state, const struct weir_lines *lines, uint8_t *seen) {
    (void)state, (void)lines, (void)seen;
    return 0;
}
