/* Clients of rules: identifiers, addresses, ranges and hashes. */
#ifndef WEIR_EXT_CLIENT_H
#define WEIR_EXT_CLIENT_H

#include "table.h"
#include "weir/rules.h"

/* Appends the client of a rule in the form that rules store. 0, or -1 with an exception set. */
int core_client_append(struct core_state *state, struct core_key *key, PyObject *client);

/* The same; an IPv6 address becomes the network that limits count. */
int core_client_append_counted(struct core_table *self, struct core_key *key, PyObject *client);

/*
 * The client of a rule as it was given. A new str; bytes that are not UTF-8 become backslash
 * escapes.
 */
PyObject *core_client_text(const struct weir_rule *rule);

/* Table.ipv6_prefix. */
PyObject *core_table_get_ipv6_prefix(PyObject *object, void *closure);
int core_table_set_ipv6_prefix(PyObject *object, PyObject *value, void *closure);

#endif
