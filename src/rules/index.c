/*
 * Builds the index for src/rules/lookup.c from a sorted list of rules.
 *
 * Two ranges are either nested or disjoint. They are sorted by their first address, wider before
 * narrower. So one sweep with a stack of open ranges finds the next wider range of each. The time
 * is linear in the number of rules: a few milliseconds for 100,000.
 */
#include <string.h>

#include "error.h"
#include "rules/rules.h"

#define DEPTH 130
/* Minimum size of the name area, in bytes; less if that holds `capacity` names of any length. */
#define NAMES_MIN UINT32_C(262144)
#define NAME_BYTES 32 /* average size of a name, for the names of large tables */
#define relaxed memory_order_relaxed

static size_t line_up(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

/* --------------------------------------------------------------------------------------- places */

/* Places the levels of `count` keys, each rounded up to whole groups. Returns their end. */
static size_t plan_levels(size_t at, uint32_t count, size_t key_bytes,
                          size_t levels[WEIR_RULES_LEVELS]) {
    for (uint32_t level = 0; level < WEIR_RULES_LEVELS; level++) {
        size_t keys = count == 0 ? 1 : ((size_t)(count - 1) >> WEIR_FAN * level) + 1;
        size_t groups = ((keys - 1) >> WEIR_FAN) + 1;
        levels[level] = at;
        at = line_up(at + (groups << WEIR_FAN) * key_bytes);
    }
    return at;
}

void weir_rules_plan(struct weir_rules_plan *plan, uint32_t capacity) {
    uint32_t names = capacity * NAME_BYTES > NAMES_MIN ? capacity * NAME_BYTES : NAMES_MIN;
    if (capacity <= NAMES_MIN / WEIR_RULE_CLIENT_MAX)
        names = capacity * WEIR_RULE_CLIENT_MAX;
    *plan = (struct weir_rules_plan){
        .capacity = capacity, .slots = capacity + capacity / 2 + 1, .name_bytes = names};
    plan->entry_at = sizeof(struct weir_rules_copy);
    plan->end_at = line_up(plan->entry_at + capacity * sizeof(struct weir_rule_entry));
    plan->wider_at = line_up(plan->end_at + capacity * sizeof(int64_t));
    plan->mark_4_at = line_up(plan->wider_at + capacity * sizeof(uint32_t));
    plan->mark_6_at = line_up(plan->mark_4_at + capacity * sizeof(uint16_t));
    size_t at = line_up(plan->mark_6_at + capacity * sizeof(uint16_t));
    at = plan_levels(at, capacity, sizeof(uint32_t), plan->key_4_at);
    at = plan_levels(at, capacity, sizeof(struct weir_rule_wides) / WEIR_GROUP, plan->key_6_at);
    plan->slot_at = at;
    plan->name_at = line_up(plan->slot_at + plan->slots * sizeof(struct weir_rule_slot));
    plan->copy_bytes = line_up(plan->name_at + names);
}

size_t weir_rules_bytes(uint32_t capacity) {
    struct weir_rules_plan plan;
    weir_rules_plan(&plan, capacity);
    return sizeof(struct weir_rules) + 2 * plan.copy_bytes;
}

void weir_rules_init(void *section, uint32_t capacity) {
    (void)section; /* all zero: version 0, an empty list */
    (void)capacity;
}

/* ---------------------------------------------------------------------------------------- order */

static int family_order(const struct weir_rule_entry *entry) {
    return entry->family == WEIR_FAMILY_NONE ? 7 : entry->family;
}

int weir_rules_compare(const struct weir_rule_entry *a, const struct weir_rule_entry *b) {
    if (a->family != b->family)
        return family_order(a) < family_order(b) ? -1 : 1;
    if (a->first.high != b->first.high)
        return a->first.high < b->first.high ? -1 : 1;
    if (a->first.low != b->first.low)
        return a->first.low < b->first.low ? -1 : 1;
    return (int)a->prefix - (int)b->prefix;
}

static struct weir_range range_of(const struct weir_rule_entry *entry) {
    return (struct weir_range){
        .first = entry->first, .family = entry->family, .prefix = entry->prefix};
}

bool weir_rule_sound(const struct weir_table *table, const struct weir_rules_copy *copy,
                     uint32_t number) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    if (number >= copy->rules || copy->rules > plan->capacity)
        return false;
    const struct weir_rule_entry *entry = &weir_rules_entries(table, copy)[number];
    struct weir_range range = range_of(entry);
    if (entry->family != WEIR_FAMILY_NONE
            ? !weir_range_valid(&range) || entry->name_len != 0
            : entry->first.low != 0 || entry->prefix != 0 ||
                  entry->name_len > WEIR_RULE_CLIENT_MAX || entry->name_at > plan->name_bytes ||
                  entry->name_len > plan->name_bytes - entry->name_at)
        return false;
    return entry->since_ns >= 0 &&
           (entry->kind == WEIR_RULE_BLOCK || entry->kind == WEIR_RULE_ALLOW) &&
           atomic_load_explicit(&weir_rules_ends(table, copy)[number], relaxed) >= 0;
}

