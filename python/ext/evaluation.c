/*
 * Evaluation: the evaluation of a prepared check for one request.
 *
 * gather() calls the functions that return the client, whether a limit applies and its cost;
 * decide() uses the table or the store; settle() charges or gives back the parts that depend on the
 * response. Index i always means part i.
 */
#include "evaluation.h"

#include "clock.h"
#include "errors.h"
#include "key.h"
#include "lost.h"
#include "prepared_check.h"
#include "table.h"
#include "values.h"

#define SELF(object) ((struct core_evaluation *)(object))

/* ---------------------------------------------------------------------------------- gathering */

/* Whether `function` returns a true value; -1 with an exception. */
static int call_truth(PyObject *function) {
    PyObject *result = PyObject_CallNoArgs(function);
    int rc = result ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    return rc;
}

/* The result of a key function as str or bytes; "" for none. New reference. */
static PyObject *client_text(PyObject *client) {
    if (PyUnicode_CheckExact(client) || PyBytes_CheckExact(client))
        return Py_NewRef(client);
    int something = PyObject_IsTrue(client);
    if (something < 0)
        return NULL;
    if (!something)
        return PyUnicode_New(0, 0);
    return PyBytes_Check(client) ? Py_NewRef(client) : PyObject_Str(client);
}

static int gather_client(struct core_evaluation *self, Py_ssize_t index) {
    PyObject *client = PyObject_CallNoArgs(self->check->key_func[index]);
    if (!client)
        return -1;
    self->item[index].client = client_text(client);
    Py_DECREF(client);
    return self->item[index].client ? 0 : -1;
}

static bool is_empty(PyObject *client) {
    return PyUnicode_Check(client) ? PyUnicode_GET_LENGTH(client) == 0
                                   : PyBytes_GET_SIZE(client) == 0;
}

