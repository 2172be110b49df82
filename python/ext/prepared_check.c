/*
 * Gate: one check of a local table, of which only one thing is still to be found out: who asks.
 *
 * Limits, costs and what keys have besides the client are read once, when the gate is made. Asking
 * it is one call: it makes the keys, looks at the limits that are only looked at, and charges the
 * others if none of those denies. The verdicts of both are one Decision, in the order that the
 * gate was made for. weir.flask makes one for each endpoint, and calls it with Flask's request
 * context; what it does then is what its Python callers would do, in a tenth of the time.
 */
#include "core.h"
#include "weir/board.h"

#include <stddef.h>
#include <structmember.h>

#define SELF(object) ((struct core_gate *)(object))

/* One limit: its key is head, "/", the gate's prefix, who asks, tail. */
struct item {
    struct core_limit *limit;
    PyObject *head; /* bytes */
    PyObject *tail; /* str as UTF-8 */
    int64_t cost;
    Py_ssize_t place; /* of its verdict in the Decision */
};

struct core_gate {
    PyVarObject ob_base;
    struct core_state *state;
    struct core_table *table;
    PyObject *prefix;  /* bytes */
    PyObject *slot;    /* str: the attribute of a request context that the outcome is kept in */
    PyObject *check;   /* kept with it */
    PyObject *request; /* "request" */
    PyObject *address; /* "remote_addr" */
    PyObject *nowhere; /* "127.0.0.1": the client of a request that has no address */
    Py_ssize_t looked; /* that many items are only looked at; they come first */
    struct item item[];
};

/* ------------------------------------------------------------------------------------- making */

static PyObject *utf8_of(PyObject *text, const char *what) {
    if (PyUnicode_Check(text))
        return PyUnicode_AsUTF8String(text);
    PyErr_Format(PyExc_TypeError, "%s must be str, not %.100s", what, Py_TYPE(text)->tp_name);
    return NULL;
}

/* What comes first in the keys of a limit: the table's namespace and the limit's own. */
static PyObject *head_of(const struct core_table *table, const struct core_limit *limit) {
    struct core_key key;
    core_key_init(&key);
    PyObject *head = NULL;
    if (core_key_table(&key, table) == 0 && core_key_join(&key, limit, NULL, 0) == 0)
        head = PyBytes_FromStringAndSize(key.data, (Py_ssize_t)key.len);
    core_key_free(&key);
    return head;
}

/* An item of (limit, tail, cost, place). */
static int read_item(struct core_gate *self, struct item *item, PyObject *arguments) {
    PyObject *limit, *tail, *cost;
    if (!PyTuple_Check(arguments)) {
        PyErr_SetString(PyExc_TypeError, "an item must be (limit, tail, cost, place)");
        return -1;
    }
    if (!PyArg_ParseTuple(arguments, "OOOn:Gate", &limit, &tail, &cost, &item->place))
        return -1;
    if (!core_is_limit(self->state, limit)) {
        PyErr_Format(PyExc_TypeError, "limits must be of Limit, not %.100s",
                     Py_TYPE(limit)->tp_name);
        return -1;
    }
    if (item->place < 0 || item->place >= Py_SIZE(self)) {
        PyErr_SetString(PyExc_ValueError, "a place must be 0 to the number of limits less one");
        return -1;
    }
    item->limit = (struct core_limit *)Py_NewRef(limit);
    item->head = head_of(self->table, item->limit);
    item->tail = utf8_of(tail, "what follows the key");
    return item->head && item->tail ? core_count(cost, "cost", &item->cost) : -1;
}

static int read_items(struct core_gate *self, PyObject *looked, PyObject *counted) {
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        PyObject *arguments = i < self->looked
                                  ? PySequence_Fast_GET_ITEM(looked, i)
                                  : PySequence_Fast_GET_ITEM(counted, i - self->looked);
        if (read_item(self, &self->item[i], arguments) < 0)
            return -1;
    }
    return 0;
}

