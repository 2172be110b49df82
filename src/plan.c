/* The sections of a table's mapping: src/table/layout.h describes them. */
#include "plan.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "rules/rules.h"
#include "stats/stats.h"

#define REGISTRY_MIN 32u
#define REGISTRY_MAX 1024u
#define REGISTRY_KEYS 64 /* keys for each limit in the registry */
#define STRIPE_CELLS 512
#define STRIPES_FEW 8u /* below this number, more locks are preferred to more cells for each */
#define STRIPE_CELLS_FEW 32
#define LINE_HITS 14

static uint64_t line_up(uint64_t bytes) {
    return (bytes + 63) & ~UINT64_C(63);
}

static uint64_t page_up(uint64_t bytes) {
    return (bytes + 4095) & ~UINT64_C(4095);
}

uint64_t weir_plan_signature(void) {
    const uint16_t one = 1;
    const uint64_t parts[] = {sizeof(pthread_mutex_t),
                              sizeof(struct weir_lock),
                              sizeof(struct weir_stripe),
                              sizeof(struct weir_pool),
                              sizeof(struct weir_cell),
                              sizeof(struct weir_line),
                              sizeof(struct weir_stats),
                              sizeof(struct weir_stats_stripe),
                              sizeof(struct weir_registered_limit),
                              weir_rules_bytes(WEIR_RULES_DEFAULT),
                              WEIR_BUCKET_CELLS,
                              WEIR_CHECKS_MAX,
                              WEIR_LINKS_MAX,
                              sizeof(void *),
                              *(const unsigned char *)&one,
                              sizeof(time_t)};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        hash = (hash ^ parts[i]) * UINT64_C(0x100000001b3);
#if !defined(__GLIBC__)
    /* musl's mutexes have the same size as glibc's, but other contents. */
    hash = (hash ^ 1) * UINT64_C(0x100000001b3);
#endif
    return hash;
}

static uint32_t registry_room(uint64_t keys) {
    keys /= REGISTRY_KEYS;
    return keys < REGISTRY_MIN ? REGISTRY_MIN : keys > REGISTRY_MAX ? REGISTRY_MAX : (uint32_t)keys;
}

void weir_plan(struct weir_header *header, uint64_t keys, uint64_t hits, uint32_t rules) {
    keys = (keys + WEIR_BUCKET_CELLS - 1) / WEIR_BUCKET_CELLS * WEIR_BUCKET_CELLS;
    uint64_t lines = hits / LINE_HITS, stripes = 1;
    lines += lines / 32 + 64;
    /*
     * Keys are spread over stripes randomly, and fit only into cells of their stripe, so each has
     * many cells.
     */
    while (stripes < WEIR_STRIPES_MAX &&
           stripes * (stripes < STRIPES_FEW ? STRIPE_CELLS_FEW : STRIPE_CELLS) < keys)
        stripes *= 2;
    memcpy(header->magic, WEIR_MAGIC, sizeof header->magic);
    header->version = WEIR_LAYOUT_VERSION;
    header->header_bytes = WEIR_HEADER_BYTES;
    header->signature = weir_plan_signature();
    header->keys = keys;
    header->hits = hits;
    header->stripes = (uint32_t)stripes;
    header->lines = (uint32_t)lines;
    header->rules = rules;
    header->registry_room = registry_room(keys);
    header->stripes_at = WEIR_HEADER_BYTES;
    header->pool_at = header->stripes_at + stripes * sizeof(struct weir_stripe);
    header->stats_at = line_up(header->pool_at + sizeof(struct weir_pool));
    header->rules_at =
        page_up(header->stats_at + weir_stats_bytes(header->stripes, header->registry_room));
    header->cells_at = page_up(header->rules_at + weir_rules_bytes(rules));
    header->lines_at = header->cells_at + keys * sizeof(struct weir_cell);
    header->bytes = page_up(header->lines_at + lines * sizeof(struct weir_line) + WEIR_END_BYTES);
}

_Atomic uint64_t *weir_plan_end(const struct weir_table *table) {
    return (_Atomic uint64_t *)(void *)((char *)table->header + table->bytes - WEIR_END_BYTES);
}

void weir_plan_attach(struct weir_table *table, void *base) {
    const struct weir_header *header = base;
    table->header = base;
    table->stripe = (struct weir_stripe *)((char *)base + header->stripes_at);
    table->pool = (struct weir_pool *)((char *)base + header->pool_at);
    table->cell = (struct weir_cell *)((char *)base + header->cells_at);
    table->line = (struct weir_line *)((char *)base + header->lines_at);
    table->stats = (struct weir_stats *)((char *)base + header->stats_at);
    table->rules = (struct weir_rules *)((char *)base + header->rules_at);
    weir_rules_plan(&table->rules_plan, header->rules);
    table->buckets = header->keys / WEIR_BUCKET_CELLS;
    table->stripe_mask = header->stripes - 1;
    table->lines = header->lines;
    table->bytes = header->bytes;
    if (table->backing != WEIR_BACKING_MEMORY && table->backing != WEIR_BACKING_FORKS)
        table->end_mark = weir_plan_end(table);
}
