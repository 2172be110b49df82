/*
 * Finds the rule that applies to a client. Decisions call it if there are rules.
 *
 * Level 0 is the sorted array of the first addresses of all ranges. Each higher level has every
 * 16th address of the level below:
 *
 *     level 1   | 10.0.0.0                                   | 10.7.0.0    …
 *     level 0   | 10.0.0.0   | 10.0.0.0    | 10.1.0.0    …   | 10.7.0.0    | …
 *     marks     | /8         | /16, wider  | /16, wider  …   | /24, wider  | …
 *
 * Two ranges are either nested or disjoint. So of the ranges that begin at or before an address,
 * only the last one and the ranges that contain it can cover the address. The prefix lengths in
 * their marks show which do. On each level, a search reads one group of 16 keys (for IPv4 one cache
 * line) and counts those that are not above the address, without a branch. For 100,000 ranges it
 * reads five cache lines and a mark, most of them hot.
 *
 * Names are found by their keyed hash, 64 bits of SipHash under the table's secret, in a hash table
 * with linear probing. If a rule has expired, the next wider one applies.
 *
 * Readers take no lock: see struct weir_rules. All data can be damaged, or changed by a writer at
 * the same time, so every index is checked before use and every loop is bounded.
 */
#include "rules/rules.h"
#include "strategy/strategy.h"
#include "table/hash.h"

#include <string.h>

/* After this many attempts that collided with changes, a reader takes the lock. */
#define TRIES 64
#define WIDER_MAX 130 /* nested ranges: prefixes 0 to 128 */
#define relaxed memory_order_relaxed

/* --------------------------------------------------------------------------------------- ranges */

/* The level at which a search begins. */
static inline uint32_t top_level(uint32_t last) {
    return last == 0 ? 0 : (31 - (uint32_t)__builtin_clz(last)) / WEIR_FAN;
}

static inline uint32_t at_most(uint32_t index, uint32_t last) {
    return index < last ? index : last;
}

/* One expression, because compilers do not unroll loops of atomic loads. */
#define EACH_4(of, i) (of(i) + of(i + 1) + of(i + 2) + of(i + 3))
#define EACH_KEY(of) ((EACH_4(of, 0) + EACH_4(of, 4)) + (EACH_4(of, 8) + EACH_4(of, 12)))

_Static_assert(WEIR_GROUP == 16, "EACH_KEY");

/* The number of keys of a group that are not above the address. */
static inline uint32_t count_4(const _Atomic uint32_t *key, uint32_t address) {
#define NOT_ABOVE(i) (uint32_t)(atomic_load_explicit(&key[i], relaxed) <= address)
    return EACH_KEY(NOT_ABOVE);
#undef NOT_ABOVE
}

/* The same for IPv6. Compares the upper halves first; most searches need nothing else. */
static inline uint32_t count_6(const struct weir_rule_wides *key,
                               const struct weir_address *address) {
#define NOT_ABOVE(i) (uint32_t)(atomic_load_explicit(&key->high[i], relaxed) <= address->high)
    uint32_t count = EACH_KEY(NOT_ABOVE);
#undef NOT_ABOVE
    while (count > 0 && atomic_load_explicit(&key->high[count - 1], relaxed) == address->high &&
           atomic_load_explicit(&key->low[count - 1], relaxed) > address->low)
        count--;
    return count;
}

/* The last of `last` + 1 ranges that begins at or before an IPv4 address; any if none does. */
static uint32_t find_4(const struct weir_rules_plan *plan, const struct weir_rules_copy *copy,
                       uint32_t last, uint32_t address) {
    const _Atomic uint16_t *mark = weir_rules_at(copy, plan->mark_4_at);
    uint32_t at = 0;
    for (uint32_t level = top_level(last) + 1; level-- > 0;) {
        const _Atomic uint32_t *key = weir_rules_at(copy, plan->key_4_at[level]);
        uint32_t base = at << WEIR_FAN;
        if (level == 0)
            __builtin_prefetch(mark + base);
        at = at_most(base + count_4(key + base, address) - 1, last >> WEIR_FAN * level);
    }
    return at;
}