static PyObject *gate_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    struct core_state *state = core_state_of(type);
    PyObject *table, *looked, *counted, *prefix, *slot, *check;
    if (!state || (kwargs && PyDict_GET_SIZE(kwargs) > 0) ||
        !PyArg_ParseTuple(args, "O!OOUUO:Gate", state->table_type, &table, &looked, &counted,
                          &prefix, &slot, &check)) {
        if (state && !PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "Gate() takes no keyword arguments");
        return NULL;
    }
    struct core_gate *self = NULL;
    looked = PySequence_Fast(looked, "looked must be a sequence");
    counted = looked ? PySequence_Fast(counted, "counted must be a sequence") : NULL;
    if (!counted)
        goto out;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(looked) + PySequence_Fast_GET_SIZE(counted);
    if (count < 1 || count > WEIR_CHECKS_MAX) {
        PyErr_Format(PyExc_ValueError, "1 to %d limits can be decided at once, not %zd",
                     WEIR_CHECKS_MAX, count);
        goto out;
    }
    self = SELF(type->tp_alloc(type, count));
    if (!self)
        goto out;
    self->state = state;
    self->table = (struct core_table *)Py_NewRef(table);
    self->looked = PySequence_Fast_GET_SIZE(looked);
    self->slot = Py_NewRef(slot);
    self->check = Py_NewRef(check);
    self->prefix = utf8_of(prefix, "a prefix");
    self->request = PyUnicode_InternFromString("request");
    self->address = PyUnicode_InternFromString("remote_addr");
    self->nowhere = PyUnicode_InternFromString("127.0.0.1");
    if (!self->prefix || !self->request || !self->address || !self->nowhere ||
        read_items(self, looked, counted) < 0)
        Py_CLEAR(self);
out:
    Py_XDECREF(looked);
    Py_XDECREF(counted);
    return (PyObject *)self;
}

static int gate_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->table);
    Py_VISIT(SELF(object)->check);
    return 0;
}

static int gate_clear(PyObject *object) {
    Py_CLEAR(SELF(object)->check);
    return 0;
}

static void gate_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    struct core_gate *self = SELF(object);
    PyObject_GC_UnTrack(object);
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_XDECREF(self->item[i].limit);
        Py_XDECREF(self->item[i].head);
        Py_XDECREF(self->item[i].tail);
    }
    Py_XDECREF(self->table);
    Py_XDECREF(self->prefix);
    Py_XDECREF(self->slot);
    Py_XDECREF(self->check);
    Py_XDECREF(self->request);
    Py_XDECREF(self->address);
    Py_XDECREF(self->nowhere);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ------------------------------------------------------------------------------------- asking */

/* The checks of one call, their keys one after the other in one buffer. */
struct question {
    struct core_key middle; /* what all keys have in common: "/", the prefix, who asks */
    struct core_key bytes;
    size_t start[WEIR_CHECKS_MAX];
    struct weir_check check[WEIR_CHECKS_MAX];
};

