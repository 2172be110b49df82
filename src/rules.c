/*
 * Which rule holds for a client: what a decision asks when there are rules at all.
 *
 * Ranges of addresses are either nested or apart, so they cut the numbers of all addresses into at most
 * 2 n + 1 segments, each with one rule that is the most specific there. The starts of the segments lie in
 * a sorted array, and above it, level by level, every 16th of the level below:
 *
 *     level 1   | 0.0.0.0                             | 10.7.0.0 …
 *     level 0   | 0.0.0.0 | 10.0.0.0 | 10.1.0.0 | …   | 10.7.0.0 | …      16 keys: one cache line
 *     words     | none    | rule 1   | rule 2   | …
 *
 * A search counts, line by line, how many keys are not above the address (no branch depends on it): five
 * cache lines for 100,000 ranges of IPv4, most of them hot. Names are found by their keyed hash, 64 bits of
 * SipHash under the table's secret, in a hash table with linear probing. The segment's word tells the rule;
 * one that has expired names the next wider one.
 *
 * Readers take no lock: see struct weir_rules. Everything that is read here may be damaged, or changed by a
 * writer meanwhile: every index is bounded before it is used, every loop has an end.
 */
#include "rules.h"

#include <string.h>

#define TRIES 64 /* a reader that is overtaken so often by two changes at once takes the lock */
#define WIDER_MAX 130 /* nested ranges: prefixes 0 to 128 */
#define relaxed memory_order_relaxed

/* ---------------------------------------------------------------------------------------- segments */

/* Levels above level 0 that a search begins at. */
static inline uint32_t top_level(uint32_t last) {
    return last == 0 ? 0 : (31 - (uint32_t)__builtin_clz(last)) / WEIR_FAN;
}

static inline uint32_t at_most(uint32_t index, uint32_t last) {
    return index < last ? index : last;
}

/* In one expression: compilers do not unroll loops of atomic loads. */
#define EACH_4(of, i) (of(i) + of(i + 1) + of(i + 2) + of(i + 3))
#define EACH_KEY(of) ((EACH_4(of, 0) + EACH_4(of, 4)) + (EACH_4(of, 8) + EACH_4(of, 12)))

_Static_assert(WEIR_GROUP == 16, "EACH_KEY");

/* How many of a group's keys are not above the address. */
static inline uint32_t count_4(const _Atomic uint32_t *key, uint32_t address) {
#define NOT_ABOVE(i) (uint32_t)(atomic_load_explicit(&key[i], relaxed) <= address)
    return EACH_KEY(NOT_ABOVE);
#undef NOT_ABOVE
}

/* The same of IPv6. Whether an upper half is equal is the same for most searches of one list. */
static inline uint32_t count_6(const struct weir_rule_wides *key,
                               const struct weir_address *address) {
#define BELOW(i) (uint32_t)(atomic_load_explicit(&key->high[i], relaxed) < address->high)
#define NOT_ABOVE(i) (uint32_t)(atomic_load_explicit(&key->high[i], relaxed) <= address->high)
    uint32_t below = EACH_KEY(BELOW), end = EACH_KEY(NOT_ABOVE);
#undef NOT_ABOVE
#undef BELOW
    for (uint32_t i = below; i < end; i++)
        below += atomic_load_explicit(&key->low[i], relaxed) <= address->low;
    return below;
}

/* The word of an IPv4 address's segment, which is one of last + 1. */
static uint32_t find_4(const struct weir_rules_plan *plan, const struct weir_rules_copy *copy,
                       uint32_t last, uint32_t address) {
    const _Atomic uint32_t *word = weir_rules_at(copy, plan->word_4_at);
    uint32_t at = 0;
    for (uint32_t level = top_level(last) + 1; level-- > 0;) {
        const _Atomic uint32_t *key = weir_rules_at(copy, plan->key_4_at[level]);
        uint32_t base = at << WEIR_FAN;
        if (level == 0)
            __builtin_prefetch(word + base);
        at = at_most(base + count_4(key + base, address) - 1, last >> WEIR_FAN * level);
    }
    return atomic_load_explicit(&word[at], relaxed);
}

static uint32_t find_6(const struct weir_rules_plan *plan, const struct weir_rules_copy *copy,
                       uint32_t last, const struct weir_address *address) {
    const _Atomic uint32_t *word = weir_rules_at(copy, plan->word_6_at);
    uint32_t at = 0;
    for (uint32_t level = top_level(last) + 1; level-- > 0;) {
        const struct weir_rule_wides *key = weir_rules_at(copy, plan->key_6_at[level]);
        uint32_t base = at << WEIR_FAN;
        if (level == 0)
            __builtin_prefetch(word + base);
        at = at_most(base + count_6(key + at, address) - 1, last >> WEIR_FAN * level);
    }
    return atomic_load_explicit(&word[at], relaxed);
}

/* ------------------------------------------------------------------------------------------- words */

static uint32_t word_of_address(const struct weir_table *table, const struct weir_rules_copy *copy,
                                const struct weir_address *address, bool is_4) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    uint32_t count = atomic_load_explicit(is_4 ? &copy->segments_4 : &copy->segments_6, relaxed);
    if (count - 1 >= plan->segments)
        return 0;
    return is_4 ? find_4(plan, copy, count - 1, (uint32_t)address->low)
                : find_6(plan, copy, count - 1, address);
}

