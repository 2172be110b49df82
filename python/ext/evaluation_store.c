/*
 * Evaluation for stores other than a local table: its checks, and the verdicts of a store's
 * Decision. Rules and statistics are those of the check's table.
 */
#include "evaluation_store.h"

#include "clock.h"
#include "decision.h"
#include "errors.h"
#include "evaluation.h"
#include "key.h"
#include "lost.h"
#include "prepared_check.h"
#include "rules/rules.h"
#include "stats/stats.h"
#include "table.h"
#include "values.h"
#include "weir/stats.h"

#define SELF(object) ((struct core_evaluation *)(object))

/* Appends the key of part i. Stores the offset of the client in the check. */
static int append_key(const struct core_evaluation *self, struct core_key *key, Py_ssize_t i,
                      size_t *client, size_t *client_len) {
    const struct core_part *part = &self->check->part[i];
    PyObject *name = self->item[part->key_index].client, *scope = self->item[i].scope;
    *client = key->len;
    if (name && core_key_identifier(key, name) < 0)
        return -1;
    *client_len = key->len - *client;
    if (scope)
        return core_key_append(key, "/", 1) < 0 ? -1 : core_key_identifier(key, scope);
    return core_key_append(key, PyBytes_AS_STRING(part->after),
                           (size_t)PyBytes_GET_SIZE(part->after));
}

int core_evaluation_expand(const struct core_evaluation *self, struct core_expanded *expanded,
                           uint32_t parts, bool marked) {
    size_t client[WEIR_CHECKS_MAX], client_len[WEIR_CHECKS_MAX];
    struct core_key *keys = &expanded->keys;
    core_key_init(keys);
    expanded->count = 0;
    for (Py_ssize_t i = 0; i < self->check->count; i++) {
        if (!(parts & CORE_PART_BIT(i)))
            continue;
        const struct core_part *part = &self->check->part[i];
        int n = expanded->count++;
        expanded->start[n] = keys->len;
        expanded->part[n] = (uint8_t)i;
        if (core_prepared_before(self->check, keys, part, marked) < 0 ||
            append_key(self, keys, i, &client[n], &client_len[n]) < 0)
            return -1;
        expanded->check[n] = (struct weir_check){
            .limit = &part->limit->limit,
            .key_len = keys->len - expanded->start[n],
            .cost = self->item[i].cost,
            .client_len = client_len[n],
            .label = part->label,
            .flags = part->role == WEIR_ROLE_CHARGED ? 0 : WEIR_CHECK_PEEK,
        };
        if (core_key_within_bounds(expanded->check[n].key_len) < 0)
            return -1;
    }
    for (int n = 0; n < expanded->count; n++) {
        expanded->check[n].key = keys->data + expanded->start[n];
        expanded->check[n].client = keys->data + client[n];
    }
    return 0;
}

void core_expanded_free(struct core_expanded *expanded) {
    core_key_free(&expanded->keys);
}

PyObject *evaluation_rule(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts;
    int64_t now_ns = core_now(self->check->state);
    if (evaluation_read_mask(self, argument, &parts) < 0 || now_ns < 0 ||
        !core_table_borrow(self->check->table))
        return NULL;
    if (!weir_rules_any(self->check->table->table, now_ns) || parts == 0)
        Py_RETURN_FALSE;
    struct core_expanded expanded;
    struct weir_verdict verdict[WEIR_CHECKS_MAX];
    struct weir_decision decision;
    int rc = core_evaluation_expand(self, &expanded, parts, true);
    if (rc == 0 && core_table_borrow(self->check->table)) {
        rc = weir_rules_match(self->check->table->table, expanded.check, (size_t)expanded.count,
                              now_ns, verdict, &decision);
        if (rc < 0)
            core_raise(self->check->state, rc, NULL);
    }
    for (int n = 0; rc > 0 && n < expanded.count; n++)
        self->item[expanded.part[n]].verdict = verdict[n];
    core_expanded_free(&expanded);
    if (rc < 0 || PyErr_Occurred())
        return NULL;
    if (rc > 0) {
        self->rule = decision.rule;
        self->now_ns = now_ns;
    }
    return PyBool_FromLong(rc);
}

/* Counts parts whose verdicts are known in the statistics of the table. 0 or WEIR_E.... */
static int record_parts(struct core_evaluation *self, struct core_expanded *expanded, bool shadow,
                        bool settled) {
    struct core_table *of = self->check->table;
    struct weir_table *table = of->table;
    struct weir_verdict verdict[WEIR_CHECKS_MAX];
    int64_t now_ns = self->now_ns;
    int rc = 0;
    size_t done = 0;
    for (int n = 0; n < expanded->count; n++) {
        verdict[n] = self->item[expanded->part[n]].verdict;
        if (settled)
            expanded->check[n].flags = 0;
    }
    if (self->check->mode != WEIR_EACH && !shadow && !settled) {
        CORE_PATIENTLY(of, rc,
                       weir_stats_record_from(table, expanded->check, (size_t)expanded->count,
                                              now_ns, verdict, 0, &done));
        return rc;
    }
    /*
     * Parts that allowed it were charged, even if others denied. The table may be closed in
     * between.
     */
    for (int n = 0; n < expanded->count && rc == 0 && of->table == table; n++)
        CORE_PATIENTLY(
            of, rc, weir_stats_record(table, &expanded->check[n], 1, now_ns, &verdict[n], shadow));
    return rc;
}