bool weir_rules_sound(const struct weir_table *table, const struct weir_rules_copy *copy) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    const struct weir_rule_entry *entry = weir_rules_entries(table, copy);
    if (copy->rules > plan->capacity || copy->name_bytes > plan->name_bytes)
        return false;
    int64_t ends_ns = 0;
    for (uint32_t i = 0; i < copy->rules; i++) {
        if (!weir_rule_sound(table, copy, i) ||
            (i > 0 && weir_rules_compare(&entry[i - 1], &entry[i]) >= 0))
            return false;
        int64_t until_ns = atomic_load_explicit(&weir_rules_ends(table, copy)[i], relaxed);
        ends_ns = until_ns > ends_ns ? until_ns : ends_ns;
    }
    return ends_ns == copy->ends_ns;
}

/* --------------------------------------------------------------------------------------- ranges */

/* One level of one family's keys. */
struct keys {
    bool is_4;
    _Atomic uint32_t *of_4;
    struct weir_rule_wides *of_6;
};

static struct keys level_of(const struct weir_rules_plan *plan, const struct weir_rules_copy *copy,
                            bool is_4, uint32_t level) {
    return (struct keys){.is_4 = is_4,
                         .of_4 = weir_rules_at(copy, plan->key_4_at[level]),
                         .of_6 = weir_rules_at(copy, plan->key_6_at[level])};
}

static struct weir_address get_key(const struct keys *keys, uint32_t at) {
    if (keys->is_4)
        return (struct weir_address){0, atomic_load_explicit(&keys->of_4[at], relaxed)};
    const struct weir_rule_wides *wides = &keys->of_6[at / WEIR_GROUP];
    return (struct weir_address){atomic_load_explicit(&wides->high[at % WEIR_GROUP], relaxed),
                                 atomic_load_explicit(&wides->low[at % WEIR_GROUP], relaxed)};
}

static void set_key(const struct keys *keys, uint32_t at, struct weir_address key) {
    if (keys->is_4) {
        atomic_store_explicit(&keys->of_4[at], (uint32_t)key.low, relaxed);
    } else {
        struct weir_rule_wides *wides = &keys->of_6[at / WEIR_GROUP];
        atomic_store_explicit(&wides->high[at % WEIR_GROUP], key.high, relaxed);
        atomic_store_explicit(&wides->low[at % WEIR_GROUP], key.low, relaxed);
    }
}

/* Pads a level to a whole group with the highest key. */
static void fill_up(const struct keys *keys, uint32_t count) {
    const struct weir_address highest = {UINT64_MAX, UINT64_MAX};
    for (uint32_t i = count; i % WEIR_GROUP != 0; i++)
        set_key(keys, i, highest);
}

/* Builds the levels above level 0, which has `count` keys. */
static void raise_levels(const struct weir_rules_plan *plan, const struct weir_rules_copy *copy,
                         bool is_4, uint32_t count) {
    struct keys keys = level_of(plan, copy, is_4, 0);
    fill_up(&keys, count);
    for (uint32_t level = 1; level < WEIR_RULES_LEVELS && count > WEIR_GROUP; level++) {
        struct keys above = level_of(plan, copy, is_4, level);
        uint32_t groups = ((count - 1) >> WEIR_FAN) + 1;
        for (uint32_t i = 0; i < groups; i++)
            set_key(&above, i, get_key(&keys, i << WEIR_FAN));
        fill_up(&above, groups);
        keys = above;
        count = groups;
    }
}

