/*
 * The rules of a Table, which block or allow clients: weir/rules.h.
 *
 * A client is an identifier, as a limiter's hit() takes it; an address, a range or "#…" as its
 * text. Rules store identifiers as in keys ("/" as %2F) and return them as they were given.
 *
 * Changes take milliseconds when there are many rules, and may wait for another process: without
 * the GIL.
 */
#include "rules.h"

#include <stdlib.h>

#include "client.h"
#include "clock.h"
#include "convert.h"
#include "decision.h"
#include "errors.h"
#include "key.h"
#include "lost.h"
#include "rules/rules.h"
#include "table.h"
#include "tuples.h"
#include "values.h"

#define SELF(object) ((struct core_table *)(object))

/* ------------------------------------------------------------------------------ times and kinds */

/* Seconds since the epoch; None or infinity: no expiry. */
static int read_until(PyObject *object, int64_t *until_ns) {
    *until_ns = WEIR_NEVER;
    if (!object || object == Py_None)
        return 0;
    double seconds = core_number(object, "until");
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (seconds == Py_HUGE_VAL)
        return 0;
    return core_seconds_to_ns(seconds, "until", until_ns);
}

static int64_t read_now(struct core_state *state, PyObject *object) {
    return object && object != Py_None ? core_moment(object, "now") : core_now(state);
}

static int read_kind(PyObject *object, int32_t *kind) {
    bool is_text = PyUnicode_Check(object);
    if (is_text && PyUnicode_CompareWithASCIIString(object, "block") == 0)
        *kind = WEIR_RULE_BLOCK;
    else if (is_text && PyUnicode_CompareWithASCIIString(object, "allow") == 0)
        *kind = WEIR_RULE_ALLOW;
    else {
        PyErr_Format(is_text ? PyExc_ValueError : PyExc_TypeError,
                     "a rule's kind must be \"block\" or \"allow\", not %R", object);
        return -1;
    }
    return 0;
}

static PyObject *rule_item(struct core_state *state, const struct weir_rule *rule) {
    PyObject *item = core_tuple_new(state->rule_type, 4);
    if (!item)
        return NULL;
    PyTuple_SET_ITEM(item, 0, core_client_text(rule));
    PyTuple_SET_ITEM(item, 1,
                     PyUnicode_FromString(rule->kind == WEIR_RULE_ALLOW ? "allow" : "block"));
    PyTuple_SET_ITEM(item, 2, PyFloat_FromDouble(core_ns_to_seconds(rule->since_ns)));
    PyTuple_SET_ITEM(item, 3,
                     rule->until_ns == WEIR_NEVER
                         ? Py_NewRef(Py_None)
                         : PyFloat_FromDouble(core_ns_to_seconds(rule->until_ns)));
    for (Py_ssize_t i = 0; i < 4; i++)
        if (!PyTuple_GET_ITEM(item, i)) {
            Py_DECREF(item);
            return NULL;
        }
    return item;
}

/* ------------------------------------------------------------------------------------- one rule */

/*
 * Appends the client in its counted form to `key`, which is initialized here, and enters the table.
 * NULL with an exception set; the key is freed then.
 */
static struct weir_table *enter_with_client(struct core_table *self, struct core_key *key,
                                            PyObject *client) {
    struct weir_table *table = NULL;
    core_key_init(key);
    if (core_client_append_counted(self, key, client) == 0)
        table = core_table_enter(self);
    if (!table)
        core_key_free(key);
    return table;
}

static PyObject *set_rule(PyObject *object, PyObject *args, PyObject *kwargs, const char *format,
                          int kind) {
    static const char *const names[] = {"client", "until", "now", NULL};
    struct core_table *self = SELF(object);
    PyObject *client, *until = NULL, *now = NULL;
    int64_t until_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, (char **)names, &client, &until, &now) ||
        read_until(until, &until_ns) < 0)
        return NULL;
    int64_t now_ns = read_now(self->state, now);
    struct core_key key;
    struct weir_table *table = now_ns < 0 ? NULL : enter_with_client(self, &key, client);
    if (!table)
        return NULL;
    struct weir_error error;
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_rules_set(table, key.data, key.len, kind, now_ns, until_ns, &error);
    CORE_END_SLEEP
    core_table_leave(self);
    core_key_free(&key);
    if (rc < 0)
        return core_raise(self->state, rc, &error);
    Py_RETURN_NONE;
}

PyObject *core_table_block(PyObject *object, PyObject *args, PyObject *kwargs) {
    return set_rule(object, args, kwargs, "O|OO:block", WEIR_RULE_BLOCK);
}

PyObject *core_table_allow(PyObject *object, PyObject *args, PyObject *kwargs) {
    return set_rule(object, args, kwargs, "O|OO:allow", WEIR_RULE_ALLOW);
}

PyObject *core_table_unlist(PyObject *object, PyObject *client) {
    struct core_table *self = SELF(object);
    struct core_key key;
    struct weir_table *table = enter_with_client(self, &key, client);
    if (!table)
        return NULL;
    struct weir_error error;
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_rules_remove(table, key.data, key.len, &error);
    CORE_END_SLEEP
    core_table_leave(self);
    core_key_free(&key);
    return rc < 0 ? core_raise(self->state, rc, &error) : PyBool_FromLong(rc);
}