static uint32_t find_6(const struct weir_rules_plan *plan, const struct weir_rules_copy *copy,
                       uint32_t last, const struct weir_address *address) {
    const _Atomic uint16_t *mark = weir_rules_at(copy, plan->mark_6_at);
    uint32_t at = 0;
    for (uint32_t level = top_level(last) + 1; level-- > 0;) {
        const struct weir_rule_wides *key = weir_rules_at(copy, plan->key_6_at[level]);
        uint32_t base = at << WEIR_FAN;
        if (level == 0) {
            __builtin_prefetch(mark + base);
            __builtin_prefetch(&key[at].low[0]);
            __builtin_prefetch(&key[at].low[WEIR_GROUP / 2]);
        }
        at = at_most(base + count_6(key + at, address) - 1, last >> WEIR_FAN * level);
    }
    return at;
}

/* The place of an address among the ranges of its family. */
struct place {
    uint32_t at;                  /* the range found, counted from `first` */
    uint32_t first, count;        /* the family's first rule; its number of ranges */
    const _Atomic uint16_t *mark; /* the family's marks */
    uint32_t same;                /* leading bits that the address shares with the range's first */
};

static inline uint32_t same_bits(uint64_t a, uint64_t b) {
    return a == b ? 64 : (uint32_t)__builtin_clzll(a ^ b);
}

static bool find_place(const struct weir_table *table, const struct weir_rules_copy *copy,
                       const struct weir_address *address, bool is_4, struct place *place) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    uint32_t ranges_4 = atomic_load_explicit(&copy->ranges_4, relaxed);
    place->first = is_4 ? 0 : ranges_4;
    place->count = is_4 ? ranges_4 : atomic_load_explicit(&copy->ranges_6, relaxed);
    place->mark = weir_rules_at(copy, is_4 ? plan->mark_4_at : plan->mark_6_at);
    if (place->count == 0 || place->first > plan->capacity ||
        place->count > plan->capacity - place->first)
        return false;
    if (is_4) {
        const _Atomic uint32_t *key = weir_rules_at(copy, plan->key_4_at[0]);
        place->at = find_4(plan, copy, place->count - 1, (uint32_t)address->low);
        uint64_t found = atomic_load_explicit(&key[place->at], relaxed);
        place->same = same_bits(found << 32, address->low << 32);
        place->same = place->same < 32 ? place->same : 32;
    } else {
        const struct weir_rule_wides *key = weir_rules_at(copy, plan->key_6_at[0]);
        place->at = find_6(plan, copy, place->count - 1, address);
        key += place->at / WEIR_GROUP;
        uint64_t high = atomic_load_explicit(&key->high[place->at % WEIR_GROUP], relaxed);
        place->same = same_bits(high, address->high);
        if (place->same == 64)
            place->same += same_bits(
                atomic_load_explicit(&key->low[place->at % WEIR_GROUP], relaxed), address->low);
    }
    return true;
}

static struct weir_rule_match match_of(const struct weir_table *table,
                                       const struct weir_rules_copy *copy, uint32_t number,
                                       uint32_t mark) {
    int64_t until_ns = WEIR_NEVER;
    if (mark & WEIR_MARK_ENDS)
        until_ns = atomic_load_explicit(&weir_rules_ends(table, copy)[number], relaxed);
    return (struct weir_rule_match){.kind =
                                        mark & WEIR_MARK_ALLOWS ? WEIR_RULE_ALLOW : WEIR_RULE_BLOCK,
                                    .number = number,
                                    .until_ns = until_ns};
}

static const struct weir_rule_match nothing = {.kind = WEIR_RULE_NONE};

