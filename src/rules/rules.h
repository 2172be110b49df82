/*
 * The rules about clients in a table's mapping: their layout, and who may write them.
 *
 *     section:  | struct weir_rules | copy 0 | copy 1 |
 *     copy:     | struct weir_rules_copy | entries | ends | wider |
 *               | keys and marks of IPv4, of IPv6 | slots | names |
 *
 * Each copy is a whole list with its index. The lowest bit of `version` selects the current copy. A
 * writer builds the next list in the other one and publishes it by one store. Who may write what:
 *  - "writer": under `mutex`. A crash can leave any value; it is not read before the next writer
 *    overwrites it.
 *  - "publish": under `mutex`, in the order at struct weir_rules.
 */
#ifndef WEIR_RULES_INTERNAL_H
#define WEIR_RULES_INTERNAL_H

#include <pthread.h>

#include "rules/address.h"
#include "table/lock.h"
#include "weir/rules.h"

/*
 * A change takes the mutex, sets `building` to version + 1, writes the other copy, sets `ends_ns`
 * to the later of its old and new value, adds 1 to `version` (the change takes effect here), and
 * sets `ends_ns` to its new value. A reader of copy v & 1 has read a consistent list if `building`
 * is still at most v + 1 afterwards.
 */
struct weir_rules {
    _Alignas(
        64) _Atomic int64_t ends_ns; /* publish: when the last rule expires; 0: there is no rule */
    _Atomic uint64_t version;        /* publish: changes so far */
    _Atomic uint64_t building;       /* publish: the version that is being built, or was last */
    _Alignas(64) pthread_mutex_t mutex; /* process-shared and robust (memory://: a plain one) */
};

/*
 * A rule and its client. Rules are sorted: IPv4, IPv6, names; by address; wider before narrower.
 */
struct weir_rule_entry {
    struct weir_address first; /* writer: of a name: `high` is its hash */
    int64_t since_ns;          /* writer */
    uint32_t name_at;          /* writer: offset in the names */
    uint16_t name_len;         /* writer: 0: only the hash is stored, or an address */
    uint8_t family;            /* writer: enum weir_family */
    uint8_t prefix;            /* writer */
    int32_t kind;              /* writer: enum weir_rule_kind */
    uint32_t pad;
};

_Static_assert(sizeof(struct weir_rule_entry) == 40, "byte map");

/*
 * The mark of a range: its prefix, and whether it allows, has an end, and lies in a wider range.
 * Most lookups read nothing else of a rule.
 */
#define WEIR_MARK_PREFIX 0x00ffu
#define WEIR_MARK_ALLOWS 0x0100u
#define WEIR_MARK_ENDS 0x0200u
#define WEIR_MARK_WIDER 0x0400u

/* Keys are searched in groups of WEIR_GROUP. A group of IPv4 keys is one cache line. */
#define WEIR_FAN 4u
#define WEIR_GROUP (1u << WEIR_FAN)

/* A group of IPv6 keys. Most searches read only the upper halves: two cache lines. */
struct weir_rule_wides {
    _Alignas(64) _Atomic uint64_t high[WEIR_GROUP]; /* writer */
    _Atomic uint64_t low[WEIR_GROUP];               /* writer */
};

/* An exact name: its hash, its rule's number + 1 (0: free), and ALLOWS and ENDS of a mark. */
struct weir_rule_slot {
    _Atomic uint64_t hash;   /* writer */
    _Atomic uint32_t number; /* writer */
    _Atomic uint32_t mark;   /* writer */
};

struct weir_rules_copy {
    _Alignas(64) _Atomic uint32_t ranges_4; /* writer: the first rules of the list */
    _Atomic uint32_t ranges_6;              /* writer: those after them */
    _Atomic uint32_t slots;                 /* writer */
    uint32_t rules;                         /* writer */
    uint32_t name_bytes;                    /* writer */
    uint32_t pad;
    int64_t ends_ns; /* writer: the latest end of its rules */
};

void weir_rules_plan(struct weir_rules_plan *plan, uint32_t capacity);

/* Size of the section for `capacity` rules. */
size_t weir_rules_bytes(uint32_t capacity);

