/*
 * Making the index that src/rules.c searches, from a sorted list of rules.
 *
 * Ranges are nested or apart and sorted by their first address, wider before narrower. So one sweep with a
 * stack of the ranges that are open finds each range's next wider one, and cuts the addresses into
 * segments. Linear in the number of rules: 100,000 take a few milliseconds.
 */
#include <string.h>

#include "error.h"
#include "rules.h"

#define DEPTH 130
#define NAMES_ALL                                                                                  \
    UINT32_C(262144)  /* so many bytes of names there is always room for, if it is enough */
#define NAME_BYTES 32 /* on average, above that */
#define relaxed memory_order_relaxed

static size_t line_up(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

/* ------------------------------------------------------------------------------------------ places */

/* Levels of `segments` keys; each is filled up to whole groups. Returns where they end. */
static size_t plan_levels(size_t at, uint32_t segments, size_t key_bytes,
                          size_t levels[WEIR_RULES_LEVELS]) {
    for (uint32_t level = 0; level < WEIR_RULES_LEVELS; level++) {
        size_t keys = ((size_t)(segments - 1) >> WEIR_FAN * level) + 1;
        size_t groups = ((keys - 1) >> WEIR_FAN) + 1;
        levels[level] = at;
        at = line_up(at + (groups << WEIR_FAN) * key_bytes);
    }
    return at;
}

void weir_rules_plan(struct weir_rules_plan *plan, uint32_t capacity) {
    uint32_t names = capacity * NAME_BYTES > NAMES_ALL ? capacity * NAME_BYTES : NAMES_ALL;
    if (capacity <= NAMES_ALL / WEIR_RULE_CLIENT_MAX)
        names = capacity * WEIR_RULE_CLIENT_MAX;
    *plan = (struct weir_rules_plan){.capacity = capacity,
                                     .segments = 2 * capacity + 1,
                                     .slots = capacity + capacity / 2 + 1,
                                     .name_bytes = names};
    plan->entry_at = sizeof(struct weir_rules_copy);
    plan->term_at = line_up(plan->entry_at + capacity * sizeof(struct weir_rule_entry));
    size_t at = line_up(plan->term_at + capacity * sizeof(struct weir_rule_term));
    at = plan_levels(at, plan->segments, sizeof(uint32_t), plan->key_4_at);
    plan->word_4_at = at;
    at = line_up(at + plan->segments * sizeof(uint32_t));
    at = plan_levels(at, plan->segments, sizeof(struct weir_rule_wides) / WEIR_GROUP,
                     plan->key_6_at);
    plan->word_6_at = at;
    plan->slot_at = line_up(at + plan->segments * sizeof(uint32_t));
    plan->name_at = line_up(plan->slot_at + plan->slots * sizeof(struct weir_rule_slot));
    plan->copy_bytes = line_up(plan->name_at + names);
}

size_t weir_rules_bytes(uint32_t capacity) {
    struct weir_rules_plan plan;
    weir_rules_plan(&plan, capacity);
    return sizeof(struct weir_rules) + 2 * plan.copy_bytes;
}

void weir_rules_init(void *section, uint32_t capacity) {
    (void)section; /* all zero: version 0, whose copy has no rules and no segments */
    (void)capacity;
}

/* -------------------------------------------------------------------------------------------- order */

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
    const struct weir_rule_term *term = &weir_rules_terms(table, copy)[number];
    uint32_t word = atomic_load_explicit(&term->word, relaxed);
    int64_t until_ns = atomic_load_explicit(&term->until_ns, relaxed);
    struct weir_range range = range_of(entry);
    if (entry->family != WEIR_FAMILY_NONE
            ? !weir_range_valid(&range) || entry->name_len != 0
            : entry->first.low != 0 || entry->prefix != 0 ||
                  entry->name_len > WEIR_RULE_CLIENT_MAX || entry->name_at > plan->name_bytes ||
                  entry->name_len > plan->name_bytes - entry->name_at)
        return false;
    return entry->since_ns >= 0 && until_ns >= 0 &&
           (word & ~WEIR_RULE_ALLOWS) ==
               ((number + 1) | (until_ns == WEIR_NEVER ? 0 : WEIR_RULE_ENDS));
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
        int64_t until_ns =
            atomic_load_explicit(&weir_rules_terms(table, copy)[i].until_ns, relaxed);
        ends_ns = until_ns > ends_ns ? until_ns : ends_ns;
    }
    return ends_ns == copy->ends_ns;
}