static struct weir_rule_match lookup_by_address(const struct weir_table *table,
                                                const struct weir_rules_copy *copy,
                                                const struct weir_address *address, bool is_4,
                                                int64_t now_ns) {
    struct place place;
    if (!find_place(table, copy, address, is_4, &place))
        return nothing;
    for (uint32_t i = 0; i < WIDER_MAX; i++) {
        uint32_t mark = atomic_load_explicit(&place.mark[place.at], relaxed);
        if ((mark & WEIR_MARK_PREFIX) <= place.same) {
            struct weir_rule_match match = match_of(table, copy, place.first + place.at, mark);
            if (now_ns < match.until_ns)
                return match;
        }
        if (!(mark & WEIR_MARK_WIDER))
            break;
        uint32_t wider =
            atomic_load_explicit(&weir_rules_wider(table, copy)[place.first + place.at], relaxed);
        if (wider - 1 - place.first >= place.count)
            break;
        place.at = wider - 1 - place.first;
    }
    return nothing;
}

/* ---------------------------------------------------------------------------------------- names */

static struct weir_rule_match lookup_by_hash(const struct weir_table *table,
                                             const struct weir_rules_copy *copy, uint64_t hash,
                                             int64_t now_ns) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    uint32_t count = atomic_load_explicit(&copy->slots, relaxed);
    if (count == 0 || count > plan->slots)
        return nothing;
    const struct weir_rule_slot *slot = weir_rules_at(copy, plan->slot_at);
    uint32_t at = (uint32_t)((unsigned __int128)hash * count >> 64);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = atomic_load_explicit(&slot[at].number, relaxed);
        if (number - 1 >= plan->capacity) /* 0: free */
            return nothing;
        if (atomic_load_explicit(&slot[at].hash, relaxed) == hash) {
            struct weir_rule_match match =
                match_of(table, copy, number - 1, atomic_load_explicit(&slot[at].mark, relaxed));
            return now_ns < match.until_ns ? match : nothing;
        }
        at = at + 1 < count ? at + 1 : 0;
    }
    return nothing;
}

struct weir_rule_match weir_rules_lookup(const struct weir_table *table, uint64_t version,
                                         const struct weir_address *address,
                                         enum weir_family family, int64_t now_ns) {
    const struct weir_rules_copy *copy = weir_rules_copy(table, version);
    return family == WEIR_FAMILY_NONE
               ? lookup_by_hash(table, copy, address->high, now_ns)
               : lookup_by_address(table, copy, address, family == WEIR_FAMILY_4, now_ns);
}

struct weir_rule_match weir_rules_match_client(struct weir_table *table, const void *client,
                                               size_t len, int64_t now_ns) {
    const struct weir_rules *rules = table->rules;
    struct weir_rule_match match = {.kind = WEIR_RULE_NONE};
    struct weir_address address;
    if (len == 0)
        return match;
    enum weir_family family = weir_client_address(client, len, &address);
    if (family == WEIR_FAMILY_NONE)
        address = (struct weir_address){weir_client_hash(table, client, len), 0};
    for (int i = 0; i < TRIES; i++) {
        uint64_t version = atomic_load_explicit(&rules->version, memory_order_acquire);
        match = weir_rules_lookup(table, version, &address, family, now_ns);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&rules->building, relaxed) - version <= 1)
            return match;
    }
    if (weir_rules_lock(table) == 0) {
        match = weir_rules_lookup(table, atomic_load(&rules->version), &address, family, now_ns);
        weir_rules_unlock(table);
    }
    return match;
}

/* ------------------------------------------------------------------------------------ decisions */

void weir_rules_verdict(const struct weir_limit *limit, int64_t now_ns,
                        const struct weir_rule_match *match, struct weir_verdict *verdict) {
    int64_t amount = weir_limit_size(limit);
    bool allowed = match->kind == WEIR_RULE_ALLOW;
    *verdict = (struct weir_verdict){.allowed = allowed,
                                     .limit = amount,
                                     .remaining = allowed ? amount : 0,
                                     .reset_at_ns = now_ns};
    if (allowed)
        return;
    bool ends = match->until_ns != WEIR_NEVER;
    verdict->reset_at_ns = ends ? match->until_ns : now_ns + limit->period_ns;
    verdict->retry_after_ns = ends ? match->until_ns - now_ns : WEIR_NEVER;
}