/* Makes zeroed memory an empty list. */
void weir_rules_init(void *section, uint32_t capacity);

/*
 * Initializes the section's lock: at creation, when alone with an old table, and in a forked child
 * with a private one. The state after a crash needs no repair. 0 or WEIR_E….
 */
int weir_rules_repair(struct weir_table *table);

/*
 * Verifies the section. All of the table's own locks are held. 0, or WEIR_ECORRUPT with a message.
 */
int weir_rules_check(struct weir_table *table, struct weir_error *error);

/* Whether any rule may apply at this time: one relaxed load. */
static inline bool weir_rules_any(const struct weir_table *table, int64_t now_ns) {
    return now_ns < atomic_load_explicit(&table->rules->ends_ns, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------ lookup.c */

/* The rule that applies to a client. */
struct weir_rule_match {
    int32_t kind;     /* enum weir_rule_kind */
    uint32_t number;  /* of the rule in the list */
    int64_t until_ns; /* WEIR_NEVER: no expiry */
};

/*
 * The rule of a client at this time. Takes no lock, except after many attempts that collided with
 * changes.
 */
struct weir_rule_match weir_rules_match_client(struct weir_table *table, const void *client,
                                               size_t len, int64_t now_ns);

/*
 * The same for an address, or for a name's hash (`address->high`, family NONE), in one of the
 * copies.
 */
struct weir_rule_match weir_rules_lookup(const struct weir_table *table, uint64_t version,
                                         const struct weir_address *address,
                                         enum weir_family family, int64_t now_ns);

/* The verdict of a limit for a client whose rule decides. */
void weir_rules_verdict(const struct weir_limit *limit, int64_t now_ns,
                        const struct weir_rule_match *match, struct weir_verdict *verdict);

/* -------------------------------------------------------------------------------- index.c */

static inline struct weir_rules_copy *weir_rules_copy(const struct weir_table *table,
                                                      uint64_t version) {
    return (struct weir_rules_copy *)((char *)table->rules + sizeof(struct weir_rules) +
                                      (version & 1) * table->rules_plan.copy_bytes);
}

static inline void *weir_rules_at(const struct weir_rules_copy *copy, size_t offset) {
    return (char *)(uintptr_t)copy + offset;
}

static inline struct weir_rule_entry *weir_rules_entries(const struct weir_table *table,
                                                         const struct weir_rules_copy *copy) {
    return weir_rules_at(copy, table->rules_plan.entry_at);
}

/* The end of each rule; WEIR_NEVER: no expiry. */
static inline _Atomic int64_t *weir_rules_ends(const struct weir_table *table,
                                               const struct weir_rules_copy *copy) {
    return weir_rules_at(copy, table->rules_plan.end_at);
}

/* For each range, the number + 1 of the next wider range that contains it; 0: none. */
static inline _Atomic uint32_t *weir_rules_wider(const struct weir_table *table,
                                                 const struct weir_rules_copy *copy) {
    return weir_rules_at(copy, table->rules_plan.wider_at);
}

static inline char *weir_rules_names(const struct weir_table *table,
                                     const struct weir_rules_copy *copy) {
    return weir_rules_at(copy, table->rules_plan.name_at);
}

/* Compares two rules by their order: negative, 0 (the same client), or positive. */
int weir_rules_compare(const struct weir_rule_entry *a, const struct weir_rule_entry *b);

/* Whether the rule `number` exists and is valid. */
bool weir_rule_sound(const struct weir_table *table, const struct weir_rules_copy *copy,
                     uint32_t number);

/* Whether the list of a copy is valid: each rule is valid, and they are in order. */
bool weir_rules_sound(const struct weir_table *table, const struct weir_rules_copy *copy);

/* Builds the index of a copy's list. */
void weir_rules_build(const struct weir_table *table, struct weir_rules_copy *copy);

/* -------------------------------------------------------------------------------- edit.c */

/* The mutex. 0, WEIR_EBUSY or WEIR_ECORRUPT. */
int weir_rules_lock(struct weir_table *table);
void weir_rules_unlock(struct weir_table *table);

#endif