/* ----------------------------------------------------------------------------------------- segments */

/* The sweep over the ranges of one family. */
struct sweep {
    const struct weir_rule_entry *entry;
    struct weir_rule_term *term;
    bool is_4;
    _Atomic uint32_t *key_4;
    struct weir_rule_wides *key_6;
    _Atomic uint32_t *word;
    uint32_t segments;
    uint32_t depth;
    uint32_t open[DEPTH]; /* numbers of rules */
};

static struct weir_address key_at(const struct sweep *sweep, uint32_t at) {
    if (sweep->is_4)
        return (struct weir_address){0, atomic_load_explicit(&sweep->key_4[at], relaxed)};
    const struct weir_rule_wides *wides = &sweep->key_6[at / WEIR_GROUP];
    return (struct weir_address){atomic_load_explicit(&wides->high[at % WEIR_GROUP], relaxed),
                                 atomic_load_explicit(&wides->low[at % WEIR_GROUP], relaxed)};
}

static void set_key(struct sweep *sweep, uint32_t at, struct weir_address key) {
    if (sweep->is_4) {
        atomic_store_explicit(&sweep->key_4[at], (uint32_t)key.low, relaxed);
    } else {
        atomic_store_explicit(&sweep->key_6[at / WEIR_GROUP].high[at % WEIR_GROUP], key.high,
                              relaxed);
        atomic_store_explicit(&sweep->key_6[at / WEIR_GROUP].low[at % WEIR_GROUP], key.low,
                              relaxed);
    }
}

static void begin_segment(struct sweep *sweep, struct weir_address from, uint32_t word) {
    uint32_t last = sweep->segments - 1;
    if (sweep->segments > 0) {
        struct weir_address key = key_at(sweep, last);
        if (key.high == from.high && key.low == from.low) {
            atomic_store_explicit(&sweep->word[last], word, relaxed);
            return;
        }
        if (atomic_load_explicit(&sweep->word[last], relaxed) == word)
            return;
    }
    set_key(sweep, sweep->segments, from);
    atomic_store_explicit(&sweep->word[sweep->segments], word, relaxed);
    sweep->segments++;
}

static uint32_t innermost(const struct sweep *sweep) {
    return sweep->depth == 0
               ? 0
               : atomic_load_explicit(&sweep->term[sweep->open[sweep->depth - 1]].word, relaxed);
}

/* Closes the ranges that end before `from` (NULL: all); behind each, the one around it goes on. */
static void close_ranges(struct sweep *sweep, const struct weir_address *from) {
    const struct weir_address end = sweep->is_4 ? (struct weir_address){0, UINT32_MAX}
                                                : (struct weir_address){UINT64_MAX, UINT64_MAX};
    while (sweep->depth > 0) {
        struct weir_range range = range_of(&sweep->entry[sweep->open[sweep->depth - 1]]);
        struct weir_address last = weir_range_last(&range);
        if (from && (last.high > from->high || (last.high == from->high && last.low >= from->low)))
            return;
        sweep->depth--;
        if (last.high == end.high && last.low == end.low)
            continue;
        struct weir_address next = {last.high + (last.low == UINT64_MAX), last.low + 1};
        begin_segment(sweep, next, innermost(sweep));
    }
}

static void sweep_ranges(struct sweep *sweep, uint32_t from, uint32_t to) {
    if (from < to)
        begin_segment(sweep, (struct weir_address){0, 0}, 0);
    for (uint32_t i = from; i < to; i++) {
        close_ranges(sweep, &sweep->entry[i].first);
        atomic_store_explicit(&sweep->term[i].wider, innermost(sweep), relaxed);
        begin_segment(sweep, sweep->entry[i].first,
                      atomic_load_explicit(&sweep->term[i].word, relaxed));
        if (sweep->depth < DEPTH)
            sweep->open[sweep->depth++] = i;
    }
    close_ranges(sweep, NULL);
}

