/* The labels under which a table counts the decisions of its limits. */
#include "label.h"

#include "limit.h"
#include "stats/stats.h"
#include "table.h"

int32_t core_label_find(struct core_table *table, const struct core_limit *limit) {
    char text[128];
    if (core_limit_is_own(limit))
        return 0;
    int len = weir_limit_print(&limit->limit, text, sizeof text);
    int number = weir_stats_label(table->table, text, (size_t)len);
    if (number <= 0)
        return 0;
    *core_label_slot(table, &limit->limit) = (struct core_known_label){limit->limit, number};
    return number;
}
