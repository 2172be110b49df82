/*
 * Evaluation: what one request makes of a prepared check.
 *
 * gather() calls the functions that say who is asking, whether a limit applies and what it costs;
 * decide() asks the table or the store; settle() charges or gives back what depends on the response.
 * The verdict of part i is item i in all of it.
 */
#include "prepared_check.h"

#include <stddef.h>
#include <strings.h>
#include <structmember.h>

#include "rules/rules.h"
#include "weir/stats.h"

#define SELF(object) ((struct core_evaluation *)(object))
#define BIT(i) (UINT32_C(1) << (i))

/* ---------------------------------------------------------------------------------- gathering */

/* Whether calling `function` gives something true; -1 with an exception. */
static int call_truth(PyObject *function) {
    PyObject *result = PyObject_CallNoArgs(function);
    int rc = result ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    return rc;
}

/* What a function returned as who is asking: a str or bytes; "" for nothing. New reference. */
static PyObject *as_who(PyObject *who) {
    if (PyUnicode_CheckExact(who) || PyBytes_CheckExact(who))
        return Py_NewRef(who);
    int something = PyObject_IsTrue(who);
    if (something < 0)
        return NULL;
    if (!something)
        return PyUnicode_New(0, 0);
    return PyBytes_Check(who) ? Py_NewRef(who) : PyObject_Str(who);
}

static int gather_who(struct core_evaluation *self, Py_ssize_t index) {
    PyObject *said = PyObject_CallNoArgs(self->check->key_func[index]);
    if (!said)
        return -1;
    self->item[index].who = as_who(said);
    Py_DECREF(said);
    return self->item[index].who ? 0 : -1;
}

static bool is_nothing(PyObject *who) {
    return PyUnicode_Check(who) ? PyUnicode_GET_LENGTH(who) == 0 : PyBytes_GET_SIZE(who) == 0;
}

/* Tells that a part has nobody to count. 0, or -1 with an exception. */
static int report_empty(struct core_evaluation *self, Py_ssize_t i, const char *what) {
    PyObject *on_empty = self->check->on_empty;
    PyObject *result =
        on_empty ? PyObject_CallFunction(on_empty, "ns", i, what) : Py_NewRef(Py_None);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/*
 * The cost of a part. One that no limit can have (negative, or 2^63 and more) is refused like one that is above
 * the limit, since a client may have a say in it.
 */
static int gather_cost(struct core_item *item, const struct core_part *part) {
    PyObject *cost = PyObject_CallNoArgs(part->cost_of);
    if (!cost)
        return -1;
    int rc = 0;
    if (PyLong_Check(cost)) { /* a bool, too: request.method == "POST" */
        int overflow;
        item->cost = PyLong_AsLongLongAndOverflow(cost, &overflow);
        if (overflow || item->cost < 0)
            item->cost = INT64_MAX;
    } else {
        rc = core_count(cost, "cost", &item->cost);
    }
    Py_DECREF(cost);
    return rc;
}

/* Gathers part i: 1 if it takes part, 0 if not, -1 with an exception. */
static int gather_part(struct core_evaluation *self, Py_ssize_t i) {
    const struct core_part *part = &self->check->part[i];
    struct core_item *item = &self->item[i];
    if (part->exempt_when) {
        int exempt = call_truth(part->exempt_when);
        if (exempt != 0)
            return exempt < 0 ? -1 : 0;
    }
    if (!self->item[part->who].who && gather_who(self, part->who) < 0)
        return -1;
    if (part->scope_of) {
        Py_XSETREF(item->scope, PyObject_CallNoArgs(part->scope_of));
        if (!item->scope)
            return -1;
        if (!PyUnicode_Check(item->scope))
            Py_SETREF(item->scope, PyObject_Str(item->scope));
        if (!item->scope)
            return -1;
    }
    bool nobody = is_nothing(self->item[part->who].who);
    if (nobody || (item->scope && is_nothing(item->scope)))
        return report_empty(self, i, nobody ? "key" : "scope");
    item->cost = part->cost;
    return part->cost_of && gather_cost(item, part) < 0 ? -1 : 1;
}

static int gather_parts(struct core_evaluation *self, uint32_t parts, Py_ssize_t from,
                        Py_ssize_t to) {
    for (Py_ssize_t i = from; i < to; i++) {
        if (!(parts & BIT(i)))
            continue;
        int rc = gather_part(self, i);
        if (rc < 0)
            return -1;
        if (rc > 0)
            self->parts |= BIT(i);
    }
    return 0;
}

static struct core_evaluation *evaluation_new(struct core_prepared *check) {
    PyTypeObject *type = check->state->evaluation_type;
    struct core_evaluation *self = SELF(type->tp_alloc(type, check->count));
    if (!self)
        return NULL;
    self->check = (struct core_prepared *)Py_NewRef((PyObject *)check);
    self->reported = -1;
    self->now_ns = -1;
    return self;
}

/* Those that watch refusals are asked first who it is: they come last in the array. */
static int gather_mask(struct core_evaluation *self, uint32_t parts) {
    return gather_parts(self, parts, self->check->main, self->check->count) < 0
               ? -1
               : gather_parts(self, parts, 0, self->check->main);
}

struct core_evaluation *core_evaluation_gather(struct core_prepared *check) {
    struct core_evaluation *self = evaluation_new(check);
    if (self && gather_mask(self, check->asked) < 0)
        Py_CLEAR(self);
    return self;
}

static int evaluation_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->check);
    return 0;
}

