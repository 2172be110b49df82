/* Keys: the bytes that identify a counter. */
#ifndef WEIR_EXT_KEY_H
#define WEIR_EXT_KEY_H

#include "core.h"

/*
 * A key under construction, in `small` while it fits. core_key_init() first, core_key_free() last.
 * Functions return 0, or -1 with an exception set.
 */
struct core_key {
    char *data;
    size_t len;
    size_t room;
    size_t first; /* end of the first identifier, once appended */
    char small[480];
};

static inline void core_key_init(struct core_key *key) {
    key->data = key->small;
    key->len = 0;
    key->room = sizeof key->small;
}

static inline void core_key_free(struct core_key *key) {
    if (key->data != key->small)
        PyMem_RawFree(key->data);
}

/* Makes room for `more` bytes. */
int core_key_grow(struct core_key *key, size_t more);

static inline int core_key_reserve(struct core_key *key, size_t more) {
    return key->room - key->len >= more ? 0 : core_key_grow(key, more);
}

/* Appends bytes unchanged. */
static inline int core_key_append(struct core_key *key, const void *bytes, size_t len) {
    if (core_key_reserve(key, len) < 0)
        return -1;
    memcpy(key->data + key->len, bytes, len);
    key->len += len;
    return 0;
}

/*
 * The text of an identifier: str and bytes unchanged, the str() of other objects. New reference;
 * NULL with an exception set, which may come from the object's __str__(). Runs Python code.
 */
PyObject *core_identifier(PyObject *object);

/* Appends the text of an identifier with its "/" escaped. Runs Python code. */
int core_key_identifier(struct core_key *key, PyObject *identifier);

/* Appends the prefix of a limit (bytes), then "/" and the identifier for each identifier. */
int core_key_join(struct core_key *key, PyObject *prefix, PyObject *const *identifiers,
                  Py_ssize_t count);

/* Appends "/" and the identifiers joined by "/", without a namespace. */
int core_key_identifiers(struct core_key *key, PyObject *const *identifiers, Py_ssize_t count);

/* Appends a key that is already joined: str or bytes, unchanged. */
int core_key_joined(struct core_key *key, PyObject *joined);

/* Appends the mark of Table(namespace=…), which separates the keys of namespaces; nothing for 0. */
int core_key_mark(struct core_key *key, unsigned long long namespace);

/* 0 if a key may have this length, or -1 with an exception set. */
int core_key_within_bounds(size_t len);

#endif