static uint32_t word_of_name(const struct weir_table *table, const struct weir_rules_copy *copy,
                             uint64_t hash) {
    const struct weir_rules_plan *plan = &table->rules_plan;
    uint32_t count = atomic_load_explicit(&copy->slots, relaxed);
    if (count == 0 || count > plan->slots)
        return 0;
    const struct weir_rule_slot *slot = weir_rules_at(copy, plan->slot_at);
    uint32_t at = (uint32_t)((unsigned __int128)hash * count >> 64);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t word = atomic_load_explicit(&slot[at].word, relaxed);
        if (word == 0 || atomic_load_explicit(&slot[at].hash, relaxed) == hash)
            return word;
        at = at + 1 < count ? at + 1 : 0;
    }
    return 0;
}

struct weir_ruling weir_rules_look(const struct weir_table *table, uint64_t version,
                                   const struct weir_address *address, enum weir_family family,
                                   int64_t now_ns) {
    const struct weir_rules_copy *copy = weir_rules_copy(table, version);
    const struct weir_rule_term *term = weir_rules_terms(table, copy);
    uint32_t word = family == WEIR_FAMILY_NONE
                        ? word_of_name(table, copy, address->high)
                        : word_of_address(table, copy, address, family == WEIR_FAMILY_4);
    for (uint32_t i = 0; i < WIDER_MAX && word != 0; i++) {
        int64_t until_ns = WEIR_NEVER;
        uint32_t number = (word & WEIR_RULE_NUMBER) - 1;
        if (word & WEIR_RULE_ENDS) {
            if (number >= table->rules_plan.capacity)
                break;
            until_ns = atomic_load_explicit(&term[number].until_ns, relaxed);
        }
        if (now_ns < until_ns)
            return (struct weir_ruling){.kind = word & WEIR_RULE_ALLOWS ? WEIR_RULE_ALLOW
                                                                        : WEIR_RULE_BLOCK,
                                        .word = word,
                                        .until_ns = until_ns};
        word = atomic_load_explicit(&term[number].wider, relaxed);
    }
    return (struct weir_ruling){.kind = WEIR_RULE_NONE};
}

struct weir_ruling weir_rules_ruling(struct weir_table *table, const void *client, size_t len,
                                     int64_t now_ns) {
    const struct weir_rules *rules = table->rules;
    struct weir_ruling ruling = {.kind = WEIR_RULE_NONE};
    struct weir_address address;
    if (len == 0)
        return ruling;
    enum weir_family family = weir_address_parse(client, len, &address);
    if (family == WEIR_FAMILY_NONE)
        address = (struct weir_address){weir_client_hash(table, client, len), 0};
    for (int i = 0; i < TRIES; i++) {
        uint64_t version = atomic_load_explicit(&rules->version, memory_order_acquire);
        ruling = weir_rules_look(table, version, &address, family, now_ns);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&rules->building, relaxed) - version <= 1)
            return ruling;
    }
    if (weir_rules_lock(table) == 0) {
        ruling = weir_rules_look(table, atomic_load(&rules->version), &address, family, now_ns);
        weir_rules_unlock(table);
    }
    return ruling;
}

/* --------------------------------------------------------------------------------------- decisions */

void weir_rules_verdict(const struct weir_check *check, int64_t now_ns,
                        const struct weir_ruling *ruling, struct weir_verdict *verdict) {
    const struct weir_limit *limit = check->limit;
    int64_t amount =
        limit->strategy == WEIR_TOKEN_BUCKET && limit->burst ? limit->burst : limit->amount;
    bool allowed = ruling->kind == WEIR_RULE_ALLOW;
    *verdict = (struct weir_verdict){.allowed = allowed,
                                     .limit = amount,
                                     .remaining = allowed ? amount : 0,
                                     .reset_at_ns = now_ns};
    if (allowed)
        return;
    bool ends = ruling->until_ns != WEIR_NEVER;
    verdict->reset_at_ns = ends ? ruling->until_ns : now_ns + limit->period_ns;
    verdict->retry_after_ns = ends ? ruling->until_ns - now_ns : WEIR_NEVER;
}

static bool same_client(const struct weir_check *a, const struct weir_check *b) {
    return a->client_len == b->client_len &&
           (a->client == b->client || memcmp(a->client, b->client, a->client_len) == 0);
}

int weir_rules_rule(struct weir_table *table, const struct weir_check *checks, size_t n,
                    int64_t now_ns, struct weir_ruling rulings[], size_t *allowed) {
    bool blocked = false;
    *allowed = 0;
    for (size_t i = 0; i < n; i++) {
        if (!checks[i].client || checks[i].client_len == 0)
            rulings[i] = (struct weir_ruling){.kind = WEIR_RULE_NONE};
        else if (i > 0 && checks[i - 1].client && same_client(&checks[i], &checks[i - 1]))
            rulings[i] = rulings[i - 1];
        else
            rulings[i] = weir_rules_ruling(table, checks[i].client, checks[i].client_len, now_ns);
        blocked |= rulings[i].kind == WEIR_RULE_BLOCK;
        *allowed += rulings[i].kind == WEIR_RULE_ALLOW;
    }
    return blocked ? WEIR_RULE_BLOCK : *allowed == n ? WEIR_RULE_ALLOW : WEIR_RULE_NONE;
}