static void evaluation_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    struct core_evaluation *self = SELF(object);
    PyObject_GC_UnTrack(object);
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_XDECREF(self->item[i].who);
        Py_XDECREF(self->item[i].scope);
    }
    Py_XDECREF((PyObject *)self->check);
    type->tp_free(object);
    Py_DECREF(type);
}

bool core_is_evaluation(PyObject *object) {
    return Py_TYPE(object)->tp_dealloc == evaluation_dealloc;
}

/* ---------------------------------------------------------------------------------- deciding */

/* What libweir is asked, with the bytes that it borrows. */
struct asking {
    struct core_key bytes;
    struct weir_bytes client[WEIR_CHECKS_MAX];
    struct weir_bytes after[WEIR_CHECKS_MAX];
    int64_t cost[WEIR_CHECKS_MAX];
    size_t start[2 * WEIR_CHECKS_MAX + 1];
    struct weir_request request;
};

/* Appends the bytes of all clients and scopes, and remembers where each begins. */
static int append_all(const struct core_evaluation *self, struct asking *asking) {
    struct core_key *bytes = &asking->bytes;
    const struct core_prepared *check = self->check;
    Py_ssize_t n = check->key_funcs;
    for (Py_ssize_t i = 0; i < n; i++) {
        asking->start[i] = bytes->len;
        if (self->item[i].who && core_key_identifier(bytes, self->item[i].who) < 0)
            return -1;
    }
    asking->start[n] = bytes->len;
    for (Py_ssize_t i = 0; check->scopes && i < check->count; i++) {
        asking->start[n + i] = bytes->len;
        if (self->item[i].scope && (core_key_append(bytes, "/", 1) < 0 ||
                                    core_key_identifier(bytes, self->item[i].scope) < 0))
            return -1;
        asking->start[n + i + 1] = bytes->len;
    }
    return core_key_within_bounds(bytes->len);
}

/* Fills asking->request but for its time and mode; asking_free() is due in any case. */
static int ask_for(const struct core_evaluation *self, struct asking *asking, uint32_t parts) {
    const struct core_prepared *check = self->check;
    core_key_init(&asking->bytes);
    if (append_all(self, asking) < 0)
        return -1;
    asking->request = (struct weir_request){.parts = parts};
    const char *data = asking->bytes.data;
    const size_t *start = asking->start;
    if (check->key_funcs == 1) {
        asking->request.client = (struct weir_bytes){data, start[1]};
    } else {
        for (Py_ssize_t i = 0; i < check->count; i++) {
            int32_t who = check->part[i].who;
            asking->client[i] = (struct weir_bytes){data + start[who], start[who + 1] - start[who]};
        }
        asking->request.clients = asking->client;
    }
    if (check->scopes) {
        start += check->key_funcs;
        for (Py_ssize_t i = 0; i < check->count; i++)
            asking->after[i] = self->item[i].scope
                                   ? (struct weir_bytes){data + start[i], start[i + 1] - start[i]}
                                   : (struct weir_bytes){NULL, 0};
        asking->request.after = asking->after;
    }
    for (Py_ssize_t i = 0; i < check->count; i++)
        asking->cost[i] = self->item[i].cost;
    asking->request.costs = asking->cost;
    return 0;
}

