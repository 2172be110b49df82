/* The classes of limits: those of weir.limits and those of applications. */
#ifndef WEIR_EXT_ITEM_CLASS_H
#define WEIR_EXT_ITEM_CLASS_H

#include "core.h"

/* The methods that a class may override. */
enum core_own {
    CORE_OWN_EXPIRY = 1, /* get_expiry() */
    CORE_OWN_KEY = 2,    /* key_for() */
};

/* The functions of weir.limits: indices in state->item_hooks. */
enum core_item_hook {
    CORE_ITEM_PARSE_OWN,
    CORE_ITEM_COPY_ATTRIBUTES,
    CORE_ITEM_PLAIN,
    CORE_ITEM_PLAIN_JOINED,
    CORE_ITEM_HOOKS
};

/*
 * _core._set_items(unit_classes, granularities, hooks): called by weir.limits when it is imported.
 */
PyObject *core_set_items(PyObject *module, PyObject *args);

/* A function of weir.limits, once it is imported. Borrowed. */
PyObject *core_item_hook(const struct core_state *state, enum core_item_hook which);

/* Weir's class of limits of this unit; Limit until weir.limits is imported. Borrowed. */
PyTypeObject *core_item_class(struct core_state *state, int unit);

/* The methods that a type overrides: bits of enum core_own, or -1 with an exception set. */
int core_item_own(struct core_state *state, PyTypeObject *type);

/* Whether `type` takes (amount, multiples, namespace): its (seconds, name) as a new reference. NULL
 * without an exception: it takes the arguments of Limit. */
PyObject *core_item_granularity(struct core_state *state, PyTypeObject *type);

/* Copies the additional attributes of an item's class. 0, or -1 with an exception set. */
int core_item_copy(struct core_state *state, PyObject *from, PyObject *to);

#endif