PyObject *evaluation_record(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts;
    int shadow = nargs >= 2 && nargs <= 3 ? PyObject_IsTrue(args[1]) : -1;
    int settled = nargs == 3 ? PyObject_IsTrue(args[2]) : 0;
    if (shadow < 0 || settled < 0 || evaluation_read_mask(self, args[0], &parts) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "record() takes a mask of parts and a truth value");
        return NULL;
    }
    if (!shadow)
        parts &= self->check->labels;
    if (parts == 0)
        Py_RETURN_NONE;
    struct core_expanded expanded;
    core_prepared_relabel(self->check);
    int rc = core_evaluation_expand(self, &expanded, parts, true);
    bool open = rc == 0 && core_table_borrow(self->check->table);
    if (open && (rc = record_parts(self, &expanded, shadow, settled)) < 0)
        core_raise(self->check->state, rc, NULL);
    core_expanded_free(&expanded);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* The key of a part for stores: prefix, client, scope. New reference to a str. */
PyObject *evaluation_key_of(const struct core_evaluation *self, Py_ssize_t i) {
    struct core_key key;
    size_t client, client_len;
    PyObject *text = NULL, *prefix = self->check->prefix;
    core_key_init(&key);
    if (core_key_append(&key, PyBytes_AS_STRING(prefix), (size_t)PyBytes_GET_SIZE(prefix)) == 0 &&
        append_key(self, &key, i, &client, &client_len) == 0 &&
        core_key_within_bounds(key.len) == 0)
        text = PyUnicode_DecodeUTF8(key.data, (Py_ssize_t)key.len, "surrogateescape");
    core_key_free(&key);
    return text;
}

PyObject *evaluation_checks(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts;
    if (evaluation_read_mask(self, argument, &parts) < 0)
        return NULL;
    PyObject *lists[4] = {NULL};
    int rc = 0;
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = (lists[i] = PyList_New(0)) ? 0 : -1;
    for (Py_ssize_t i = 0; i < self->check->count && rc == 0; i++)
        if (parts & CORE_PART_BIT(i) &&
            (core_list_add(lists[0], PyLong_FromSsize_t(i)) < 0 ||
             PyList_Append(lists[1], (PyObject *)self->check->part[i].limit) < 0 ||
             core_list_add(lists[2], evaluation_key_of(self, i)) < 0 ||
             core_list_add(lists[3], PyLong_FromLongLong(self->item[i].cost)) < 0))
            rc = -1;
    PyObject *result = rc == 0 ? PyTuple_Pack(4, lists[0], lists[1], lists[2], lists[3]) : NULL;
    for (int i = 0; i < 4; i++)
        Py_XDECREF(lists[i]);
    return result;
}

PyObject *evaluation_keep(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_evaluation *self = SELF(object);
    struct core_state *state = self->check->state;
    if (nargs != 3 || !(PyList_Check(args[0]) || PyLong_Check(args[0])) ||
        Py_TYPE(args[1]) != state->decision_type) {
        PyErr_SetString(PyExc_TypeError,
                        "keep() takes a list or mask of parts, a Decision and a truth value");
        return NULL;
    }
    const struct core_decision *decision = (const struct core_decision *)args[1];
    int settling = PyObject_IsTrue(args[2]);
    if (settling < 0)
        return NULL;
    uint32_t mask = 0;
    if (PyLong_Check(args[0]) && evaluation_read_mask(self, args[0], &mask) < 0)
        return NULL;
    Py_ssize_t given = PyLong_Check(args[0]) ? __builtin_popcount(mask) : PyList_GET_SIZE(args[0]);
    if (given != Py_SIZE(decision)) {
        PyErr_Format(PyExc_ValueError, "a decision of %zd limits for %zd", Py_SIZE(decision),
                     given);
        return NULL;
    }
    for (Py_ssize_t j = 0; j < given; j++) {
        Py_ssize_t i = mask ? __builtin_ctz(mask) : PyLong_AsSsize_t(PyList_GET_ITEM(args[0], j));
        mask &= mask - 1;
        if (i < 0 || i >= self->check->count) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_IndexError, "there is no such part");
            return NULL;
        }
        if (!settling || decision->verdict[j].allowed)
            self->item[i].verdict = decision->verdict[j];
    }
    self->now_ns = decision->now_ns;
    if (decision->decision.rule && !settling)
        self->rule = decision->decision.rule;
    return PyBool_FromLong(decision->decision.allowed);
}
