/*
 * The labels of decisions. They are only added, under the first stripe's lock. The text is written
 * before the number of labels, so a search takes no lock.
 */
#include <string.h>

#include "stats/stats.h"

static uint32_t find_label(const struct weir_stats *stats, uint32_t labels, const char *text,
                           size_t len) {
    uint32_t i = 0;
    while (i < labels && (memcmp(stats->label[i], text, len) != 0 || stats->label[i][len] != '\0'))
        i++;
    return i;
}

int weir_stats_label(struct weir_table *table, const char *text, size_t len) {
    if (!table || !text || len == 0 || len > WEIR_LABEL_MAX || memchr(text, '\0', len))
        return WEIR_EINVAL;
    struct weir_stats *stats = table->stats;
    uint32_t labels = weir_stats_number(&stats->labels, WEIR_LABELS_NAMED);
    uint32_t found = find_label(stats, labels, text, len);
    if (found < labels || labels == WEIR_LABELS_NAMED || (len == 5 && !memcmp(text, "other", 5)))
        return found < labels ? (int)found + 1 : (int)WEIR_STATS_LABELS;
    int rc = weir_stats_ready(table);
    if (rc == 0)
        rc = weir_lock_take(table, 0);
    if (rc < 0)
        return rc;
    labels = weir_stats_number(&stats->labels,
                               WEIR_LABELS_NAMED); /* another process may have added it */
    found = find_label(stats, labels, text, len);
    if (found == labels && labels < WEIR_LABELS_NAMED) {
        memset(stats->label[labels], 0, sizeof stats->label[labels]);
        memcpy(stats->label[labels], text, len);
        atomic_store_explicit(&stats->labels, labels + 1, memory_order_release);
    }
    weir_lock_release(table, 0);
    return (int)found + 1; /* WEIR_LABELS_NAMED + 1 is "other" */
}

/* The text of a label by its number; "" for none. */
void weir_label_copy(const struct weir_table *table, uint32_t label,
                     char text[WEIR_LABEL_MAX + 1]) {
    text[0] = '\0';
    if (label - 1 < WEIR_STATS_LABELS)
        memcpy(text, table->stats->label[label - 1], WEIR_LABEL_MAX + 1);
    text[WEIR_LABEL_MAX] = '\0';
}