static void asking_free(struct asking *asking) {
    core_key_free(&asking->bytes);
}

static uint32_t main_mask(const struct core_prepared *check) {
    return check->main > 0 ? UINT32_MAX >> (WEIR_CHECKS_MAX - check->main) : 0;
}

/* Takes note of what was decided: who denies, and which part to tell the client of. */
static void conclude(struct core_evaluation *self) {
    const struct core_prepared *check = self->check;
    self->denied = 0;
    for (Py_ssize_t i = 0; i < check->count; i++)
        if (self->parts & BIT(i) && !self->item[i].verdict.allowed)
            self->denied |= BIT(i);
    uint32_t of = self->parts & main_mask(check) & ~check->lenient;
    uint32_t denied = of & self->denied;
    self->reported = -1;
    if (denied) {
        for (Py_ssize_t i = 0; i < check->count; i++)
            if (denied & BIT(i) &&
                (self->reported < 0 || self->item[i].verdict.retry_after_ns >
                                           self->item[self->reported].verdict.retry_after_ns))
                self->reported = (int32_t)i;
    } else if (of) {
        self->reported = __builtin_ctz(of & check->unshared ? of & check->unshared : of);
    }
}

/* The parts of `from` whose verdict is to be kept: all, or those that were charged when settling. */
static void keep_verdicts(struct core_evaluation *self, const struct weir_verdict *from,
                          uint32_t parts, bool settling) {
    for (Py_ssize_t i = 0; i < self->check->count; i++)
        if (parts & BIT(i) && (!settling || from[i].allowed))
            self->item[i].verdict = from[i];
}

/*
 * Decides `parts` on a table, which is the check's own, or another that stands in and knows no labels of it.
 * 0, or -1 with an exception.
 */
static int decide_on_table(struct core_evaluation *self, struct core_table *table,
                           enum weir_mode mode, uint32_t parts, bool settling) {
    int64_t now_ns = core_now(self->check->state); /* may run Python code, so it comes first */
    if (now_ns < 0 || !core_table_borrow(table))
        return -1;
    if (parts == 0) {
        self->now_ns = now_ns;
        return 0;
    }
    struct asking asking;
    struct weir_verdict verdict[WEIR_CHECKS_MAX];
    struct weir_decision decision;
    int rc = ask_for(self, &asking, parts);
    if (rc == 0) {
        const struct weir_prepared *prepared =
            table == self->check->table ? self->check->labelled : self->check->plain;
        asking.request.now_ns = now_ns;
        asking.request.mode = (int32_t)mode;
        rc =
            settling
                ? weir_settle_prepared(table->table, prepared, &asking.request, verdict, &decision)
                : weir_decide_prepared(table->table, prepared, &asking.request, verdict, &decision);
        if (rc < 0) {
            core_raise(self->check->state, rc, NULL);
            rc = -1;
        } else {
            keep_verdicts(self, verdict, parts, settling);
            self->now_ns = now_ns;
            if (!settling)
                self->rule = decision.rule;
        }
    }
    asking_free(&asking);
    return rc;
}

