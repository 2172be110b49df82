/*
 * Meters: a hash table of numbers with open addressing, in the rest of the header's page. One
 * compare-and-swap writes the hash of a name into a free slot, where it stays. So a search takes no
 * lock, and a killed process leaves no slot half written.
 */
#include "weir/meter.h"

#include <stdatomic.h>

#include "table/hash.h"

struct meter {
    _Atomic uint64_t name;  /* hash of the name; 0: free */
    _Atomic uint64_t value; /* changed by atomic operations */
};

/* Room between the header and the end of its page. */
#define METERS_AT 512u
_Static_assert(sizeof(struct weir_header) <= METERS_AT, "byte map");
_Static_assert(METERS_AT + WEIR_METERS * sizeof(struct meter) == WEIR_HEADER_BYTES, "byte map");

/*
 * Finds the meter of a name, or with `make` creates it. Sets *found; NULL if there is none. 0, or
 * WEIR_E….
 */
static int find(struct weir_table *table, const char *name, size_t len, bool make,
                struct meter **found) {
    if (!table || !name || len == 0 || len > WEIR_KEY_MAX)
        return WEIR_EINVAL;
    struct meter *meters = (struct meter *)((char *)table->header + METERS_AT);
    uint64_t hash = weir_client_hash(table, name, len);
    hash += hash == 0;
    for (uint64_t i = 0; i < WEIR_METERS; i++) {
        struct meter *meter = &meters[(hash + i) % WEIR_METERS];
        uint64_t stored = atomic_load_explicit(&meter->name, memory_order_relaxed);
        if (stored == 0 && !make) {
            *found = NULL;
            return 0;
        }
        if (stored == 0 && atomic_compare_exchange_strong(&meter->name, &stored, hash))
            stored = hash;
        if (stored == hash) {
            *found = meter;
            return 0;
        }
    }
    *found = NULL;
    return make ? WEIR_ETOOMANY : 0;
}

int weir_meter_add(struct weir_table *table, const char *name, size_t len, uint64_t add,
                   uint64_t *value) {
    struct meter *meter;
    int rc = find(table, name, len, add != 0, &meter);
    if (rc < 0)
        return rc;
    uint64_t now = 0;
    if (meter && add)
        now = atomic_fetch_add_explicit(&meter->value, add, memory_order_relaxed) + add;
    else if (meter)
        now = atomic_load_explicit(&meter->value, memory_order_relaxed);
    if (value)
        *value = now;
    return weir_result(table, 0);
}

int weir_meter_raise(struct weir_table *table, const char *name, size_t len, uint64_t value) {
    struct meter *meter;
    int rc = find(table, name, len, true, &meter);
    if (rc < 0)
        return rc;
    uint64_t stored = atomic_load_explicit(&meter->value, memory_order_relaxed);
    while (stored < value &&
           !atomic_compare_exchange_weak_explicit(&meter->value, &stored, value,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
    return weir_result(table, 0);
}