/* Fills level 0 up to a whole group, and makes the levels above it. */
static void raise_levels(struct sweep *sweep, const struct weir_rules_copy *copy,
                         const size_t levels[WEIR_RULES_LEVELS]) {
    const struct weir_address highest = {UINT64_MAX, UINT64_MAX};
    uint32_t count = sweep->segments;
    for (uint32_t level = 0; level < WEIR_RULES_LEVELS && count > 0; level++) {
        struct sweep above = *sweep;
        for (uint32_t i = count; i & (WEIR_GROUP - 1); i++)
            set_key(sweep, i, highest);
        if (level + 1 == WEIR_RULES_LEVELS || count <= WEIR_GROUP)
            return;
        above.key_4 = weir_rules_at(copy, levels[level + 1]);
        above.key_6 = weir_rules_at(copy, levels[level + 1]);
        uint32_t groups = ((count - 1) >> WEIR_FAN) + 1;
        for (uint32_t i = 0; i < groups; i++)
            set_key(&above, i, key_at(sweep, i << WEIR_FAN));
        *sweep = above;
        count = groups;
    }
}

/* Numbers of the list's first rule that is not below a family. */
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

static uint32_t build_ranges(const struct weir_table *table, struct weir_rules_copy *copy,
                             bool is_4, uint32_t from, uint32_t to) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    const size_t *levels = is_4 ? plan->key_4_at : plan->key_6_at;
    struct sweep sweep = {.entry = weir_rules_entries(table, copy),
                          .term = weir_rules_terms(table, copy),
                          .is_4 = is_4,
                          .key_4 = weir_rules_at(copy, levels[0]),
                          .key_6 = weir_rules_at(copy, levels[0]),
                          .word = weir_rules_at(copy, is_4 ? plan->word_4_at : plan->word_6_at)};
    sweep_ranges(&sweep, from, to);
    uint32_t segments = sweep.segments;
    raise_levels(&sweep, copy, levels);
    return segments;
}

/* -------------------------------------------------------------------------------------------- names */

/* Sorted by hash, they come into the hash table nearly in its own order. */
static uint32_t build_names(const struct weir_table *table, struct weir_rules_copy *copy,
                            uint32_t from, uint32_t to) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    const struct weir_rule_entry *entry = weir_rules_entries(table, copy);
    struct weir_rule_term *term = weir_rules_terms(table, copy);
    struct weir_rule_slot *slot = weir_rules_at(copy, plan->slot_at);
    uint32_t names = to - from, slots = names == 0 ? 0 : names + names / 2 + 1;
    for (uint32_t i = 0; i < slots; i++)
        atomic_store_explicit(&slot[i].word, 0, relaxed);
    for (uint32_t i = from; i < to; i++) {
        uint64_t hash = entry[i].first.high;
        uint32_t at = (uint32_t)((unsigned __int128)hash * slots >> 64);
        while (atomic_load_explicit(&slot[at].word, relaxed) != 0)
            at = at + 1 < slots ? at + 1 : 0;
        atomic_store_explicit(&slot[at].hash, hash, relaxed);
        atomic_store_explicit(&slot[at].word, atomic_load_explicit(&term[i].word, relaxed),
                              relaxed);
        atomic_store_explicit(&term[i].wider, 0, relaxed);
    }
    return slots;
}

void weir_rules_build(const struct weir_table *table, struct weir_rules_copy *copy) {
    const struct weir_rule_entry *entry = weir_rules_entries(table, copy);
    uint32_t first_6 = families_below(entry, copy->rules, WEIR_FAMILY_6);
    uint32_t first_name = families_below(entry, copy->rules, 7);
    uint32_t segments_4 = build_ranges(table, copy, true, 0, first_6);
    uint32_t segments_6 = build_ranges(table, copy, false, first_6, first_name);
    uint32_t slots = build_names(table, copy, first_name, copy->rules);
    atomic_store_explicit(&copy->segments_4, segments_4, relaxed);
    atomic_store_explicit(&copy->segments_6, segments_6, relaxed);
    atomic_store_explicit(&copy->slots, slots, relaxed);
}