/* store.decide_prepared(evaluation, mode, parts, settling) */
static int decide_on_store(struct core_evaluation *self, int mode, uint32_t parts, bool settling) {
    struct core_state *state = self->check->state;
    PyObject *mode_object = PyLong_FromLong(mode);
    PyObject *mask = PyLong_FromUnsignedLong(parts);
    PyObject *result = NULL;
    if (mode_object && mask) {
        PyObject *args[] = {self->check->store, (PyObject *)self, mode_object, mask,
                            settling ? Py_True : Py_False};
        result = PyObject_VectorcallMethod(state->str_decide_prepared, args, 5, NULL);
    }
    Py_XDECREF(mode_object);
    Py_XDECREF(mask);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static int decide_parts(struct core_evaluation *self, int mode, uint32_t parts, bool settling) {
    return self->check->store
               ? decide_on_store(self, mode, parts, settling)
               : decide_on_table(self, self->check->table, (enum weir_mode)mode, parts, settling);
}

int core_evaluation_decide(struct core_evaluation *self) {
    if (self->parts == 0) {
        self->reported = -1;
        return 0;
    }
    uint32_t observed = self->parts & self->check->observed, others = self->parts & ~observed;
    if ((others && decide_parts(self, self->check->mode, others, false) < 0) ||
        (observed && decide_parts(self, WEIR_TEST, observed, false) < 0))
        return -1;
    conclude(self);
    return 0;
}

static PyObject *evaluation_decide(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    if (core_evaluation_decide(SELF(object)) < 0)
        return NULL;
    return PyBool_FromLong(core_evaluation_passes(SELF(object)));
}

/* Reads a mask of parts. */
static int read_mask(const struct core_evaluation *self, PyObject *object, uint32_t *mask) {
    unsigned long value = PyLong_AsUnsignedLong(object);
    if (value == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    *mask = (uint32_t)value & (UINT32_MAX >> (WEIR_CHECKS_MAX - self->check->count));
    return 0;
}

static PyObject *evaluation_add(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts, before = self->parts;
    if (read_mask(self, argument, &parts) < 0 || gather_mask(self, parts & ~before) < 0)
        return NULL;
    uint32_t added = self->parts & ~before;
    self->parts = before; /* they take no part in the decision that was made */
    return PyLong_FromUnsignedLong((added | (before & parts)));
}

static PyObject *evaluation_settle(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts;
    int64_t mode;
    int unit_cost = nargs == 3 ? PyObject_IsTrue(args[2]) : 0;
    if (nargs < 2 || nargs > 3 || unit_cost < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError,
                            "settle() takes a mode, a mask of parts and a truth value");
        return NULL;
    }
    if (core_count(args[0], "mode", &mode) < 0 || read_mask(self, args[1], &parts) < 0)
        return NULL;
    if (mode != WEIR_EACH && mode != WEIR_REFUND) {
        PyErr_SetString(PyExc_ValueError, "mode must be EACH or REFUND");
        return NULL;
    }
    for (Py_ssize_t i = 0; unit_cost && i < self->check->count; i++)
        if (parts & BIT(i))
            self->item[i].cost = 1;
    if (parts && decide_parts(self, (int)mode, parts, true) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Those of `parts` whose deduct_when says that the request counts. 0, or -1 with an exception. */
static int wanted_by(const struct core_evaluation *self, PyObject *response, uint32_t parts,
                     uint32_t *wanted) {
    *wanted = 0;
    for (Py_ssize_t i = 0; i < self->check->count; i++) {
        PyObject *deduct_when = self->check->part[i].deduct_when;
        if (!(parts & BIT(i)) || !deduct_when)
            continue;
        PyObject *result = PyObject_CallOneArg(deduct_when, response);
        int rc = result ? PyObject_IsTrue(result) : -1;
        Py_XDECREF(result);
        if (rc < 0)
            return -1;
        *wanted |= rc ? BIT(i) : 0;
    }
    return 0;
}

int core_evaluation_respond(struct core_evaluation *self, PyObject *response, uint32_t parts) {
    const struct core_prepared *check = self->check;
    uint32_t wanted, refused = self->denied & main_mask(check);
    /* What was charged before the view ran: not deferred, if nothing kept it from that. */
    uint32_t taken = parts & ~check->deferred & ~refused;
    if (self->denied & ~check->shadows & ~check->observed && check->mode != WEIR_EACH)
        taken = 0;
    if (wanted_by(self, response, parts, &wanted) < 0)
        return -1;
    uint32_t charge = wanted & ~taken & ~refused, refund = taken & ~wanted;
    return (charge && decide_parts(self, WEIR_EACH, charge, true) < 0) ||
                   (refund && decide_parts(self, WEIR_REFUND, refund, true) < 0)
               ? -2
               : 0;
}

static PyObject *evaluation_decide_on(PyObject *object, PyObject *args) {
    struct core_evaluation *self = SELF(object);
    PyObject *table, *mask;
    int mode, settling;
    uint32_t parts;
    if (!PyArg_ParseTuple(args, "O!iOp:decide_on", self->check->state->table_type, &table, &mode,
                          &mask, &settling) ||
        read_mask(self, mask, &parts) < 0)
        return NULL;
    if (mode < WEIR_HIT || mode > WEIR_REFUND) {
        PyErr_SetString(PyExc_ValueError, "mode must be HIT, TEST, EACH or REFUND");
        return NULL;
    }
    if (decide_on_table(self, (struct core_table *)table, (enum weir_mode)mode, parts, settling) <
        0)
        return NULL;
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------- stores that are no local table */

/* Appends the key of part i; where in it the client is goes into the check, as an offset. */
static int append_key(const struct core_evaluation *self, struct core_key *key, Py_ssize_t i,
                      size_t *client, size_t *client_len) {
    const struct core_part *part = &self->check->part[i];
    PyObject *who = self->item[part->who].who, *scope = self->item[i].scope;
    *client = key->len;
    if (who && core_key_identifier(key, who) < 0)
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
        if (!(parts & BIT(i)))
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

static PyObject *evaluation_rule(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts;
    int64_t now_ns = core_now(self->check->state);
    if (read_mask(self, argument, &parts) < 0 || now_ns < 0 ||
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
    struct weir_table *table = self->check->table->table;
    struct weir_verdict verdict[WEIR_CHECKS_MAX];
    int rc = 0;
    for (int n = 0; n < expanded->count; n++) {
        verdict[n] = self->item[expanded->part[n]].verdict;
        if (settled)
            expanded->check[n].flags = 0;
    }
    if (self->check->mode != WEIR_EACH && !shadow && !settled)
        return weir_stats_record(table, expanded->check, (size_t)expanded->count, self->now_ns,
                                 verdict, 0);
    /* Those that let it pass were charged, whatever the others say. */
    for (int n = 0; n < expanded->count && rc == 0; n++)
        rc = weir_stats_record(table, &expanded->check[n], 1, self->now_ns, &verdict[n], shadow);
    return rc;
}

static PyObject *evaluation_record(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts;
    int shadow = nargs >= 2 && nargs <= 3 ? PyObject_IsTrue(args[1]) : -1;
    int settled = nargs == 3 ? PyObject_IsTrue(args[2]) : 0;
    if (shadow < 0 || settled < 0 || read_mask(self, args[0], &parts) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "record() takes a mask of parts and a truth value");
        return NULL;
    }
    if (!shadow)
        parts &= self->check->labels;
    if (parts == 0)
        Py_RETURN_NONE;
    struct core_expanded expanded;
    int rc = core_evaluation_expand(self, &expanded, parts, true);
    bool open = rc == 0 && core_table_borrow(self->check->table);
    if (open && (rc = record_parts(self, &expanded, shadow, settled)) < 0)
        core_raise(self->check->state, rc, NULL);
    core_expanded_free(&expanded);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* The key of a part as stores know it: prefix, client, scope. New reference to a str. */
static PyObject *key_of(const struct core_evaluation *self, Py_ssize_t i) {
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

static int append_new(PyObject *list, PyObject *item) {
    int rc = item ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return rc;
}

static PyObject *evaluation_checks(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts;
    if (read_mask(self, argument, &parts) < 0)
        return NULL;
    PyObject *lists[4] = {NULL};
    int rc = 0;
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = (lists[i] = PyList_New(0)) ? 0 : -1;
    for (Py_ssize_t i = 0; i < self->check->count && rc == 0; i++)
        if (parts & BIT(i) &&
            (append_new(lists[0], PyLong_FromSsize_t(i)) < 0 ||
             PyList_Append(lists[1], (PyObject *)self->check->part[i].limit) < 0 ||
             append_new(lists[2], key_of(self, i)) < 0 ||
             append_new(lists[3], PyLong_FromLongLong(self->item[i].cost)) < 0))
            rc = -1;
    PyObject *result = rc == 0 ? PyTuple_Pack(4, lists[0], lists[1], lists[2], lists[3]) : NULL;
    for (int i = 0; i < 4; i++)
        Py_XDECREF(lists[i]);
    return result;
}

static PyObject *evaluation_keep(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
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
    if (PyLong_Check(args[0]) && read_mask(self, args[0], &mask) < 0)
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

/* -------------------------------------------------------------------------------- what is told */

static struct core_item *item_at(struct core_evaluation *self, PyObject *argument, Py_ssize_t *i) {
    *i = PyNumber_AsSsize_t(argument, PyExc_IndexError);
    if (*i == -1 && PyErr_Occurred())
        return NULL;
    if (*i < 0 || *i >= self->check->count) {
        PyErr_SetString(PyExc_IndexError, "there is no such part");
        return NULL;
    }
    return &self->item[*i];
}

static PyObject *evaluation_verdict(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    struct core_item *item = item_at(SELF(object), argument, &i);
    return item ? core_verdict_new(SELF(object)->check->state, &item->verdict) : NULL;
}

static PyObject *evaluation_who(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    Py_ssize_t i;
    if (!item_at(self, argument, &i))
        return NULL;
    PyObject *who = self->item[self->check->part[i].who].who;
    if (!who)
        return PyUnicode_New(0, 0);
    return PyUnicode_Check(who) ? Py_NewRef(who)
                                : PyUnicode_DecodeUTF8(PyBytes_AS_STRING(who),
                                                       PyBytes_GET_SIZE(who), "backslashreplace");
}

static PyObject *evaluation_scope(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    struct core_item *item = item_at(SELF(object), argument, &i);
    return !item ? NULL : Py_NewRef(item->scope ? item->scope : Py_None);
}

static PyObject *evaluation_key(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    return item_at(SELF(object), argument, &i) ? key_of(SELF(object), i) : NULL;
}

static PyObject *evaluation_cost(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    struct core_item *item = item_at(SELF(object), argument, &i);
    return item ? PyLong_FromLongLong(item->cost) : NULL;
}

static PyObject *evaluation_refuse(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    struct core_evaluation *self = SELF(object);
    int64_t now_ns = core_now(self->check->state);
    if (now_ns < 0)
        return NULL;
    self->now_ns = now_ns;
    for (Py_ssize_t i = 0; i < self->check->count; i++)
        if (self->parts & BIT(i) && i < self->check->main) {
            const struct weir_limit *limit = &self->check->part[i].limit->limit;
            self->item[i].verdict = (struct weir_verdict){
                .limit = limit->burst ? limit->burst : limit->amount,
                .reset_at_ns = now_ns,
                .retry_after_ns = WEIR_NEVER,
            };
        } else if (self->parts & BIT(i)) {
            self->item[i].verdict.allowed = 1;
        }
    conclude(self);
    Py_RETURN_NONE;
}

static PyObject *evaluation_reports(PyObject *object, PyObject *argument) {
    Py_ssize_t i;
    if (!item_at(SELF(object), argument, &i))
        return NULL;
    SELF(object)->reported = (int32_t)i;
    Py_RETURN_NONE;
}

/* A number that is not negative as text. */
static PyObject *text_of(int64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    uint64_t rest = number > 0 ? (uint64_t)number : 0;
    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    return PyUnicode_DecodeASCII(digits + at, (Py_ssize_t)(sizeof digits - at), NULL);
}

static bool is_retry_after(PyObject *pair) {
    static const char name[] = "retry-after";
    PyObject *text =
        PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) > 0 ? PyTuple_GET_ITEM(pair, 0) : NULL;
    return text && PyUnicode_Check(text) && PyUnicode_IS_COMPACT_ASCII(text) &&
           PyUnicode_GET_LENGTH(text) == (Py_ssize_t)sizeof name - 1 &&
           strncasecmp((const char *)PyUnicode_1BYTE_DATA(text), name, sizeof name - 1) == 0;
}

/* Whole seconds until the same request passes, or else until the reset; rounded so that it holds then. */
static int64_t seconds_to_wait(const struct weir_verdict *verdict, int64_t now_us, int64_t reset) {
    if (verdict->allowed || verdict->retry_after_ns == WEIR_NEVER)
        return (reset * 1000000 - now_us) / 1000000;
    int64_t wait_us = verdict->retry_after_ns / 1000 + (verdict->retry_after_ns % 1000 > 0);
    return wait_us / 1000000 + (wait_us % 1000000 > 0);
}

int core_evaluation_write_headers(struct core_evaluation *self, PyObject *pairs, PyObject *names) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs); i++)
        if (is_retry_after(PyList_GET_ITEM(pairs, i)))
            return 0;
    int64_t now_ns = core_now(self->check->state);
    if (now_ns < 0)
        return -1;
    const struct weir_verdict *verdict = &self->item[self->reported].verdict;
    /* Rounded up to microseconds first, as everywhere. */
    int64_t reset = (verdict->reset_at_ns / 1000 + (verdict->reset_at_ns % 1000 > 0)) / 1000000 + 1;
    int64_t numbers[] = {verdict->remaining, reset, seconds_to_wait(verdict, now_ns / 1000, reset)};
    int rc = PyList_Append(pairs, PyTuple_GET_ITEM(names, 0));
    for (int i = 0; i < 3 && rc == 0; i++) {
        PyObject *value = text_of(numbers[i]);
        PyObject *pair = value ? PyTuple_Pack(2, PyTuple_GET_ITEM(names, i + 1), value) : NULL;
        Py_XDECREF(value);
        rc = append_new(pairs, pair);
    }
    return rc < 0 ? -1 : 1;
}

static PyObject *evaluation_write_headers(PyObject *object, PyObject *const *args,
                                          Py_ssize_t nargs) {
    if (nargs != 2 || !PyList_Check(args[0]) || !PyTuple_Check(args[1]) ||
        PyTuple_GET_SIZE(args[1]) != 4 || SELF(object)->reported < 0) {
        PyErr_SetString(
            PyExc_TypeError,
            "write_headers() takes a list and a tuple of four, of a reported evaluation");
        return NULL;
    }
    int rc = core_evaluation_write_headers(SELF(object), args[0], args[1]);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

/* --------------------------------------------------------------------------------------- type */

static PyObject *get_now(PyObject *object, void *Py_UNUSED(closure)) {
    return PyFloat_FromDouble(core_ns_to_seconds(SELF(object)->now_ns));
}

static PyObject *get_rule(PyObject *object, void *Py_UNUSED(closure)) {
    int32_t rule = SELF(object)->rule;
    return PyUnicode_FromString(rule == WEIR_RULE_BLOCK   ? "block"
                                : rule == WEIR_RULE_ALLOW ? "allow"
                                                          : "");
}

static PyObject *get_delay(PyObject *object, void *Py_UNUSED(closure)) {
    struct core_evaluation *self = SELF(object);
    int64_t delay_ns = 0;
    for (Py_ssize_t i = 0; i < self->check->main; i++)
        if (self->parts & ~self->check->lenient & BIT(i) &&
            self->item[i].verdict.delay_ns > delay_ns)
            delay_ns = self->item[i].verdict.delay_ns;
    return PyFloat_FromDouble(core_ns_to_seconds(delay_ns));
}

PyDoc_STRVAR(evaluation_doc,
             "What one request makes of a PreparedCheck. Masks have bit i for part i.");

static PyMethodDef evaluation_methods[] = {
    {"decide", evaluation_decide, METH_NOARGS,
     PyDoc_STR("decide($self, /)\n--\n\nAsks the check's store; whether no part denies.")},
    {"add", evaluation_add, METH_O,
     PyDoc_STR("add($self, parts, /)\n--\n\nGathers more parts, for settle(); the mask of those "
               "that apply.")},
    {"settle", (PyCFunction)(void (*)(void))evaluation_settle, METH_FASTCALL,
     PyDoc_STR("settle($self, mode, parts, unit_cost=False, /)\n--\n\nCharges (EACH) or gives back "
               "(REFUND) parts;\nkeeps the verdicts that allow. unit_cost: at a cost of 1.")},
    {"decide_on", evaluation_decide_on, METH_VARARGS,
     PyDoc_STR("decide_on($self, table, mode, parts, settling, /)\n--\n\n"
               "Decides parts on a table; for stores that use one.")},
    {"rule_match", evaluation_rule, METH_O,
     PyDoc_STR("rule_match($self, parts, /)\n--\n\nWhether a rule of the table decides about "
               "the clients.")},
    {"record", (PyCFunction)(void (*)(void))evaluation_record, METH_FASTCALL,
     PyDoc_STR(
         "record($self, parts, shadow, settled=False, /)\n--\n\nCounts what was decided elsewhere "
         "in the\ntable's statistics; settled: by settle().")},
    {"checks", evaluation_checks, METH_O,
     PyDoc_STR("checks($self, parts, /)\n--\n\n(indices, limits, keys, costs) of parts, for "
               "Storage.decide().")},
    {"keep", (PyCFunction)(void (*)(void))evaluation_keep, METH_FASTCALL,
     PyDoc_STR("keep($self, parts, decision, settling, /)\n--\n\nTakes over the verdicts of a "
               "Decision; whether it allows.\nparts: their indices in its order, or their mask.")},
    {"verdict", evaluation_verdict, METH_O,
     PyDoc_STR("verdict($self, index, /)\n--\n\nThe Verdict of a part.")},
    {"who", evaluation_who, METH_O,
     PyDoc_STR("who($self, index, /)\n--\n\nThe client that a part counts, as text.")},
    {"scope", evaluation_scope, METH_O,
     PyDoc_STR("scope($self, index, /)\n--\n\nWhat scope_of returned; None if there is none.")},
    {"key", evaluation_key, METH_O,
     PyDoc_STR("key($self, index, /)\n--\n\nWhat stores know a part's counter by, beside the "
               "limit.")},
    {"cost", evaluation_cost, METH_O,
     PyDoc_STR("cost($self, index, /)\n--\n\nWhat the request costs a part.")},
    {"refuse", evaluation_refuse, METH_NOARGS,
     PyDoc_STR("refuse($self, /)\n--\n\nEvery main part denies, for good: the request cannot be "
               "asked about.")},
    {"report", evaluation_reports, METH_O,
     PyDoc_STR("report($self, index, /)\n--\n\nThe client is to be told of this part.")},
    {"write_headers", (PyCFunction)(void (*)(void))evaluation_write_headers, METH_FASTCALL,
     PyDoc_STR("write_headers($self, pairs, names, /)\n--\n\n"
               "Appends the headers of the reported part to a list of (name, value): names[0] "
               "itself, and\n"
               "what remains, the reset and the seconds to wait under names[1:]. False, with "
               "nothing\n"
               "appended, if there is a Retry-After.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef evaluation_members[] = {
    {"check", T_OBJECT, offsetof(struct core_evaluation, check), READONLY,
     PyDoc_STR("The PreparedCheck.")},
    {"parts", T_UINT, offsetof(struct core_evaluation, parts), READONLY,
     PyDoc_STR("Mask of the parts that take part.")},
    {"denied", T_UINT, offsetof(struct core_evaluation, denied), READONLY,
     PyDoc_STR("Mask of the parts that deny.")},
    {"reported", T_INT, offsetof(struct core_evaluation, reported), READONLY,
     PyDoc_STR("Index of the part to tell the client of; -1 for none.")},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef evaluation_getset[] = {
    {"now", get_now, NULL, PyDoc_STR("The moment of the decision, seconds since the epoch."), NULL},
    {"rule", get_rule, NULL,
     PyDoc_STR("'block' or 'allow' if a rule about the client decided, else ''."), NULL},
    {"delay", get_delay, NULL,
     PyDoc_STR("Seconds for which a leaky bucket holds the request back."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot evaluation_slots[] = {
    {Py_tp_doc, (void *)evaluation_doc},
    {Py_tp_dealloc, evaluation_dealloc},
    {Py_tp_traverse, evaluation_traverse},
    {Py_tp_methods, evaluation_methods},
    {Py_tp_members, (void *)evaluation_members},
    {Py_tp_getset, evaluation_getset},
    {0, NULL},
};

PyType_Spec core_evaluation_spec = {
    .name = "weir.Evaluation",
    .basicsize = offsetof(struct core_evaluation, item),
    .itemsize = sizeof(struct core_item),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = evaluation_slots,
};
