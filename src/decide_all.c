/*
 * Decisions: the common part of weir_decide() and weir_decide_prepared().
 *
 * Both create items, which one evaluator decides (by_limits.h). If any rule can apply, rules come
 * first: a blocked client denies the whole decision; items of allowed clients are left out, and the
 * limits decide the others. Usually all items have the same client.
 */
#include <string.h>

#include "by_limits.h"
#include "checks.h"
#include "prepared.h"
#include "rules/rules.h"
#include "stats/stats.h"
#include "table/hash_cache.h"

static struct weir_outcome outcome_of(const void *items, uint32_t i) {
    const struct weir_item *item = (const struct weir_item *)items + i;
    return (struct weir_outcome){item->limit, item->verdict};
}

INLINE void choose(const struct decision *q, int rule, struct weir_decision *decision) {
    uint32_t deciding = weir_deciding(q->item, q->enforced ? q->enforced : q->n, outcome_of);
    *decision =
        (struct weir_decision){.allowed = q->enforced ? q->item[deciding].verdict->allowed : 1,
                               .deciding = q->item[deciding].index,
                               .rule = rule};
}

/* ---------------------------------------------------------------------------------------- rules */

struct matches {
    struct weir_rule_match of[WEIR_CHECKS_MAX];
    int kind; /* of the whole decision */
};

static bool same_client(const struct weir_item *a, const struct weir_item *b) {
    return a->client_len == b->client_len &&
           (a->client == b->client || memcmp(a->client, b->client, a->client_len) == 0);
}

/* Finds the rule of each item's client, and the rule that decides all enforced items, if any. */
static void find_matches(const struct decision *q, struct matches *matches) {
    uint32_t allowed = 0;
    bool blocked = false;
    for (uint32_t i = 0; i < q->n; i++) {
        const struct weir_item *item = &q->item[i];
        if (item->client_len == 0)
            matches->of[i] = (struct weir_rule_match){.kind = WEIR_RULE_NONE};
        else if (i > 0 && q->item[i - 1].client_len > 0 && same_client(item, item - 1))
            matches->of[i] = matches->of[i - 1];
        else
            matches->of[i] =
                weir_rules_match_client(q->table, item->client, item->client_len, q->now_ns);
        if (i >= q->enforced)
            continue;
        blocked |= matches->of[i].kind == WEIR_RULE_BLOCK;
        allowed += matches->of[i].kind == WEIR_RULE_ALLOW;
    }
    matches->kind = blocked                                 ? WEIR_RULE_BLOCK
                    : q->enforced && allowed == q->enforced ? WEIR_RULE_ALLOW
                                                            : WEIR_RULE_NONE;
}

/* Writes the verdicts of all enforced items: denied until the last block expires, or allowed. */
static void write_rule_verdicts(const struct decision *q, const struct matches *matches) {
    struct weir_rule_match match = {.kind = matches->kind};
    for (uint32_t i = 0; i < q->enforced; i++)
        if (matches->of[i].kind == match.kind && matches->of[i].until_ns > match.until_ns)
            match.until_ns = matches->of[i].until_ns;
    for (uint32_t i = 0; i < q->enforced; i++)
        weir_rules_verdict(q->item[i].limit, q->now_ns, &match, q->item[i].verdict);
}

/*
 * The limits decide the items that no rule decides. `rule_decided`: a rule has decided all enforced
 * items.
 */
static int decide_rest(struct decision *q, const struct matches *matches, bool rule_decided) {
    struct decision rest;
    rest.table = q->table;
    rest.now_ns = q->now_ns;
    rest.mode = q->mode;
    rest.n = rest.enforced = 0;
    rest.refused = rule_decided && matches->kind == WEIR_RULE_BLOCK;
    for (uint32_t i = 0; i < q->n; i++) {
        if (rule_decided && i < q->enforced)
            continue;
        if (matches->of[i].kind != WEIR_RULE_NONE) {
            weir_rules_verdict(q->item[i].limit, q->now_ns, &matches->of[i], q->item[i].verdict);
            continue;
        }
        rest.item[rest.n++] = q->item[i];
        rest.enforced += i < q->enforced;
    }
    return rest.n == 0 ? 0 : by_limits(&rest);
}

/*
 * Counts the verdicts of rules in the statistics. *counted: at least one is counted, so the
 * decision must not be repeated.
 */