/* ------------------------------------------------------------------------------------------ the check */

static int corrupt(struct weir_error *error, const char *what) {
    return weir_fail(error, WEIR_ECORRUPT, 0, "%s", what);
}

static bool same_bytes(const struct weir_rules_copy *a, const struct weir_rules_copy *b, size_t at,
                       size_t bytes) {
    return memcmp(weir_rules_at(a, at), weir_rules_at(b, at), bytes) == 0;
}

static bool same_levels(const struct weir_rules_copy *a, const struct weir_rules_copy *b,
                        const size_t levels[WEIR_RULES_LEVELS], size_t key_bytes,
                        uint32_t segments) {
    for (uint32_t level = 0; level < WEIR_RULES_LEVELS && segments > 0; level++) {
        uint32_t groups = ((segments - 1) >> WEIR_FAN) + 1;
        if (!same_bytes(a, b, levels[level], ((size_t)groups << WEIR_FAN) * key_bytes))
            return false;
        segments = segments <= WEIR_GROUP ? 0 : groups;
    }
    return true;
}

/* Whether two copies of one list have the same index. */
static bool same_index(const struct weir_rules_plan *plan, const struct weir_rules_copy *a,
                       const struct weir_rules_copy *b) {
    if (a->segments_4 != b->segments_4 || a->segments_6 != b->segments_6 || a->slots != b->slots)
        return false;
    const struct weir_rule_slot *x = weir_rules_at(a, plan->slot_at);
    const struct weir_rule_slot *y = weir_rules_at(b, plan->slot_at);
    for (uint32_t i = 0; i < a->slots; i++)
        if (x[i].word != y[i].word || (x[i].word != 0 && x[i].hash != y[i].hash))
            return false;
    return same_bytes(a, b, plan->term_at, a->rules * sizeof(struct weir_rule_term)) &&
           same_bytes(a, b, plan->word_4_at, a->segments_4 * sizeof(uint32_t)) &&
           same_bytes(a, b, plan->word_6_at, a->segments_6 * sizeof(uint32_t)) &&
           same_levels(a, b, plan->key_4_at, sizeof(uint32_t), a->segments_4) &&
           same_levels(a, b, plan->key_6_at, sizeof(struct weir_rule_wides) / WEIR_GROUP,
                       a->segments_6);
}

/* The list is looked at, then indexed once more in the other copy: the index must come out the same. */
int weir_rules_check(struct weir_table *table, struct weir_error *error) {
    struct weir_rules *rules = table->rules;
    int rc = weir_rules_lock(table);
    if (rc < 0)
        return weir_fail(error, rc, 0, "%s: %s", table->name, weir_strerror(rc));
    uint64_t version = atomic_load(&rules->version);
    struct weir_rules_copy *copy = weir_rules_copy(table, version);
    struct weir_rules_copy *other = weir_rules_copy(table, version + 1);
    if (atomic_load(&rules->building) - version > 1)
        rc = corrupt(error, "the rules are of no version");
    else if (!weir_rules_sound(table, copy))
        rc = corrupt(error, "the list of rules is broken");
    else if (atomic_load(&rules->ends_ns) < copy->ends_ns)
        rc = corrupt(error, "there are rules that nobody asks for");
    if (rc == 0) {
        atomic_store(&rules->building, version + 1);
        atomic_thread_fence(memory_order_release);
        other->rules = copy->rules;
        memcpy(weir_rules_entries(table, other), weir_rules_entries(table, copy),
               copy->rules * sizeof(struct weir_rule_entry));
        for (uint32_t i = 0; i < copy->rules; i++) {
            struct weir_rule_term *to = &weir_rules_terms(table, other)[i];
            const struct weir_rule_term *from = &weir_rules_terms(table, copy)[i];
            atomic_store_explicit(&to->until_ns, from->until_ns, relaxed);
            atomic_store_explicit(&to->word, from->word, relaxed);
        }
        weir_rules_build(table, other);
        if (!same_index(&table->rules_plan, copy, other))
            rc = corrupt(error, "the index of rules is broken");
    }
    weir_rules_unlock(table);
    return rc;
}
