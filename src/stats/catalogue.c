/*
 * The limits that are in use, for those who look at a table. They only ever grow, like labels: first the limit,
 * then the number of limits, so that finding one takes no lock.
 */
#include <string.h>

#include "stats/stats_layout.h"

static uint32_t find_described(const struct weir_described *there, uint32_t count,
                               const struct weir_described *wanted) {
    uint32_t i = 0;
    while (i < count && memcmp(&there[i], wanted, sizeof *wanted) != 0)
        i++;
    return i;
}

int weir_board_describe(struct weir_table *table, const struct weir_limit *limit,
                        const void *before, size_t before_len, const void *after,
                        size_t after_len) {
    if (!table || !limit || weir_limit_validate(limit, NULL) < 0 || (!before && before_len > 0) ||
        (!after && after_len > 0) || before_len > WEIR_DESCRIBED_MAX ||
        after_len > WEIR_DESCRIBED_MAX - before_len)
        return WEIR_EINVAL;
    if (limit->zone) /* borrowed from this process: another could not say what it is */
        return 0;
    struct weir_described wanted = {
        .limit = *limit, .before_len = (uint32_t)before_len, .after_len = (uint32_t)after_len};
    if (before_len > 0)
        memcpy(wanted.text, before, before_len);
    if (after_len > 0)
        memcpy(wanted.text + before_len, after, after_len);
    struct weir_described *there = weir_board_described(table);
    _Atomic uint32_t *described = &table->board->described;
    uint32_t count = weir_board_number(described, table->header->described);
    if (find_described(there, count, &wanted) < count)
        return 0;
    int rc = weir_board_ready(table);
    if (rc == 0)
        rc = weir_lock_take(table, 0);
    if (rc < 0)
        return rc;
    count = weir_board_number(described, table->header->described);
    if (find_described(there, count, &wanted) < count) {
        rc = 0;
    } else if (count == table->header->described) {
        rc = WEIR_ETOOMANY;
    } else {
        there[count] = wanted;
        atomic_store_explicit(described, count + 1, memory_order_release);
    }
    weir_lock_release(table, 0);
    return rc;
}

/* Whether a part of the catalogue can be what it says. */
bool weir_described_sound(const struct weir_described *described) {
    return described->before_len <= WEIR_DESCRIBED_MAX &&
           described->after_len <= WEIR_DESCRIBED_MAX - described->before_len &&
           !described->limit.zone && weir_limit_validate(&described->limit, NULL) == 0;
}

int weir_board_catalogue(struct weir_table *table, struct weir_described *described, size_t *n) {
    if (!table || !n || (!described && *n > 0))
        return WEIR_EINVAL;
    const struct weir_described *there = weir_board_described(table);
    uint32_t count = weir_board_number(&table->board->described, table->header->described);
    size_t room = *n, written = 0;
    for (uint32_t i = 0; i < count && written < room; i++) {
        described[written] = there[i];
        written += weir_described_sound(&described[written]);
    }
    *n = described ? written : count;
    return 0;
}