static int count_rule_verdicts(const struct decision *q, bool *counted) {
    int rc = 0;
    *counted = false;
    for (uint32_t i = 0; i < q->enforced && rc == 0; i++) {
        const struct weir_item *item = &q->item[i];
        if (item->label == 0 || (item->verdict->allowed && item->role != WEIR_ROLE_CHARGED))
            continue;
        struct weir_stats_hit hit = {.client = item->client,
                                     .client_len = item->client_len,
                                     .label = (uint32_t)item->label,
                                     .fingerprint = item->fingerprint,
                                     .stripe = weir_cell_stripe(q->table, item->fingerprint),
                                     .allowed = item->verdict->allowed,
                                     .now_ns = q->now_ns};
        rc = weir_stats_record_one(q->table, &hit, item->verdict);
        *counted |= rc == 0;
    }
    return rc;
}

static __attribute__((noinline)) int decide_with_rules(struct decision *q, int *kind) {
    struct matches matches;
    find_matches(q, &matches);
    *kind = matches.kind;
    if (matches.kind != WEIR_RULE_NONE)
        write_rule_verdicts(q, &matches);
    if (matches.kind == WEIR_RULE_NONE)
        return decide_rest(q, &matches, false);
    bool counted = false;
    if (q->mode != WEIR_TEST && count_rule_verdicts(q, &counted) == WEIR_EBUSY && !counted &&
        weir_must_not_sleep && weir_must_not_sleep())
        return WEIR_EBUSY;                /* the caller repeats it where it may wait */
    (void)decide_rest(q, &matches, true); /* shadow limits; an error changes nothing */
    return 0;
}

int weir_rules_match(struct weir_table *table, const struct weir_check *checks, size_t n,
                     int64_t now_ns, struct weir_verdict *verdicts,
                     struct weir_decision *decision) {
    struct decision q = {.table = table, .now_ns = now_ns, .enforced = (uint32_t)n};
    struct matches matches;
    int rc = table ? weir_checks_validate(checks, n) : WEIR_EINVAL;
    if (rc < 0)
        return rc;
    if (!verdicts || now_ns < 0 || now_ns > WEIR_NOW_MAX)
        return WEIR_EINVAL;
    if (!weir_rules_any(table, now_ns))
        return 0;
    for (q.n = 0; q.n < n; q.n++)
        q.item[q.n] = (struct weir_item){.limit = checks[q.n].limit,
                                         .verdict = &verdicts[q.n],
                                         .client = checks[q.n].client,
                                         .client_len = checks[q.n].client_len,
                                         .index = (uint8_t)q.n};
    find_matches(&q, &matches);
    if (matches.kind == WEIR_RULE_NONE)
        return weir_result(table, 0);
    write_rule_verdicts(&q, &matches);
    if (decision)
        choose(&q, matches.kind, decision);
    return weir_result(table, 1);
}

/* ------------------------------------------------------------------------------------ decisions */

static inline __attribute__((always_inline)) int decide(struct decision *q,
                                                        struct weir_decision *decision) {
    int rc, rule = WEIR_RULE_NONE;
    if (__builtin_expect(weir_rules_any(q->table, q->now_ns) && q->mode != WEIR_REFUND, 0))
        rc = decide_with_rules(q, &rule);
    else
        rc = by_limits(q);
    if (rc == 0 && decision)
        choose(q, rule, decision);
    return weir_result(q->table, rc);
}

static inline int begin(struct weir_table *table) {
    return table->backing == WEIR_BACKING_MEMORY ? weir_after_fork(table) : weir_result(table, 0);
}

int weir_decide(struct weir_table *table, const struct weir_check *checks, size_t n, int64_t now_ns,
                enum weir_mode mode, struct weir_verdict *verdicts,
                struct weir_decision *decision) {
    int rc = table ? weir_checks_validate(checks, n) : WEIR_EINVAL;
    if (rc == 0 &&
        (!verdicts || now_ns < 0 || now_ns > WEIR_NOW_MAX || (unsigned)mode > WEIR_REFUND))
        rc = WEIR_EINVAL;
    if (rc == 0)
        rc = begin(table);
    if (rc < 0)
        return rc;
    struct decision q;
    q.table = table;
    q.now_ns = now_ns;
    q.mode = mode;
    q.refused = false;
    q.n = q.enforced = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        const struct weir_check *check = &checks[i];
        struct weir_item *item = &q.item[i];
        item->limit = check->limit;
        item->cost = check->cost;
        item->verdict = &verdicts[i];
        item->client = check->client;
        item->client_len = check->client_len;
        item->label = check->label;
        item->charged = !(check->flags & WEIR_CHECK_PEEK);
        item->role = item->charged ? WEIR_ROLE_CHARGED : WEIR_ROLE_DEFERRED;
        item->index = (uint8_t)i;
        weir_fingerprint(table, check->key, check->key_len, check->limit, item->fingerprint);
    }
    return decide(&q, decision);
}

/* ------------------------------------------------------------------------------ prepared checks */