static bool covers(const struct weir_rule_entry *wide, const struct weir_address *address) {
    struct weir_range range = range_of(wide);
    struct weir_address last = weir_range_last(&range);
    return last.high != address->high ? last.high > address->high : last.low >= address->low;
}

static uint16_t mark_of(const struct weir_rule_entry *entry, int64_t until_ns, bool wider) {
    return (uint16_t)(entry->prefix | (entry->kind == WEIR_RULE_ALLOW ? WEIR_MARK_ALLOWS : 0) |
                      (until_ns != WEIR_NEVER ? WEIR_MARK_ENDS : 0) |
                      (wider ? WEIR_MARK_WIDER : 0));
}

/* Indexes rules [from, to), all ranges of one family. */
static void build_ranges(const struct weir_table *table, struct weir_rules_copy *copy, bool is_4,
                         uint32_t from, uint32_t to) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    const struct weir_rule_entry *entry = weir_rules_entries(table, copy);
    const _Atomic int64_t *end = weir_rules_ends(table, copy);
    _Atomic uint32_t *wider = weir_rules_wider(table, copy);
    _Atomic uint16_t *mark = weir_rules_at(copy, is_4 ? plan->mark_4_at : plan->mark_6_at);
    struct keys keys = level_of(plan, copy, is_4, 0);
    uint32_t open[DEPTH], depth = 0; /* ranges that contain the current address */
    for (uint32_t i = from; i < to; i++) {
        while (depth > 0 && !covers(&entry[open[depth - 1]], &entry[i].first))
            depth--;
        int64_t until_ns = atomic_load_explicit(&end[i], relaxed);
        atomic_store_explicit(&wider[i], depth > 0 ? open[depth - 1] + 1 : 0, relaxed);
        atomic_store_explicit(&mark[i - from], mark_of(&entry[i], until_ns, depth > 0), relaxed);
        set_key(&keys, i - from, entry[i].first);
        if (depth < DEPTH)
            open[depth++] = i;
    }
    raise_levels(plan, copy, is_4, to - from);
}

/* The number of rules that come before a family. */
static uint32_t families_below(const struct weir_rule_entry *entry, uint32_t count, int order) {
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (family_order(&entry[middle]) < order)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---------------------------------------------------------------------------------------- names */

/*
 * Indexes rules [from, to), all names; returns the number of slots. The names are sorted by hash,
 * so they are inserted almost in the order of the slots.
 */
static uint32_t build_names(const struct weir_table *table, struct weir_rules_copy *copy,
                            uint32_t from, uint32_t to) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    const struct weir_rule_entry *entry = weir_rules_entries(table, copy);
    const _Atomic int64_t *end = weir_rules_ends(table, copy);
    _Atomic uint32_t *wider = weir_rules_wider(table, copy);
    struct weir_rule_slot *slot = weir_rules_at(copy, plan->slot_at);
    uint32_t names = to - from, slots = names == 0 ? 0 : names + names / 2 + 1;
    for (uint32_t i = 0; i < slots; i++)
        atomic_store_explicit(&slot[i].number, 0, relaxed);
    for (uint32_t i = from; i < to; i++) {
        uint64_t hash = entry[i].first.high;
        uint32_t at = (uint32_t)((unsigned __int128)hash * slots >> 64);
        while (atomic_load_explicit(&slot[at].number, relaxed) != 0)
            at = at + 1 < slots ? at + 1 : 0;
        int64_t until_ns = atomic_load_explicit(&end[i], relaxed);
        atomic_store_explicit(&slot[at].hash, hash, relaxed);
        atomic_store_explicit(&slot[at].mark, mark_of(&entry[i], until_ns, false), relaxed);
        atomic_store_explicit(&slot[at].number, i + 1, relaxed);
        atomic_store_explicit(&wider[i], 0, relaxed);
    }
    return slots;
}

void weir_rules_build(const struct weir_table *table, struct weir_rules_copy *copy) {
    const struct weir_rule_entry *entry = weir_rules_entries(table, copy);
    uint32_t first_6 = families_below(entry, copy->rules, WEIR_FAMILY_6);
    uint32_t first_name = families_below(entry, copy->rules, 7);
    build_ranges(table, copy, true, 0, first_6);
    build_ranges(table, copy, false, first_6, first_name);
    uint32_t slots = build_names(table, copy, first_name, copy->rules);
    atomic_store_explicit(&copy->ranges_4, first_6, relaxed);
    atomic_store_explicit(&copy->ranges_6, first_name - first_6, relaxed);
    atomic_store_explicit(&copy->slots, slots, relaxed);
}

