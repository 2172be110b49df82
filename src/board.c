/*
 * The board: counters by label, heaviest clients, catalogue of limits.
 */
#include "board.h"

#include <string.h>

#include "error.h"

size_t weir_board_bytes(uint32_t stripes, uint32_t described) {
    return sizeof(struct weir_board) + stripes * sizeof(struct weir_board_stripe) +
           described * sizeof(struct weir_described);
}

void weir_board_init(struct weir_table *table) {
    strcpy(table->board->label[WEIR_BOARD_LABELS - 1], "other");
}

int weir_board_check(struct weir_table *table, struct weir_error *error) {
    (void)table;
    (void)error;
    return 0;
}

int weir_board_label(struct weir_table *table, const char *text, size_t len) {
    return table && text && len > 0 && len <= WEIR_LABEL_MAX ? WEIR_BOARD_LABELS : WEIR_EINVAL;
}

int weir_board_counts(struct weir_table *table, struct weir_board_counts *counts, size_t *n) {
    (void)counts;
    if (!table || !n)
        return WEIR_EINVAL;
    *n = 0;
    return 0;
}

int weir_board_heaviest(struct weir_table *table, enum weir_heavy_by by, int label,
                        struct weir_heavy *heavy, size_t *n) {
    (void)by;
    (void)label;
    (void)heavy;
    if (!table || !n)
        return WEIR_EINVAL;
    *n = 0;
    return 0;
}

int weir_board_reveal(struct weir_table *table, int reveal) {
    return table ? atomic_exchange(&table->reveal, reveal != 0) : WEIR_EINVAL;
}

int weir_board_name(struct weir_table *table, const void *client, size_t client_len,
                    char name[WEIR_NAME_OF_CLIENT]) {
    (void)client;
    (void)client_len;
    if (!table || !name)
        return WEIR_EINVAL;
    name[0] = '\0';
    return 0;
}

int weir_board_describe(struct weir_table *table, const struct weir_limit *limit,
                        const void *before, size_t before_len, const void *after,
                        size_t after_len) {
    (void)limit;
    (void)before;
    (void)before_len;
    (void)after;
    (void)after_len;
    return table ? 0 : WEIR_EINVAL;
}

int weir_board_catalogue(struct weir_table *table, struct weir_described *described, size_t *n) {
    (void)described;
    if (!table || !n)
        return WEIR_EINVAL;
    *n = 0;
    return 0;
}

int weir_board_note(struct weir_table *table, const struct weir_check *checks, size_t n,
                    int64_t now_ns, const struct weir_verdict *verdicts, int shadow) {
    (void)n;
    (void)now_ns;
    (void)shadow;
    return table && checks && verdicts ? 0 : WEIR_EINVAL;
}