/* What the parts of one request share. */
struct part_context {
    const struct weir_prepared *prepared;
    const struct weir_request *request;
    struct weir_verdict *verdicts;
    bool settle;
    bool cacheable;           /* the client's fingerprints may be in the hash cache */
    struct weir_words client; /* if so */
};

static __attribute__((noinline)) int hash_key(struct weir_table *table, uint64_t owner,
                                              const struct weir_prepared_part *part,
                                              const struct weir_part_values *values,
                                              uint64_t fingerprint[2]) {
    const struct weir_key_parts key = {.owner = owner,
                                       .before = {part->before, part->before_len},
                                       .client = values->client,
                                       .after = values->after,
                                       .len = values->key_len};
    return weir_fingerprint_parts(table, &key, &part->limit, fingerprint);
}

/* Makes an item of part `i`. */
INLINE int add_item(struct decision *q, struct part_context *context, uint32_t i) {
    const struct weir_prepared_part *part = &context->prepared->part[i];
    const struct weir_request *request = context->request;
    struct weir_item *item = &q->item[q->n++];
    struct weir_part_values values;
    item->limit = &part->limit;
    item->verdict = &context->verdicts[i];
    item->label = part->label;
    item->role =
        context->settle && part->role != WEIR_ROLE_SHADOW ? WEIR_ROLE_CHARGED : (uint8_t)part->role;
    item->charged = weir_role_charges(item->role);
    item->index = (uint8_t)i;
    item->cost = part->cost;
    item->client = request->client.bytes;
    item->client_len = request->client.len;
    if (context->cacheable) {
        context->client.owner = part->owner;
        if (weir_recall(weir_hash_cache_entry(q->table, &context->client), &context->client,
                        item->fingerprint))
            return 0;
    }
    if (!weir_prepared_values(context->prepared, request, i, &values))
        return WEIR_EINVAL;
    item->cost = values.cost;
    item->client = values.client.bytes;
    item->client_len = values.client.len;
    return hash_key(q->table, values.replaced ? 0 : part->owner, part, &values, item->fingerprint);
}

INLINE int decide_parts(struct weir_table *table, const struct weir_prepared *prepared,
                        const struct weir_request *request, uint32_t mask, bool settle,
                        struct weir_verdict *verdicts, struct weir_decision *decision) {
    struct decision q;
    struct part_context context;
    int rc = begin(table);
    context.prepared = prepared;
    context.request = request;
    context.verdicts = verdicts;
    context.settle = settle;
    context.cacheable = !request->clients && !request->after && !request->costs &&
                        request->client.bytes && weir_may_remember(request->client.len);
    context.client = context.cacheable
                         ? weir_words_of(0, request->client.bytes, request->client.len)
                         : (struct weir_words){.owner = 0};
    q.table = table;
    q.now_ns = request->now_ns;
    q.mode = (enum weir_mode)request->mode;
    q.n = 0;
    q.refused = false;
    for (uint32_t rest = mask & ~prepared->shadow; rest && rc == 0; rest &= rest - 1)
        rc = add_item(&q, &context, (uint32_t)__builtin_ctz(rest));
    q.enforced = q.n;
    for (uint32_t rest = mask & prepared->shadow; rest && rc == 0; rest &= rest - 1)
        rc = add_item(&q, &context, (uint32_t)__builtin_ctz(rest));
    return rc < 0 ? rc : decide(&q, decision);
}

static inline bool is_request(const struct weir_table *table, const struct weir_prepared *prepared,
                              const struct weir_request *request,
                              const struct weir_verdict *verdicts) {
    return table && prepared && request && verdicts && request->now_ns >= 0 &&
           request->now_ns <= WEIR_NOW_MAX && (uint32_t)request->mode <= WEIR_REFUND &&
           (request->parts & ~prepared->all) == 0;
}

int weir_decide_prepared(struct weir_table *table, const struct weir_prepared *prepared,
                         const struct weir_request *request, struct weir_verdict *verdicts,
                         struct weir_decision *decision) {
    if (!is_request(table, prepared, request, verdicts))
        return WEIR_EINVAL;
    return decide_parts(table, prepared, request, request->parts ? request->parts : prepared->all,
                        false, verdicts, decision);
}

int weir_settle_prepared(struct weir_table *table, const struct weir_prepared *prepared,
                         const struct weir_request *request, struct weir_verdict *verdicts,
                         struct weir_decision *decision) {
    if (!is_request(table, prepared, request, verdicts))
        return WEIR_EINVAL;
    uint32_t mask = request->parts ? request->parts : prepared->deferred;
    if (mask == 0 || (request->mode != WEIR_EACH && request->mode != WEIR_REFUND))
        return WEIR_EINVAL;
    return decide_parts(table, prepared, request, mask, true, verdicts, decision);
}