/* Calls on_empty for a part without a client. 0, or -1 with an exception. */
static int report_empty(struct core_evaluation *self, Py_ssize_t i, const char *what) {
    PyObject *on_empty = self->check->on_empty;
    PyObject *result =
        on_empty ? PyObject_CallFunction(on_empty, "ns", i, what) : Py_NewRef(Py_None);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/*
 * The cost of a part. An invalid cost (negative, or 2^63 and more) is denied like a cost above the
 * limit, since it may depend on input of the client.
 */
static int gather_cost(struct core_item *item, const struct core_part *part) {
    PyObject *cost = PyObject_CallNoArgs(part->cost_of);
    if (!cost)
        return -1;
    int rc = 0;
    if (PyLong_Check(cost)) { /* also a bool, as in request.method == "POST" */
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
    if (!self->item[part->key_index].client && gather_client(self, part->key_index) < 0)
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
    bool no_client = is_empty(self->item[part->key_index].client);
    if (no_client || (item->scope && is_empty(item->scope)))
        return report_empty(self, i, no_client ? "key" : "scope");
    item->cost = part->cost;
    return part->cost_of && gather_cost(item, part) < 0 ? -1 : 1;
}

static int gather_parts(struct core_evaluation *self, uint32_t parts, Py_ssize_t from,
                        Py_ssize_t to) {
    for (Py_ssize_t i = from; i < to; i++) {
        if (!(parts & CORE_PART_BIT(i)))
            continue;
        int rc = gather_part(self, i);
        if (rc < 0)
            return -1;
        if (rc > 0)
            self->parts |= CORE_PART_BIT(i);
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

/* Observed parts come last in the array, but their clients are gathered first. */
static int gather_mask(struct core_evaluation *self, uint32_t parts) {
    return gather_parts(self, parts, self->check->main, self->check->count) < 0
               ? -1
               : gather_parts(self, parts, 0, self->check->main);
}

struct core_evaluation *core_evaluation_gather(struct core_prepared *check) {
    struct core_evaluation *self = evaluation_new(check);
    if (self && gather_mask(self, check->evaluated) < 0)
        Py_CLEAR(self);
    return self;
}

int evaluation_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->check);
    return 0;
}

void evaluation_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    struct core_evaluation *self = SELF(object);
    PyObject_GC_UnTrack(object);
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_XDECREF(self->item[i].client);
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

/* The request for libweir, with the bytes that it borrows. */
struct call {
    struct core_key bytes;
    struct weir_bytes client[WEIR_CHECKS_MAX];
    struct weir_bytes after[WEIR_CHECKS_MAX];
    int64_t cost[WEIR_CHECKS_MAX];
    size_t start[2 * WEIR_CHECKS_MAX + 1];
    struct weir_request request;
};

/* Appends the bytes of all clients and scopes, and stores their offsets. */
static int append_all(const struct core_evaluation *self, struct call *call) {
    struct core_key *bytes = &call->bytes;
    const struct core_prepared *check = self->check;
    Py_ssize_t n = check->key_funcs;
    for (Py_ssize_t i = 0; i < n; i++) {
        call->start[i] = bytes->len;
        if (self->item[i].client && core_key_identifier(bytes, self->item[i].client) < 0)
            return -1;
    }
    call->start[n] = bytes->len;
    for (Py_ssize_t i = 0; check->scopes && i < check->count; i++) {
        call->start[n + i] = bytes->len;
        if (self->item[i].scope && (core_key_append(bytes, "/", 1) < 0 ||
                                    core_key_identifier(bytes, self->item[i].scope) < 0))
            return -1;
        call->start[n + i + 1] = bytes->len;
    }
    return core_key_within_bounds(bytes->len);
}

/* Fills call->request except time and mode. Call call_free() in all cases. */
static int fill_call(const struct core_evaluation *self, struct call *call, uint32_t parts) {
    const struct core_prepared *check = self->check;
    core_key_init(&call->bytes);
    if (append_all(self, call) < 0)
        return -1;
    call->request = (struct weir_request){.parts = parts};
    const char *data = call->bytes.data;
    const size_t *start = call->start;
    if (check->key_funcs == 1) {
        call->request.client = (struct weir_bytes){data, start[1]};
    } else {
        for (Py_ssize_t i = 0; i < check->count; i++) {
            int32_t key_index = check->part[i].key_index;
            call->client[i] = (struct weir_bytes){data + start[key_index],
                                                  start[key_index + 1] - start[key_index]};
        }
        call->request.clients = call->client;
    }
    if (check->scopes) {
        start += check->key_funcs;
        for (Py_ssize_t i = 0; i < check->count; i++)
            call->after[i] = self->item[i].scope
                                 ? (struct weir_bytes){data + start[i], start[i + 1] - start[i]}
                                 : (struct weir_bytes){NULL, 0};
        call->request.after = call->after;
    }
    for (Py_ssize_t i = 0; i < check->count; i++)
        call->cost[i] = self->item[i].cost;
    call->request.costs = call->cost;
    return 0;
}

static void call_free(struct call *call) {
    core_key_free(&call->bytes);
}

uint32_t evaluation_main_mask(const struct core_prepared *check) {
    return check->main > 0 ? UINT32_MAX >> (WEIR_CHECKS_MAX - check->main) : 0;
}

/* Sets which parts deny and which one is reported to the client. */
void evaluation_conclude(struct core_evaluation *self) {
    const struct core_prepared *check = self->check;
    self->denied = 0;
    for (Py_ssize_t i = 0; i < check->count; i++)
        if (self->parts & CORE_PART_BIT(i) && !self->item[i].verdict.allowed)
            self->denied |= CORE_PART_BIT(i);
    uint32_t of = self->parts & evaluation_main_mask(check) & ~check->lenient;
    uint32_t denied = of & self->denied;
    self->reported = -1;
    if (denied) {
        for (Py_ssize_t i = 0; i < check->count; i++)
            if (denied & CORE_PART_BIT(i) &&
                (self->reported < 0 || self->item[i].verdict.retry_after_ns >
                                           self->item[self->reported].verdict.retry_after_ns))
                self->reported = (int32_t)i;
    } else if (of) {
        self->reported = __builtin_ctz(of & check->unshared ? of & check->unshared : of);
    }
}

/*
 * The parts of `from` whose verdict is to be kept: all, or those that were charged when settling.
 */
static void keep_verdicts(struct core_evaluation *self, const struct weir_verdict *from,
                          uint32_t parts, bool settling) {
    for (Py_ssize_t i = 0; i < self->check->count; i++)
        if (parts & CORE_PART_BIT(i) && (!settling || from[i].allowed))
            self->item[i].verdict = from[i];
}

/*
 * Decides `parts` on a table: the one of the check, or a fallback table that does not have its
 * labels. 0, or -1 with an exception.
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
    struct call call;
    struct weir_verdict verdict[WEIR_CHECKS_MAX];
    struct weir_decision decision;
    core_prepared_relabel(self->check);
    int rc = fill_call(self, &call, parts);
    if (rc == 0) {
        const struct weir_prepared *prepared =
            table == self->check->table ? self->check->labelled : self->check->plain;
        call.request.now_ns = now_ns;
        call.request.mode = (int32_t)mode;
        struct weir_table *there = table->table;
        CORE_PATIENTLY(
            table, rc,
            settling ? weir_settle_prepared(there, prepared, &call.request, verdict, &decision)
                     : weir_decide_prepared(there, prepared, &call.request, verdict, &decision));
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
    call_free(&call);
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
    evaluation_conclude(self);
    return 0;
}

PyObject *evaluation_decide(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    if (core_evaluation_decide(SELF(object)) < 0)
        return NULL;
    return PyBool_FromLong(core_evaluation_passes(SELF(object)));
}

/* Reads a mask of parts. */
int evaluation_read_mask(const struct core_evaluation *self, PyObject *object, uint32_t *mask) {
    unsigned long value = PyLong_AsUnsignedLong(object);
    if (value == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    *mask = (uint32_t)value & (UINT32_MAX >> (WEIR_CHECKS_MAX - self->check->count));
    return 0;
}

PyObject *evaluation_add(PyObject *object, PyObject *argument) {
    struct core_evaluation *self = SELF(object);
    uint32_t parts, before = self->parts;
    if (evaluation_read_mask(self, argument, &parts) < 0 || gather_mask(self, parts & ~before) < 0)
        return NULL;
    uint32_t added = self->parts & ~before;
    self->parts = before; /* they take no part in the decision that was made */
    return PyLong_FromUnsignedLong((added | (before & parts)));
}

PyObject *evaluation_settle(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
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
    if (core_count(args[0], "mode", &mode) < 0 || evaluation_read_mask(self, args[1], &parts) < 0)
        return NULL;
    if (mode != WEIR_EACH && mode != WEIR_REFUND) {
        PyErr_SetString(PyExc_ValueError, "mode must be EACH or REFUND");
        return NULL;
    }
    for (Py_ssize_t i = 0; unit_cost && i < self->check->count; i++)
        if (parts & CORE_PART_BIT(i))
            self->item[i].cost = 1;
    if (parts && decide_parts(self, (int)mode, parts, true) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Finds those of `parts` whose deduct_when returns true. 0, or -1 with an exception. */
static int wanted_by(const struct core_evaluation *self, PyObject *response, uint32_t parts,
                     uint32_t *wanted) {
    *wanted = 0;
    for (Py_ssize_t i = 0; i < self->check->count; i++) {
        PyObject *deduct_when = self->check->part[i].deduct_when;
        if (!(parts & CORE_PART_BIT(i)) || !deduct_when)
            continue;
        PyObject *result = PyObject_CallOneArg(deduct_when, response);
        int rc = result ? PyObject_IsTrue(result) : -1;
        Py_XDECREF(result);
        if (rc < 0)
            return -1;
        *wanted |= rc ? CORE_PART_BIT(i) : 0;
    }
    return 0;
}

int core_evaluation_respond(struct core_evaluation *self, PyObject *response, uint32_t parts) {
    const struct core_prepared *check = self->check;
    uint32_t wanted, refused = self->denied & evaluation_main_mask(check);
    /* The parts charged before the view ran: those that are not deferred and not refused. */
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

PyObject *evaluation_decide_on(PyObject *object, PyObject *args) {
    struct core_evaluation *self = SELF(object);
    PyObject *table, *mask;
    int mode, settling;
    uint32_t parts;
    if (!PyArg_ParseTuple(args, "O!iOp:decide_on", self->check->state->table_type, &table, &mode,
                          &mask, &settling) ||
        evaluation_read_mask(self, mask, &parts) < 0)
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