static int append(struct core_key *key, PyObject *bytes) {
    return core_key_append(key, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static int make_keys(const struct core_gate *self, struct question *question, PyObject *who) {
    struct core_key *bytes = &question->bytes;
    size_t client = 0;
    if (core_key_append(&question->middle, "/", 1) < 0 ||
        append(&question->middle, self->prefix) < 0)
        return -1;
    client = question->middle.len;
    if (core_key_identifier(&question->middle, who) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        const struct item *item = &self->item[i];
        struct weir_check *check = &question->check[i];
        question->start[i] = bytes->len;
        if (append(bytes, item->head) < 0 ||
            core_key_append(bytes, question->middle.data, question->middle.len) < 0 ||
            append(bytes, item->tail) < 0)
            return -1;
        *check = (struct weir_check){
            .limit = &item->limit->limit,
            .key_len = bytes->len - question->start[i],
            .cost = item->cost,
            .label = core_label(self->table, item->limit),
            .client = question->middle.data + client,
            .client_len = question->middle.len - client,
        };
        if (core_key_within_bounds(check->key_len) < 0)
            return -1;
    }
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++)
        question->check[i].key = bytes->data + question->start[i];
    return 0;
}

/* Decides items [from, to) and puts their verdicts where they belong. 1: allowed, 0: denied. */
static int decide(struct core_gate *self, struct question *question, Py_ssize_t from, Py_ssize_t to,
                  enum weir_mode mode, struct core_decision *decision, bool amend) {
    struct weir_verdict verdict[WEIR_CHECKS_MAX];
    struct weir_decision said;
    int rc = weir_decide(self->table->table, question->check + from, (size_t)(to - from),
                         decision->now_ns, mode, verdict, &said);
    if (rc < 0) {
        core_raise(self->state, rc, NULL);
        return -1;
    }
    /* A look that denies refuses the request: it counts, which looks do not otherwise. */
    if (from == 0 && mode == WEIR_TEST && !said.allowed)
        (void)weir_board_note(self->table->table, question->check, (size_t)to, decision->now_ns,
                              verdict, 0);
    for (Py_ssize_t i = from; i < to; i++)
        if (!amend || verdict[i - from].allowed)
            decision->verdict[self->item[i].place] = verdict[i - from];
    if (!amend) {
        decision->decision.deciding = (int32_t)self->item[from + said.deciding].place;
        if (said.rule)
            decision->decision.rule = said.rule;
    }
    return said.allowed;
}

static int decide_all(struct core_gate *self, struct question *question,
                      struct core_decision *decision) {
    int allowed = 1;
    if (self->looked > 0)
        allowed = decide(self, question, 0, self->looked, WEIR_TEST, decision, false);
    if (allowed >= 0 && self->looked < Py_SIZE(self)) {
        int deciding = decision->decision.deciding;
        int rc = decide(self, question, self->looked, Py_SIZE(self), allowed ? WEIR_HIT : WEIR_TEST,
                        decision, false);
        if (!allowed)
            decision->decision.deciding = deciding;
        allowed = rc < 0 ? rc : allowed && rc;
    }
    decision->decision.allowed = allowed > 0;
    return allowed < 0 ? -1 : 0;
}

/* Asks for `who`: into a new Decision, or, EACH for itself, into one that there is. New reference. */
static PyObject *gate_decide(struct core_gate *self, PyObject *who, struct core_decision *amended) {
    int64_t now_ns = core_now(self->state); /* may run Python code, so it comes first */
    if (now_ns < 0 || !core_table_borrow(self->table))
        return NULL;
    struct question question;
    core_key_init(&question.middle);
    core_key_init(&question.bytes);
    struct core_decision *decision = NULL;
    if (make_keys(self, &question, who) < 0)
        goto out;
    decision = amended ? (struct core_decision *)Py_NewRef((PyObject *)amended)
                       : core_decision_new(self->state, Py_SIZE(self));
    if (!decision)
        goto out;
    decision->now_ns = now_ns;
    int rc = amended ? decide(self, &question, 0, Py_SIZE(self), WEIR_EACH, decision, true)
                     : decide_all(self, &question, decision);
    if (rc < 0)
        Py_CLEAR(decision);
out:
    core_key_free(&question.middle);
    core_key_free(&question.bytes);
    return (PyObject *)decision;
}

static PyObject *gate_ask(PyObject *object, PyObject *who) {
    return gate_decide(SELF(object), who, NULL);
}

static PyObject *gate_charge(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_gate *self = SELF(object);
    if (nargs != 2 || Py_TYPE(args[1]) != self->state->decision_type) {
        PyErr_SetString(PyExc_TypeError, "charge() takes a key and a Decision");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++)
        if (self->item[i].place >= Py_SIZE(args[1])) {
            PyErr_SetString(PyExc_ValueError, "the Decision is of another gate");
            return NULL;
        }
    return gate_decide(self, args[0], (struct core_decision *)args[1]);
}

/* --------------------------------------------------------------------------------- for a request */

/* The client as get_remote_address() has it; NULL, without an exception, if that takes more. */
static PyObject *plain_address(struct core_gate *self, PyObject *context) {
    PyObject *request = PyObject_GetAttr(context, self->request);
    PyObject *address = request ? PyObject_GetAttr(request, self->address) : NULL;
    Py_XDECREF(request);
    if (!address)
        return NULL;
    bool text = PyUnicode_CheckExact(address) && PyUnicode_IS_COMPACT_ASCII(address);
    Py_ssize_t len = text ? PyUnicode_GET_LENGTH(address) : 0;
    if (len > 0 && !memchr(PyUnicode_1BYTE_DATA(address), ':', (size_t)len))
        return address;
    bool nowhere = address == Py_None || (text && len == 0);
    Py_DECREF(address);
    return nowhere ? Py_NewRef(self->nowhere) : NULL;
}

/* (who, decision, error), with None for what there is not; takes over the references. */
static PyObject *outcome(PyObject *who, PyObject *decision, PyObject *error) {
    PyObject *tuple = PyTuple_New(3);
    PyObject *items[] = {who, decision, error};
    for (int i = 0; i < 3; i++) {
        if (tuple)
            PyTuple_SET_ITEM(tuple, i, items[i] ? items[i] : Py_NewRef(Py_None));
        else
            Py_XDECREF(items[i]);
    }
    return tuple;
}

static PyObject *take_error(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

static PyObject *gate_enter(PyObject *object, PyObject *context) {
    struct core_gate *self = SELF(object);
    PyObject *who = plain_address(self, context);
    if (!who)
        return PyErr_Occurred() ? NULL : outcome(NULL, NULL, NULL);
    PyObject *decision = gate_decide(self, who, NULL);
    if (!decision)
        return outcome(who, NULL, take_error());
    if (!((struct core_decision *)decision)->decision.allowed)
        return outcome(who, decision, NULL);
    PyObject *seen = PyTuple_New(4);
    if (!seen) {
        Py_DECREF(who);
        Py_DECREF(decision);
        return NULL;
    }
    PyTuple_SET_ITEM(seen, 0, Py_NewRef(Py_None));
    PyTuple_SET_ITEM(seen, 1, Py_NewRef(self->check));
    PyTuple_SET_ITEM(seen, 2, who);
    PyTuple_SET_ITEM(seen, 3, decision);
    int rc = PyObject_SetAttr(context, self->slot, seen);
    Py_DECREF(seen);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --------------------------------------------------------------------------------------- type */

PyDoc_STRVAR(gate_doc,
             "Gate(table, looked, counted, prefix, slot, check, /)\n--\n\n"
             "One check of a table, made beforehand.\n\n"
             "looked, counted: limits that are only looked at, and those that are charged if none\n"
             "of these denies; each is (limit, tail, cost, place): tail follows the client in its\n"
             "key, place is the index of its verdict. prefix: comes before the client in keys.\n"
             "slot, check: see enter().");

PyDoc_STRVAR(ask_doc, "ask($self, who, /)\n--\n\nDecides for a client; returns a Decision.");

PyDoc_STRVAR(charge_doc,
             "charge($self, who, decision, /)\n--\n\n"
             "Charges each limit that has room, and puts their new verdicts into the Decision.");

PyDoc_STRVAR(
    enter_doc,
    "enter($self, context, /)\n--\n\n"
    "Decides for the client of a Flask request context, by its address.\n\n"
    "If no limit denies, context.<slot> becomes (None, check, who, decision), and None is\n"
    "returned. Otherwise nothing is set and (who, decision, error) is returned: a\n"
    "Decision that denies, or why there is none; all None for a client whose address\n"
    "cannot be taken as it is.");

static PyMethodDef gate_methods[] = {
    {"ask", gate_ask, METH_O, ask_doc},
    {"charge", (PyCFunction)(void (*)(void))gate_charge, METH_FASTCALL, charge_doc},
    {"enter", gate_enter, METH_O, enter_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot gate_slots[] = {
    {Py_tp_doc, (void *)gate_doc},
    {Py_tp_new, gate_new},
    {Py_tp_dealloc, gate_dealloc},
    {Py_tp_traverse, gate_traverse},
    {Py_tp_clear, gate_clear},
    {Py_tp_methods, gate_methods},
    {0, NULL},
};

PyType_Spec core_gate_spec = {
    .name = "weir.Gate",
    .basicsize = offsetof(struct core_gate, item),
    .itemsize = sizeof(struct item),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = gate_slots,
};
