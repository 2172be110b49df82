/* Clients as callers name them, and the form in which rules and statistics store them. */
#include "client.h"

#include "clock.h"
#include "errors.h"
#include "ipv6_prefix.h"
#include "key.h"
#include "lost.h"
#include "rules/address.h"
#include "table.h"
#include "values.h"
#include "weir/meter.h"

#define PREFIX_METER "ipv6 prefix"
#define SELF(object) ((struct core_table *)(object))
/* "#" and 16 hexadecimal digits: the form in which top_clients() shows a client. */
static bool is_hash(const char *text, size_t len) {
    if (len != 17 || text[0] != '#')
        return false;
    for (size_t i = 1; i < len; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
    return true;
}

/* Appends a client that is str or bytes. 0, or -1 with an exception set. */
static int append_client_text(struct core_state *state, struct core_key *key, PyObject *client) {
    const char *text;
    Py_ssize_t len = 0;
    if (PyUnicode_Check(client)) {
        text = PyUnicode_AsUTF8AndSize(client, &len);
        if (!text)
            PyErr_Clear(); /* lone surrogates: treated as any other identifier */
    } else {
        text = PyBytes_AS_STRING(client);
        len = PyBytes_GET_SIZE(client);
    }
    if (text) {
        struct weir_range range;
        struct weir_error error;
        int rc = weir_range_parse(text, (size_t)len, &range, &error);
        if (rc < 0) {
            core_raise(state, rc, &error);
            return -1;
        }
        if (range.family != WEIR_FAMILY_NONE || is_hash(text, (size_t)len))
            return core_key_append(key, text, (size_t)len);
    }
    size_t from = key->len;
    if (core_key_identifier(key, client) < 0)
        return -1;
    len = (Py_ssize_t)(key->len - from);
    if (len > 0 && len <= WEIR_RULE_CLIENT_MAX)
        return 0;
    PyErr_Format(
        PyExc_ValueError,
        "a rule's client has 1 to %d bytes, not %zd; Table.name_of() makes a short name of it",
        WEIR_RULE_CLIENT_MAX, len);
    return -1;
}

/*
 * Appends the client of a rule, in the form in which decisions look it up. 0, or -1 with an
 * exception set.
 */
int core_client_append(struct core_state *state, struct core_key *key, PyObject *client) {
    if (client == Py_None) { /* probably a failed lookup, not a client named None */
        PyErr_SetString(PyExc_TypeError, "a rule's client must not be None");
        return -1;
    }
    PyObject *text = core_identifier(client);
    int rc = text ? append_client_text(state, key, text) : -1;
    Py_XDECREF(text);
    return rc;
}

/* Like core_client_append(), but an IPv6 address becomes the network that limits count. */
int core_client_append_counted(struct core_table *self, struct core_key *key, PyObject *client) {
    char form[WEIR_RANGE_TEXT];
    size_t from = key->len;
    if (core_client_append(self->state, key, client) < 0)
        return -1;
    /* The client's __str__() may have closed the table, so it is read after that. */
    int prefix = self->table ? core_ipv6_prefix(self->table) : -1;
    struct weir_range range;
    if (prefix < 0 || weir_client_range(key->data + from, key->len - from, &range) != WEIR_FAMILY_6)
        return 0;
    size_t len =
        weir_client_form(key->data + from, key->len - from, (uint32_t)prefix, form, sizeof form);
    key->len = from;
    return core_key_append(key, form, len);
}

PyObject *core_table_get_ipv6_prefix(PyObject *object, void *Py_UNUSED(closure)) {
    struct weir_table *table = core_table_borrow(SELF(object));
    if (!table)
        return NULL;
    int prefix = core_ipv6_prefix(table);
    return prefix < 0 ? Py_NewRef(Py_None) : PyLong_FromLong(prefix);
}

int core_table_set_ipv6_prefix(PyObject *object, PyObject *value, void *Py_UNUSED(closure)) {
    int64_t prefix;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "ipv6_prefix cannot be deleted");
        return -1;
    }
    if (core_count(value, "ipv6_prefix", &prefix) < 0)
        return -1;
    if (prefix > 128) {
        PyErr_SetString(PyExc_ValueError, "ipv6_prefix must be 0 to 128");
        return -1;
    }
    int64_t now_ns = core_now(SELF(object)->state);
    struct weir_table *table = now_ns >= 0 ? core_table_borrow(SELF(object)) : NULL;
    if (!table)
        return -1;
    SELF(object)->noted_prefix = (int)prefix + 1;
    int rc = core_set_ipv6_prefix(table, (int)prefix, now_ns);
    if (rc < 0)
        core_raise(SELF(object)->state, rc, NULL);
    return rc < 0 ? -1 : 0;
}

/* The value of a hexadecimal digit as keys have them, or -1. */
static int digit_of(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A rule's client as it was given. Bytes that are not UTF-8 become backslash escapes. */
PyObject *core_client_text(const struct weir_rule *rule) {
    char plain[WEIR_RULE_CLIENT_MAX];
    Py_ssize_t len = 0;
    for (uint32_t i = 0; i < rule->client_len; i++) {
        const char *at = rule->client + i;
        int high = at[0] == '%' && i + 2 < rule->client_len ? digit_of(at[1]) : -1;
        int low = high >= 0 ? digit_of(at[2]) : -1;
        plain[len++] = low >= 0 ? (char)(high << 4 | low) : at[0];
        i += low >= 0 ? 2 : 0;
    }
    PyObject *text = PyUnicode_DecodeUTF8(plain, len, "surrogatepass");
    if (!text && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        text = PyUnicode_DecodeUTF8(plain, len, "backslashreplace");
    }
    return text;
}
