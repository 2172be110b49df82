/*
 * Changes and reads the list of rules.
 *
 * Each change writes the whole next list and its index into the unused copy, and publishes it by
 * one store: see struct weir_rules. This is linear in the number of rules, even for a small change,
 * so set many rules by one weir_rules_load(). If a writer is killed, the list is the old one before
 * that store, and the new one after it.
 *
 * Expired rules stay until their space is needed. Expiry is evaluated with the caller's `now`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform.h"
#include "error.h"
#include "rules/rules.h"
#include "table/hash.h"

#define HASH_NAME 17 /* "#" and 16 hexadecimal digits */
#define relaxed memory_order_relaxed

/* ------------------------------------------------------------------------------------- the lock */

static int begin(struct weir_table *table, struct weir_error *error) {
    int rc = table->backing == WEIR_BACKING_MEMORY ? weir_after_fork(table) : weir_result(table, 0);
    if (rc == 0)
        rc = weir_rules_lock(table);
    return rc < 0 ? weir_fail(error, rc, 0, "%s: %s", table->name, weir_strerror(rc)) : 0;
}

/* The result of a call that has read the table. */
static int finish(const struct weir_table *table, int rc, struct weir_error *error) {
    return weir_is_cut(table)
               ? weir_fail(error, WEIR_EFORMAT, 0, "%s: truncated; remove it", table->name)
               : rc;
}

/* ------------------------------------------------------------------------------------- a change */

struct change {
    struct weir_rule_entry entry; /* without the place of its name */
    const char *name;             /* name_len bytes; borrowed */
    int64_t until_ns;
    int32_t kind;   /* WEIR_RULE_NONE: the rule is removed */
    uint32_t order; /* in the list of the caller */
};