PyObject *core_table_rule_of(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"client", "now", NULL};
    struct core_table *self = SELF(object);
    PyObject *client, *now = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:rule_of", (char **)names, &client, &now))
        return NULL;
    int64_t now_ns = read_now(self->state, now);
    struct core_key key;
    struct weir_rule rule;
    struct weir_table *table = NULL;
    core_key_init(&key);
    if (now_ns >= 0 && core_client_append(self->state, &key, client) == 0)
        table = core_table_enter(self);
    if (!table) {
        core_key_free(&key);
        return NULL;
    }
    int rc;
    CORE_BEGIN_SLEEP
    rc = weir_rules_find(table, key.data, key.len, now_ns, &rule);
    CORE_END_SLEEP
    core_table_leave(self);
    core_key_free(&key);
    if (rc < 0)
        return core_raise(self->state, rc, NULL);
    return rc == WEIR_RULE_NONE ? Py_NewRef(Py_None) : rule_item(self->state, &rule);
}

/* ----------------------------------------------------------------------------------- many rules */

/* Copies all rules into memory that the caller frees; NULL with an exception set. */
static struct weir_rule *copy_rules(struct core_table *self, size_t *count) {
    struct weir_table *table = core_table_enter(self);
    struct weir_rule *rules = NULL;
    size_t room = 0;
    int rc = 0;
    if (!table)
        return NULL;
    CORE_BEGIN_SLEEP
    *count = 0;
    do { /* until no rule was added between the two calls */
        room = *count + 16;
        PyMem_RawFree(rules);
        rules = PyMem_RawMalloc(room * sizeof *rules);
        *count = room;
        rc = rules ? weir_rules_list(table, rules, count) : WEIR_ENOMEM;
    } while (rc == 0 && *count > room);
    CORE_END_SLEEP
    core_table_leave(self);
    if (rc == 0)
        return rules;
    PyMem_RawFree(rules);
    core_raise(self->state, rc, NULL);
    return NULL;
}

PyObject *core_table_rules(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"now", NULL};
    struct core_table *self = SELF(object);
    PyObject *now = NULL;
    size_t count;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:rules", (char **)names, &now))
        return NULL;
    int64_t now_ns = read_now(self->state, now);
    struct weir_rule *rules = now_ns >= 0 ? copy_rules(self, &count) : NULL;
    if (!rules)
        return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        if (rules[i].until_ns <= now_ns)
            continue;
        PyObject *item = rule_item(self->state, &rules[i]);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    PyMem_RawFree(rules);
    return list;
}

/* The rules read from the argument of load_rules(). */
struct loaded {
    struct weir_rule *rule;
    size_t count, room;
};

static int load_one(struct core_table *self, struct loaded *loaded, PyObject *entry) {
    PyObject *items = core_tuple_of(entry, "a rule must be (client, kind, until)");
    if (!items)
        return -1;
    int rc = -1;
    struct core_key key;
    core_key_init(&key);
    if (PySequence_Fast_GET_SIZE(items) != 3) {
        PyErr_Format(PyExc_ValueError, "a rule must be (client, kind, until), not %R", entry);
        goto out;
    }
    if (loaded->count == WEIR_RULES_MAX) {
        PyErr_Format(PyExc_ValueError, "no table has room for more than %u rules", WEIR_RULES_MAX);
        goto out;
    }
    if (loaded->count == loaded->room) {
        size_t room = loaded->room * 2 + 64;
        struct weir_rule *more = PyMem_RawRealloc(loaded->rule, room * sizeof *more);
        if (!more) {
            PyErr_NoMemory();
            goto out;
        }
        loaded->rule = more;
        loaded->room = room;
    }
    struct weir_rule *rule = &loaded->rule[loaded->count];
    if (core_client_append_counted(self, &key, PySequence_Fast_GET_ITEM(items, 0)) < 0 ||
        read_kind(PySequence_Fast_GET_ITEM(items, 1), &rule->kind) < 0 ||
        read_until(PySequence_Fast_GET_ITEM(items, 2), &rule->until_ns) < 0)
        goto out;
    memcpy(rule->client, key.data, key.len);
    rule->client_len = (uint32_t)key.len;
    loaded->count++;
    rc = 0;
out:
    core_key_free(&key);
    Py_DECREF(items);
    return rc;
}

static int load_all(struct core_table *self, struct loaded *loaded, PyObject *rules) {
    PyObject *iterator = PyObject_GetIter(rules), *entry;
    if (!iterator)
        return -1;
    int rc = 0;
    while (rc == 0 && (entry = PyIter_Next(iterator))) {
        rc = load_one(self, loaded, entry);
        Py_DECREF(entry);
    }
    Py_DECREF(iterator);
    return rc < 0 || PyErr_Occurred() ? -1 : 0;
}

