/*
 * Deciding a prepared check on a table.
 *
 * The parts that are no shadows are one decision, all or nothing. Each shadow part is a decision of its own,
 * which charges nothing if the request is denied, and never changes what the request is told.
 */
#include <stdlib.h>

#include "decide.h"
#include "prepared.h"
#include "rules/rules.h"
#include "stats/stats_layout.h"
#include "weir/board.h"

#define KEY_BYTES 2048 /* longer keys are made in allocated memory */

struct question {
    int n;
    bool shadow_only;
    uint8_t part[WEIR_CHECKS_MAX];
    struct weir_check check[WEIR_CHECKS_MAX];
    char *keys;
    char key[KEY_BYTES];
};

static int make(struct question *q, const struct weir_prepared *prepared,
                const struct weir_request *request, uint32_t mask, int shadow) {
    struct weir_request part = *request;
    size_t need = 0;
    part.parts = mask;
    q->keys = NULL;
    q->n = weir_prepared_checks(prepared, &part, shadow, q->key, sizeof q->key, q->check, q->part,
                                &need);
    if (q->n == WEIR_ENOSPC) {
        q->keys = malloc(need);
        if (!q->keys)
            return WEIR_ENOMEM;
        q->n =
            weir_prepared_checks(prepared, &part, shadow, q->keys, need, q->check, q->part, NULL);
    }
    return q->n < 0 ? q->n : 0;
}

static void hand_back(const struct question *q, const struct weir_verdict *said,
                      struct weir_verdict *verdicts) {
    for (int i = 0; i < q->n; i++)
        verdicts[q->part[i]] = said[i];
}

static const struct weir_ruling passed = {.kind = WEIR_RULE_ALLOW, .until_ns = WEIR_NEVER};

/*
 * Each shadow by itself; `mode` WEIR_TEST: nothing is charged or counted. The request is decided and charged
 * already, so a shadow that fails is reported as unused.
 */
static int decide_shadows(struct weir_table *table, struct question *q, int64_t now_ns,
                          enum weir_mode mode, struct weir_verdict *verdicts) {
    for (int i = 0; i < q->n; i++) {
        struct weir_check check = q->check[i];
        struct weir_decision decision;
        struct weir_verdict *verdict = &verdicts[q->part[i]];
        check.label = 0;
        int rc = weir_decide(table, &check, 1, now_ns, mode, verdict, &decision);
        if (rc < 0) {
            if (q->shadow_only)
                return rc;
            weir_rules_verdict(&check, now_ns, &passed, verdict);
            continue;
        }
        if ((mode == WEIR_HIT || mode == WEIR_EACH) && !verdict->allowed && !decision.rule)
            (void)weir_board_note(table, &q->check[i], 1, now_ns, verdict, 1);
    }
    return 0;
}

static void choose_shadow(const struct question *q, const struct weir_verdict *verdicts,
                          struct weir_decision *decision) {
    struct weir_verdict said[WEIR_CHECKS_MAX];
    for (int i = 0; i < q->n; i++)
        said[i] = verdicts[q->part[i]];
    weir_decide_choose(q->check, said, (uint32_t)q->n, decision);
    decision->allowed = 1;
    decision->deciding = q->part[decision->deciding];
}

static int decide_mask(struct weir_table *table, const struct weir_prepared *prepared,
                       const struct weir_request *request, uint32_t mask, bool settle,
                       struct weir_verdict *verdicts, struct weir_decision *decision) {
    struct weir_verdict said[WEIR_CHECKS_MAX];
    struct weir_decision one = {.allowed = 1};
    enum weir_mode mode = (enum weir_mode)request->mode;
    struct question q;
    int rc = 0;
    q.n = 0;
    if (mask & ~prepared->shadow) {
        rc = make(&q, prepared, request, mask, 0);
        for (int i = 0; i < q.n; i++) {
            if (settle)
                q.check[i].flags = 0;
            else if (prepared->part[q.part[i]].role == WEIR_ROLE_PEEKED)
                q.check[i].flags |= WEIR_CHECK_VETO;
        }
        if (rc == 0)
            rc =
                weir_decide_checked(table, q.check, (size_t)q.n, request->now_ns, mode, said, &one);
        if (rc == 0) {
            hand_back(&q, said, verdicts);
            one.deciding = q.part[one.deciding];
        }
        free(q.keys);
    }
    if (rc == 0 && (mask & prepared->shadow)) {
        rc = make(&q, prepared, request, mask, 1);
        q.shadow_only = !(mask & ~prepared->shadow);
        if (rc == 0)
            rc = decide_shadows(table, &q, request->now_ns,
                                !one.allowed && mode == WEIR_HIT ? WEIR_TEST : mode, verdicts);
        if (rc == 0 && q.shadow_only)
            choose_shadow(&q, verdicts, &one);
        free(q.keys);
    }
    if (rc == 0 && decision)
        *decision = one;
    return rc;
}

static int check_request(const struct weir_table *table, const struct weir_prepared *prepared,
                         const struct weir_request *request, const struct weir_verdict *verdicts) {
    return table && prepared && request && verdicts && request->now_ns >= 0 &&
                   request->now_ns <= WEIR_NOW_MAX && (uint32_t)request->mode <= WEIR_REFUND &&
                   (request->parts & ~prepared->all) == 0
               ? 0
               : WEIR_EINVAL;
}

int weir_decide_prepared(struct weir_table *table, const struct weir_prepared *prepared,
                         const struct weir_request *request, struct weir_verdict *verdicts,
                         struct weir_decision *decision) {
    int rc = check_request(table, prepared, request, verdicts);
    return rc < 0 ? rc
                  : decide_mask(table, prepared, request,
                                request->parts ? request->parts : prepared->all, false, verdicts,
                                decision);
}

int weir_settle_prepared(struct weir_table *table, const struct weir_prepared *prepared,
                         const struct weir_request *request, struct weir_verdict *verdicts,
                         struct weir_decision *decision) {
    int rc = check_request(table, prepared, request, verdicts);
    if (rc < 0)
        return rc;
    uint32_t mask = request->parts ? request->parts : prepared->deferred;
    if (mask == 0 || (request->mode != WEIR_EACH && request->mode != WEIR_REFUND))
        return WEIR_EINVAL;
    return decide_mask(table, prepared, request, mask, true, verdicts, decision);
}