/* ------------------------------------------------------------------------------------ integrity */

static int corrupt(struct weir_error *error, const char *what) {
    return weir_fail(error, WEIR_ECORRUPT, 0, "%s", what);
}

static bool same_bytes(const struct weir_rules_copy *a, const struct weir_rules_copy *b, size_t at,
                       size_t bytes) {
    return memcmp(weir_rules_at(a, at), weir_rules_at(b, at), bytes) == 0;
}

static bool same_levels(const struct weir_rules_copy *a, const struct weir_rules_copy *b,
                        const size_t levels[WEIR_RULES_LEVELS], size_t key_bytes, uint32_t count) {
    for (uint32_t level = 0; level < WEIR_RULES_LEVELS && count > 0; level++) {
        uint32_t groups = ((count - 1) >> WEIR_FAN) + 1;
        if (!same_bytes(a, b, levels[level], ((size_t)groups << WEIR_FAN) * key_bytes))
            return false;
        count = count <= WEIR_GROUP ? 0 : groups;
    }
    return true;
}

/* Whether two copies of one list have the same index. */
static bool same_index(const struct weir_rules_plan *plan, const struct weir_rules_copy *a,
                       const struct weir_rules_copy *b) {
    if (a->ranges_4 != b->ranges_4 || a->ranges_6 != b->ranges_6 || a->slots != b->slots)
        return false;
    const struct weir_rule_slot *x = weir_rules_at(a, plan->slot_at);
    const struct weir_rule_slot *y = weir_rules_at(b, plan->slot_at);
    for (uint32_t i = 0; i < a->slots; i++)
        if (x[i].number != y[i].number ||
            (x[i].number != 0 && (x[i].hash != y[i].hash || x[i].mark != y[i].mark)))
            return false;
    size_t wide = sizeof(struct weir_rule_wides) / WEIR_GROUP;
    return same_bytes(a, b, plan->wider_at, a->rules * sizeof(uint32_t)) &&
           same_bytes(a, b, plan->mark_4_at, a->ranges_4 * sizeof(uint16_t)) &&
           same_bytes(a, b, plan->mark_6_at, a->ranges_6 * sizeof(uint16_t)) &&
           same_levels(a, b, plan->key_4_at, sizeof(uint32_t), a->ranges_4) &&
           same_levels(a, b, plan->key_6_at, wide, a->ranges_6);
}

/* Verifies the list, then indexes it again in the other copy: both indexes must be equal. */
int weir_rules_check(struct weir_table *table, struct weir_error *error) {
    struct weir_rules *rules = table->rules;
    int rc = weir_rules_lock(table);
    if (rc < 0)
        return weir_fail(error, rc, 0, "%s: %s", table->name, weir_strerror(rc));
    uint64_t version = atomic_load(&rules->version);
    struct weir_rules_copy *copy = weir_rules_copy(table, version);
    struct weir_rules_copy *other = weir_rules_copy(table, version + 1);
    if (atomic_load(&rules->building) - version > 1)
        rc = corrupt(error, "the version of the rules is invalid");
    else if (!weir_rules_sound(table, copy))
        rc = corrupt(error, "the list of rules is broken");
    else if (atomic_load(&rules->ends_ns) < copy->ends_ns)
        rc = corrupt(error, "a rule ends later than the recorded end of all rules");
    if (rc == 0) {
        atomic_store(&rules->building, version + 1);
        atomic_thread_fence(memory_order_release);
        other->rules = copy->rules;
        memcpy(weir_rules_entries(table, other), weir_rules_entries(table, copy),
               copy->rules * sizeof(struct weir_rule_entry));
        for (uint32_t i = 0; i < copy->rules; i++)
            atomic_store_explicit(&weir_rules_ends(table, other)[i],
                                  weir_rules_ends(table, copy)[i], relaxed);
        weir_rules_build(table, other);
        if (!same_index(&table->rules_plan, copy, other))
            rc = corrupt(error, "the index of rules is broken");
    }
    weir_rules_unlock(table);
    return rc;
}
