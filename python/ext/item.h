/* Limits of other classes: how they are parsed, and how they are decided. */
#ifndef WEIR_EXT_ITEM_H
#define WEIR_EXT_ITEM_H

#include "limit.h"

/* A parsed limit, as an instance of the class that is registered for its unit. */
PyObject *core_item_parsed(struct core_state *state, const struct weir_limit *limit);

/*
 * The limits in a text with units of an application, which the C parser refuses: a list; None if it
 * is not such a text; NULL with an exception set.
 */
PyObject *core_item_parse_own(struct core_state *state, PyObject *text);

/*
 * For an item whose `own` is not 0: a tuple of the limit to decide and its identifiers; NULL with
 * an exception set. Calls methods of the item's class.
 */
PyObject *core_item_plain(struct core_state *state, PyObject *item, PyObject *const *identifiers,
                          Py_ssize_t count);

/* The same for a key that is joined already: (limit, key). */
PyObject *core_item_plain_joined(struct core_state *state, PyObject *item, PyObject *joined);

#endif
