/*
 * The registry of limits in use, for programs that inspect a table. Limits are only added, like
 * labels. A limit is written before the number of limits, so a search takes no lock.
 */
#include <string.h>

#include "stats/stats.h"

static uint32_t find_registered(const struct weir_registered_limit *entries, uint32_t count,
                                const struct weir_registered_limit *wanted) {
    uint32_t i = 0;
    while (i < count && memcmp(&entries[i], wanted, sizeof *wanted) != 0)
        i++;
    return i;
}

/* Fills in the registry's entry for a limit. WEIR_EINVAL: it does not fit. */
static int describe(struct weir_registered_limit *wanted, const struct weir_limit *limit,
                    const void *before, size_t before_len, const void *after, size_t after_len) {
    size_t zone_len = limit->zone ? strlen(limit->zone->name) : 0;
    if ((!before && before_len > 0) || (!after && after_len > 0) ||
        before_len > WEIR_REGISTERED_MAX || after_len > WEIR_REGISTERED_MAX - before_len ||
        zone_len > WEIR_REGISTERED_MAX - before_len - after_len)
        return WEIR_EINVAL;
    *wanted = (struct weir_registered_limit){.limit = *limit,
                                             .before_len = (uint32_t)before_len,
                                             .after_len = (uint16_t)after_len,
                                             .zone_len = (uint16_t)zone_len};
    wanted->limit.zone = NULL; /* borrowed from this process */
    if (before_len > 0)
        memcpy(wanted->text, before, before_len);
    if (after_len > 0)
        memcpy(wanted->text + before_len, after, after_len);
    if (zone_len > 0)
        memcpy(wanted->text + before_len + after_len, limit->zone->name, zone_len);
    return 0;
}

int weir_stats_register(struct weir_table *table, const struct weir_limit *limit,
                        const void *before, size_t before_len, const void *after,
                        size_t after_len) {
    struct weir_registered_limit wanted;
    if (!table || !limit || weir_limit_validate(limit, NULL) < 0 ||
        describe(&wanted, limit, before, before_len, after, after_len) < 0)
        return WEIR_EINVAL;
    struct weir_registered_limit *entries = weir_stats_registered(table);
    _Atomic uint32_t *registered = &table->stats->registered;
    uint32_t count = weir_stats_number(registered, table->header->registry_room);
    if (find_registered(entries, count, &wanted) < count)
        return 0;
    int rc = weir_stats_ready(table);
    if (rc == 0)
        rc = weir_lock_take(table, 0);
    if (rc < 0)
        return rc;
    count = weir_stats_number(registered, table->header->registry_room);
    if (find_registered(entries, count, &wanted) < count) {
        rc = 0;
    } else if (count == table->header->registry_room) {
        rc = WEIR_ETOOMANY;
    } else {
        entries[count] = wanted;
        atomic_store_explicit(registered, count + 1, memory_order_release);
    }
    weir_lock_release(table, 0);
    return rc;
}

/* Whether an entry of the registry is valid. */
bool weir_registered_valid(const struct weir_registered_limit *registered) {
    size_t len = (size_t)registered->before_len + registered->after_len;
    if (registered->before_len > WEIR_REGISTERED_MAX || len > WEIR_REGISTERED_MAX ||
        registered->zone_len > WEIR_REGISTERED_MAX - len || registered->limit.zone)
        return false;
    struct weir_limit limit = registered->limit;
    const struct weir_zone_offset none = {0, 0};
    char name[WEIR_ZONE_NAME_MAX + 1] = "";
    const struct weir_zone zone = {name, &none, 1};
    if (registered->zone_len > WEIR_ZONE_NAME_MAX)
        return false;
    if (registered->zone_len > 0) {
        memcpy(name, registered->text + len, registered->zone_len);
        limit.zone = &zone;
    }
    return weir_limit_validate(&limit, NULL) == 0;
}

int weir_stats_registry(struct weir_table *table, struct weir_registered_limit *registered,
                        size_t *n) {
    if (!table || !n || (!registered && *n > 0))
        return WEIR_EINVAL;
    const struct weir_registered_limit *entries = weir_stats_registered(table);
    uint32_t count = weir_stats_number(&table->stats->registered, table->header->registry_room);
    size_t room = *n, written = 0;
    for (uint32_t i = 0; i < count && written < room; i++) {
        registered[written] = entries[i];
        written += weir_registered_valid(&registered[written]);
    }
    *n = registered ? written : count;
    return weir_result(table, 0);
}