static int hex_value(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads "#0123456789abcdef", a client that is given by its hash. */
static bool read_hash(const char *text, size_t len, uint64_t *hash) {
    if (len != HASH_NAME || text[0] != '#')
        return false;
    *hash = 0;
    for (size_t i = 1; i < len; i++) {
        int digit = hex_value(text[i]);
        if (digit < 0)
            return false;
        *hash = *hash << 4 | (uint64_t)digit;
    }
    return true;
}

/* Parses the client of a rule. */
static int read_client(const struct weir_table *table, const char *text, size_t len,
                       struct change *change, struct weir_error *error) {
    struct weir_range range;
    if (!text || len == 0 || len > WEIR_RULE_CLIENT_MAX)
        return weir_fail(error, WEIR_EINVAL, 0, "a rule's client has 1 to %d bytes, not %zu",
                         WEIR_RULE_CLIENT_MAX, text ? len : 0);
    memset(change, 0, sizeof *change);
    if (read_hash(text, len, &change->entry.first.high))
        return 0;
    int rc = weir_range_parse(text, len, &range, error);
    if (rc < 0)
        return rc;
    change->entry.family = range.family;
    change->entry.prefix = range.prefix;
    change->entry.first = range.first;
    if (range.family == WEIR_FAMILY_NONE) {
        change->entry.first.high = weir_client_hash(table, text, len);
        change->entry.name_len = (uint16_t)len;
        change->name = text;
    }
    return 0;
}

static int read_rule(const struct weir_table *table, const char *text, size_t len, int kind,
                     int64_t since_ns, int64_t until_ns, struct change *change,
                     struct weir_error *error) {
    if (kind != WEIR_RULE_BLOCK && kind != WEIR_RULE_ALLOW)
        return weir_fail(error, WEIR_EINVAL, 0, "a rule blocks or allows: there is no kind %d",
                         kind);
    if (since_ns < 0 || since_ns > WEIR_NOW_MAX)
        return weir_fail(error, WEIR_EINVAL, 0, "now is out of its range");
    if (until_ns != WEIR_NEVER && (until_ns <= since_ns || until_ns > WEIR_NOW_MAX))
        return weir_fail(
            error, WEIR_EINVAL, 0,
            "a rule must end after now and before the year 2116, or never: its end is a "
            "time since 1970, not a duration");
    int rc = read_client(table, text, len, change, error);
    change->entry.since_ns = since_ns;
    change->until_ns = until_ns;
    change->kind = kind;
    return rc;
}

static int compare_changes(const void *a, const void *b) {
    const struct change *x = a, *y = b;
    int order = weir_rules_compare(&x->entry, &y->entry);
    return order != 0 ? order : x->order < y->order ? -1 : 1;
}

/* Sorts the changes and keeps the last one for each client. Returns their number. */
static size_t sort_changes(struct change *changes, size_t count) {
    size_t kept = 0;
    qsort(changes, count, sizeof *changes, compare_changes);
    for (size_t i = 0; i < count; i++)
        if (i + 1 == count || weir_rules_compare(&changes[i].entry, &changes[i + 1].entry) != 0)
            changes[kept++] = changes[i];
    return kept;
}

/* ------------------------------------------------------------------------------------ the merge */

struct merge {
    struct weir_table *table;
    const struct weir_rules_copy *from;
    struct weir_rules_copy *to;
    int64_t drop_ns; /* drop rules that have ended at this time; negative: none */
    bool keep_since; /* an unchanged rule keeps its since_ns */
    bool only;       /* drop rules without a change */
    bool changed;
};

static int64_t until_of(const struct weir_table *table, const struct weir_rules_copy *copy,
                        uint32_t number) {
    return atomic_load_explicit(&weir_rules_ends(table, copy)[number], relaxed);
}

static int32_t kind_of(const struct weir_table *table, const struct weir_rules_copy *copy,
                       uint32_t number) {
    return weir_rules_entries(table, copy)[number].kind;
}

/* Appends a rule to the new list; false if there is no room. */
static bool append(struct merge *merge, const struct weir_rule_entry *entry, const char *name,
                   int64_t until_ns, int32_t kind) {
    const struct weir_rules_plan *plan = &merge->table->rules_plan;
    struct weir_rules_copy *to = merge->to;
    uint32_t number = to->rules;
    if (number == plan->capacity || entry->name_len > plan->name_bytes - to->name_bytes)
        return false;
    struct weir_rule_entry *made = &weir_rules_entries(merge->table, to)[number];
    *made = *entry;
    made->name_at = 0;
    if (entry->name_len > 0) {
        made->name_at = to->name_bytes;
        memcpy(weir_rules_names(merge->table, to) + to->name_bytes, name, entry->name_len);
        to->name_bytes += entry->name_len;
    }
    made->kind = kind;
    atomic_store_explicit(&weir_rules_ends(merge->table, to)[number], until_ns, relaxed);
    to->ends_ns = until_ns > to->ends_ns ? until_ns : to->ends_ns;
    to->rules++;
    return true;
}

static bool leave_out(struct merge *merge) {
    merge->changed = true;
    return true;
}

/* Copies a rule of the old list, or drops it if it has ended. */
static bool take_over(struct merge *merge, uint32_t number) {
    const struct weir_rule_entry *entry = &weir_rules_entries(merge->table, merge->from)[number];
    int64_t until_ns = until_of(merge->table, merge->from, number);
    if (until_ns <= merge->drop_ns)
        return leave_out(merge);
    return append(merge, entry, weir_rules_names(merge->table, merge->from) + entry->name_at,
                  until_ns, kind_of(merge->table, merge->from, number));
}

/* Applies a change. number: the old list's rule for the same client; UINT32_MAX: none. */
static bool apply(struct merge *merge, const struct change *change, uint32_t number) {
    struct weir_rule_entry entry = change->entry;
    const char *name = change->name;
    if (number != UINT32_MAX) {
        const struct weir_rule_entry *was = &weir_rules_entries(merge->table, merge->from)[number];
        bool same = change->kind == kind_of(merge->table, merge->from, number) &&
                    change->until_ns == until_of(merge->table, merge->from, number);
        if (same && merge->keep_since)
            return take_over(merge, number);
        if (entry.family == WEIR_FAMILY_NONE && entry.name_len == 0) { /* keep its name */
            entry.name_len = was->name_len;
            name = weir_rules_names(merge->table, merge->from) + was->name_at;
        }
    } else if (change->kind == WEIR_RULE_NONE) {
        return true;
    }
    merge->changed = true;
    return change->kind == WEIR_RULE_NONE ||
           append(merge, &entry, name, change->until_ns, change->kind);
}

/* Builds the new list from the old one and the sorted changes; false if there is no room. */
static bool merge_lists(struct merge *merge, const struct change *changes, size_t count) {
    const struct weir_rule_entry *old = weir_rules_entries(merge->table, merge->from);
    uint32_t number = 0, rules = merge->from->rules;
    size_t next = 0;
    merge->to->rules = merge->to->name_bytes = 0;
    merge->to->ends_ns = 0;
    merge->changed = false;
    while (number < rules || next < count) {
        int order = number == rules ? 1
                    : next == count ? -1
                                    : weir_rules_compare(&old[number], &changes[next].entry);
        bool fits = order < 0 ? (merge->only ? leave_out(merge) : take_over(merge, number))
                              : apply(merge, &changes[next], order == 0 ? number : UINT32_MAX);
        if (!fits)
            return false;
        number += order <= 0;
        next += order >= 0;
    }
    return true;
}

static int no_room(const struct weir_table *table, const struct weir_rules_copy *copy,
                   struct weir_error *error) {
    uint32_t capacity = table->rules_plan.capacity;
    if (copy->rules < capacity)
        return weir_fail(
            error, WEIR_ENOSPC, 0,
            "%s: the names of its rules fill all %u bytes; remove some rules, or create "
            "a larger table with ?rules=N",
            table->name, table->rules_plan.name_bytes);
    return weir_fail(
        error, WEIR_ENOSPC, 0,
        "%s: it has room for %u rules; remove some, or create a larger table with ?rules=N",
        table->name, capacity);
}

/* Publishes the new list. The change takes effect when `version` is stored. */
static void publish(struct weir_rules *rules, const struct weir_rules_copy *copy) {
    int64_t was_ns = atomic_load(&rules->ends_ns);
    atomic_store(&rules->ends_ns, was_ns > copy->ends_ns ? was_ns : copy->ends_ns);
    atomic_store(&rules->version, atomic_load(&rules->building));
    atomic_store(&rules->ends_ns, copy->ends_ns);
}

enum edit { SET, LOAD, REPLACE };

/* Applies sorted changes. The lock is held. Returns 1 if anything has changed, else 0. */
static int edit(struct weir_table *table, const struct change *changes, size_t count,
                int64_t now_ns, enum edit how, struct weir_error *error) {
    struct weir_rules *rules = table->rules;
    uint64_t version = atomic_load(&rules->version);
    struct merge merge = {.table = table,
                          .from = weir_rules_copy(table, version),
                          .to = weir_rules_copy(table, version + 1),
                          .drop_ns = -1,
                          .keep_since = how != SET,
                          .only = how == REPLACE};
    if (!weir_rules_sound(table, merge.from))
        return weir_fail(error, WEIR_ECORRUPT, 0, "%s: the list of rules is damaged", table->name);
    atomic_store(&rules->building, version + 1);
    atomic_thread_fence(memory_order_release);
    bool fits = merge_lists(&merge, changes, count);
    if (!fits) {
        merge.drop_ns = now_ns;
        fits = merge_lists(&merge, changes, count);
    }
    if (!fits)
        return no_room(table, merge.to, error);
    if (!merge.changed)
        return 0;
    weir_rules_build(table, merge.to);
    publish(rules, merge.to);
    return 1;
}

/* -------------------------------------------------------------------------------------- the API */

int weir_rules_set(struct weir_table *table, const void *client, size_t len, int kind,
                   int64_t since_ns, int64_t until_ns, struct weir_error *error) {
    struct change change;
    if (!table)
        return weir_fail(error, WEIR_EINVAL, 0, "no table");
    int rc = read_rule(table, client, len, kind, since_ns, until_ns, &change, error);
    if (rc == 0)
        rc = begin(table, error);
    if (rc < 0)
        return rc;
    rc = edit(table, &change, 1, since_ns, SET, error);
    weir_rules_unlock(table);
    return finish(table, rc < 0 ? rc : 0, error);
}

/*
 * Reads the rules that have not ended, and sets *count to their number. An error message has the
 * number of the invalid rule.
 */
static int read_rules(const struct weir_table *table, const struct weir_rule *rules, size_t *count,
                      int64_t now_ns, struct change *changes, struct weir_error *error) {
    size_t read = 0;
    for (size_t i = 0; i < *count; i++) {
        struct weir_error why;
        if (rules[i].until_ns >= 0 && rules[i].until_ns <= now_ns)
            continue;
        int rc = read_rule(table, rules[i].client, rules[i].client_len, rules[i].kind, now_ns,
                           rules[i].until_ns, &changes[read], &why);
        if (rc < 0)
            return weir_fail(error, rc, why.column, "rule %zu: %s", i + 1, why.message);
        changes[read].order = (uint32_t)i;
        read++;
    }
    *count = read;
    return 0;
}

static int load(struct weir_table *table, const struct weir_rule *rules, size_t count,
                int64_t now_ns, enum edit how, struct weir_error *error) {
    if (!table || (!rules && count > 0))
        return weir_fail(error, WEIR_EINVAL, 0, table ? "no rules" : "no table");
    if (now_ns < 0 || now_ns > WEIR_NOW_MAX || count > UINT32_MAX)
        return weir_fail(error, WEIR_EINVAL, 0,
                         count > UINT32_MAX ? "too many rules for any table"
                                            : "now is out of its range");
    struct change *changes = malloc((count + 1) * sizeof *changes);
    if (!changes)
        return weir_fail(error, WEIR_ENOMEM, 0, "%s: out of memory", table->name);
    int rc = read_rules(table, rules, &count, now_ns, changes, error);
    if (rc == 0)
        rc = begin(table, error);
    if (rc == 0) {
        count = sort_changes(changes, count);
        rc = edit(table, changes, count, now_ns, how, error);
        weir_rules_unlock(table);
    }
    free(changes);
    return finish(table, rc < 0 ? rc : 0, error);
}

int weir_rules_load(struct weir_table *table, const struct weir_rule *rules, size_t count,
                    int64_t now_ns, struct weir_error *error) {
    return load(table, rules, count, now_ns, LOAD, error);
}

int weir_rules_replace(struct weir_table *table, const struct weir_rule *rules, size_t count,
                       int64_t now_ns, struct weir_error *error) {
    return load(table, rules, count, now_ns, REPLACE, error);
}

int weir_rules_remove(struct weir_table *table, const void *client, size_t len,
                      struct weir_error *error) {
    struct change change;
    if (!table)
        return weir_fail(error, WEIR_EINVAL, 0, "no table");
    int rc = read_client(table, client, len, &change, error);
    if (rc == 0)
        rc = begin(table, error);
    if (rc < 0)
        return rc;
    rc = edit(table, &change, 1, 0, SET, error);
    weir_rules_unlock(table);
    return finish(table, rc, error);
}

/* Copies rule `number` of a copy into the caller's struct. The lock is held. */
static void describe(const struct weir_table *table, const struct weir_rules_copy *copy,
                     uint32_t number, struct weir_rule *rule) {
    const struct weir_rule_entry *entry = &weir_rules_entries(table, copy)[number];
    rule->kind = kind_of(table, copy, number);
    rule->since_ns = entry->since_ns;
    rule->until_ns = until_of(table, copy, number);
    if (entry->family != WEIR_FAMILY_NONE) {
        struct weir_range range = {
            .first = entry->first, .family = entry->family, .prefix = entry->prefix};
        rule->client_len = (uint32_t)weir_range_print(&range, rule->client, sizeof rule->client);
    } else if (entry->name_len > 0) {
        memcpy(rule->client, weir_rules_names(table, copy) + entry->name_at, entry->name_len);
        rule->client_len = entry->name_len;
    } else {
        rule->client_len = (uint32_t)snprintf(rule->client, sizeof rule->client, "#%016llx",
                                              (unsigned long long)entry->first.high);
    }
    rule->client[rule->client_len] = '\0';
}

int weir_rules_find(struct weir_table *table, const void *client, size_t len, int64_t now_ns,
                    struct weir_rule *rule) {
    struct weir_address address = {0, 0};
    if (!table || !client || len == 0 || now_ns < 0 || now_ns > WEIR_NOW_MAX)
        return WEIR_EINVAL;
    enum weir_family family = WEIR_FAMILY_NONE;
    if (!read_hash(client, len, &address.high)) {
        family = weir_client_address(client, len, &address);
        if (family == WEIR_FAMILY_NONE)
            address = (struct weir_address){weir_client_hash(table, client, len), 0};
    }
    int rc = begin(table, NULL);
    if (rc < 0)
        return rc;
    uint64_t version = atomic_load(&table->rules->version);
    const struct weir_rules_copy *copy = weir_rules_copy(table, version);
    struct weir_rule_match match = weir_rules_lookup(table, version, &address, family, now_ns);
    rc = match.kind;
    if (rc != WEIR_RULE_NONE && rule) {
        if (weir_rule_sound(table, copy, match.number))
            describe(table, copy, match.number, rule);
        else
            rc = WEIR_ECORRUPT;
    }
    weir_rules_unlock(table);
    return finish(table, rc, NULL);
}

int weir_rules_list(struct weir_table *table, struct weir_rule *rules, size_t *n) {
    if (!table || !n || (!rules && *n > 0))
        return WEIR_EINVAL;
    int rc = begin(table, NULL);
    if (rc < 0)
        return rc;
    const struct weir_rules_copy *copy =
        weir_rules_copy(table, atomic_load(&table->rules->version));
    if (weir_rules_sound(table, copy)) {
        for (uint32_t i = 0; i < copy->rules && i < *n; i++)
            describe(table, copy, i, &rules[i]);
        *n = copy->rules;
    } else {
        rc = WEIR_ECORRUPT;
    }
    weir_rules_unlock(table);
    return finish(table, rc, NULL);
}

uint64_t weir_rules_version(struct weir_table *table) {
    return table ? atomic_load(&table->rules->version) : 0;
}