PyObject *core_table_load_rules(PyObject *object, PyObject *args, PyObject *kwargs) {
    static const char *const names[] = {"rules", "replace", "now", NULL};
    struct core_table *self = SELF(object);
    PyObject *rules, *now = NULL;
    int replace = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$pO:load_rules", (char **)names, &rules,
                                     &replace, &now))
        return NULL;
    struct loaded loaded = {NULL, 0, 0};
    struct weir_table *table = NULL;
    struct weir_error error;
    int64_t now_ns = load_all(self, &loaded, rules) < 0 ? -1 : read_now(self->state, now);
    if (now_ns >= 0)
        table = core_table_enter(self);
    if (!table) {
        PyMem_RawFree(loaded.rule);
        return NULL;
    }
    size_t hold = 0;
    int rc;
    CORE_BEGIN_SLEEP
    for (size_t i = 0; i < loaded.count; i++)
        hold += loaded.rule[i].until_ns > now_ns;
    rc = (replace ? weir_rules_replace : weir_rules_load)(table, loaded.rule, loaded.count, now_ns,
                                                          &error);
    PyMem_RawFree(loaded.rule);
    CORE_END_SLEEP
    core_table_leave(self);
    return rc < 0 ? core_raise(self->state, rc, &error) : PyLong_FromSize_t(hold);
}

PyObject *core_table_get_rules_version(PyObject *object, void *Py_UNUSED(closure)) {
    struct weir_table *table = core_table_borrow(SELF(object));
    return table ? PyLong_FromUnsignedLongLong(weir_rules_version(table)) : NULL;
}

/* -------------------------------------------------------------------------- decisions elsewhere */

PyObject *core_table_ruled(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_table *self = SELF(object);
    if (nargs < 2 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "ruled() takes 2 or 3 arguments (%zd given)", nargs);
        return NULL;
    }
    int64_t now_ns = read_now(self->state, nargs > 2 ? args[2] : NULL);
    struct weir_table *table = now_ns >= 0 ? core_table_borrow(self) : NULL;
    if (!table)
        return NULL;
    if (!weir_rules_any(table, now_ns))
        Py_RETURN_NONE;
    struct core_request request;
    struct core_decision *decision = NULL;
    int rc = -1;
    if (core_request_read(&request, self->state, self, args[0], args[1], NULL) == 0)
        decision = core_decision_new(self->state, request.count);
    if (decision && (table = core_table_borrow(self))) {
        decision->now_ns = now_ns;
        rc = weir_rules_match(table, request.check, (size_t)request.count, now_ns,
                              decision->verdict, &decision->decision);
        if (rc < 0)
            core_raise(self->state, rc, NULL);
    }
    core_request_free(&request);
    if (rc > 0)
        return (PyObject *)decision;
    Py_XDECREF(decision);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---------------------------------------------------------------------------------------- texts */

const char core_block_doc[] =
    "block($self, /, client, until=None, now=None)\n--\n\n"
    "Deny everything to a client or a range of IP addresses, in all processes, at once.\n\n"
    "client: an identifier as for hit(), '10.0.0.0/8', '2001:db8::/32', or the '#…' that\n"
    "top_clients() shows. until: seconds since the epoch, or None: no expiry. Replaces the\n"
    "rule of the same client or range. Where weir.flask counts in this table, an IPv6 address\n"
    "means the network that is counted: 2001:db8::1 is 2001:db8::/64 (see ipv6_prefix). The\n"
    "most specific rule wins. Raises ValueError for a range with bits after its prefix or\n"
    "what merely looks like an address, TableError if the table is full.\n\n"
    ">>> import time\n"
    ">>> table = Table('memory://?keys=1000')\n"
    ">>> table.block('203.0.113.0/24', time.time() + 3600)\n"
    ">>> table.rule_of('203.0.113.7').kind\n"
    "'block'";

const char core_allow_doc[] =
    "allow($self, /, client, until=None, now=None)\n--\n\n"
    "Allow all requests of a client or a range without limits; nothing is charged. See block().";

const char core_unlist_doc[] =
    "unlist($self, client, /)\n--\n\n"
    "Remove the rule of exactly this client or range. True if there was one.";

const char core_rules_doc[] =
    "rules($self, /, now=None)\n--\n\n"
    "The rules that have not expired: a list of Rule(client, kind, since, until).\n\n"
    "IPv4 by address, IPv6 by address, then names.";

const char core_rule_of_doc[] = "rule_of($self, /, client, now=None)\n--\n\n"
                                "The Rule that applies to a client, or None.";

const char core_load_rules_doc[] =
    "load_rules($self, /, rules, *, replace=False, now=None)\n--\n\n"
    "Set many rules in one change: all of them or, if one is wrong, none.\n\n"
    "rules: an iterable of (client, kind, until). replace: remove all others. Returns how\n"
    "many hold; expired rules are skipped.";

const char core_ruled_doc[] =
    "ruled($self, limits, keys, now=None, /)\n--\n\n"
    "For other stores: the Decision if a rule of this table decides, or None.\n\n"
    "limits and keys as in decide(). Counts nothing.";
