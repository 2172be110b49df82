/*
 * From identifiers to the bytes of a key.
 *
 *     ("alice", "view/1", 7)  ->  LIMITER/alice/view%2F1/7
 *
 * limits joins unescaped identifiers by "/", so ("a/b", "c") and ("a", "b/c") share a counter.
 * Here, "/" and "%" within an identifier become %2F and %25, so different identifiers have
 * different keys. There are two special cases: in an identifier that is not UTF-8 (bytes, or a str
 * with lone surrogates), all bytes above 127 are written as %80 to %FF, which never occur in text;
 * and a single empty identifier is written "%", because an empty key means no identifiers.
 *
 * A str and the bytes of its UTF-8 have the same key, and so do an int and its digits, as in
 * limits. The key of any other object is its str(). An object whose str() is its address in memory
 * is refused: no other request would have the same key, so its limit would never deny.
 *
 * Clients choose identifiers, and stores keep keys, so their length is bounded. An identifier of
 * more than 256 bytes, or a key of more than 4096, is written as its first bytes, "%#" (which is
 * not an escape), and a strong hash of all of it.
 */
#include "key.h"

#include "digest.h"

#define IDENTIFIER_MAX 256           /* bytes, before escaping */
#define PART_MAX WEIR_IDENTIFIER_MAX /* after escaping */
#define JOINED_MAX 4096
#define HEAD 64 /* readable bytes of a hashed identifier */

int core_key_within_bounds(size_t len) {
    if (len <= WEIR_KEY_MAX)
        return 0;
    PyErr_Format(PyExc_ValueError, "a key of %zu bytes is longer than %zu", len, WEIR_KEY_MAX);
    return -1;
}

int core_key_grow(struct core_key *key, size_t more) {
    if (more > WEIR_KEY_MAX * 3)
        return core_key_within_bounds(more);
    size_t room = (key->len + more) * 2;
    bool on_stack = key->data == key->small;
    char *data = PyMem_RawRealloc(on_stack ? NULL : key->data, room);
    if (!data) {
        PyErr_NoMemory();
        return -1;
    }
    if (on_stack)
        memcpy(data, key->small, key->len);
    key->data = data;
    key->room = room;
    return 0;
}

/* How many of the first HEAD bytes are whole characters. */
static size_t head_len(const char *text) {
    size_t len = HEAD;
    while (len > HEAD - 4 && ((unsigned char)text[len] & 0xC0) == 0x80)
        len--;
    return len;
}

/* Appends "%#" and the hash of `text`. */
static int append_digest(struct core_key *key, const char *text, size_t len) {
    char hex[WEIR_DIGEST_HEX];
    weir_digest(text, len, hex);
    return core_key_append(key, "%#", 2) < 0 ? -1 : core_key_append(key, hex, sizeof hex);
}

/* Bounds the length of `key` from `start` on. */
static int bound(struct core_key *key, size_t start, size_t most) {
    size_t len = key->len - start;
    if (len <= most)
        return 0;
    char hex[WEIR_DIGEST_HEX];
    weir_digest(key->data + start, len, hex);
    key->len = start + head_len(key->data + start);
    return core_key_append(key, "%#", 2) < 0 ? -1 : core_key_append(key, hex, sizeof hex);
}

/* Appends text with escapes, and cut to its bound. */
static int append_escaping(struct core_key *key, const char *text, size_t len) {
    if (core_key_reserve(key, 3 * (len < IDENTIFIER_MAX ? len : IDENTIFIER_MAX)) < 0)
        return -1;
    key->len += weir_identifier(text, len, key->data + key->len);
    return 0;
}

/* Not 0 if a byte of `word` equals the byte that is repeated in `bytes`. */
static inline uint64_t has_byte(uint64_t word, uint64_t bytes) {
    uint64_t zero = word ^ bytes;
    return (zero - UINT64_C(0x0101010101010101)) & ~zero & UINT64_C(0x8080808080808080);
}

/*
 * Appends text that rarely needs escapes: copies eight bytes at a time until one needs an escape.
 */
static inline int append_text(struct core_key *key, const char *text, size_t len) {
    if (len > IDENTIFIER_MAX)
        return append_escaping(key, text, len);
    if (core_key_reserve(key, len) < 0)
        return -1;
    char *out = key->data + key->len;
    size_t i = 0;
    uint64_t word, found = 0;
    for (; i + 8 <= len; i += 8) {
        memcpy(&word, text + i, 8);
        found |= has_byte(word, UINT64_C(0x2F2F2F2F2F2F2F2F)) |
                 has_byte(word, UINT64_C(0x2525252525252525));
        memcpy(out + i, &word, 8);
    }
    for (; i < len; i++) {
        found |= text[i] == '/' || text[i] == '%';
        out[i] = text[i];
    }
    if (found)
        return append_escaping(key, text, len);
    key->len += len;
    return 0;
}

/* A str with lone surrogates, which is not valid UTF-8. */
static int append_surrogates(struct core_key *key, PyObject *text) {
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        return -1;
    PyErr_Clear();
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (!bytes)
        return -1;
    int rc = append_escaping(key, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return rc;
}

static int append_str(struct core_key *key, PyObject *text) {
    Py_ssize_t len;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &len);
    return utf8 ? append_text(key, utf8, (size_t)len) : append_surrogates(key, text);
}

static int append_bytes(struct core_key *key, PyObject *bytes) {
    return append_escaping(key, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static int append_int(struct core_key *key, PyObject *number) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow || (value == -1 && PyErr_Occurred()))
        return overflow ? 1 : -1;
    char text[24];
    char *at = text + sizeof text;
    unsigned long long left = value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value;
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (value < 0)
        *--at = '-';
    return core_key_append(key, at, (size_t)(text + sizeof text - at));
}

/* Whether str() of it would be "<module.Class object at 0x7f...>", or that of a function. */
static bool has_no_text(PyObject *object) {
    const PyTypeObject *type = Py_TYPE(object);
    return PyFunction_Check(object) || PyCFunction_Check(object) || PyMethod_Check(object) ||
           (type->tp_str == PyBaseObject_Type.tp_str && type->tp_repr == PyBaseObject_Type.tp_repr);
}

/*
 * A str. A subclass may have another text than its content, such as an enum: str() counts, as in
 * limits.
 */
static bool is_text(PyObject *object) {
    return PyUnicode_Check(object) && Py_TYPE(object)->tp_str == PyUnicode_Type.tp_str;
}

PyObject *core_identifier(PyObject *object) {
    if (is_text(object) || PyBytes_Check(object))
        return Py_NewRef(object);
    if (has_no_text(object)) {
        PyErr_Format(PyExc_TypeError,
                     "an identifier must be str, bytes, a number or an object whose str() is the "
                     "same each time: %.100s has none%s",
                     Py_TYPE(object)->tp_name,
                     PyCallable_Check(object) ? "; was it to be called?" : "");
        return NULL;
    }
    /* The __class__ of a proxy is the class of its object. */
    int bytes = PyObject_IsInstance(object, (PyObject *)&PyBytes_Type);
    return bytes < 0 ? NULL : bytes ? PyObject_Bytes(object) : PyObject_Str(object);
}

/* An object that is neither str nor bytes. */
static int append_object(struct core_key *key, PyObject *object) {
    int rc = PyLong_CheckExact(object) ? append_int(key, object) : 1;
    if (rc <= 0)
        return rc;
    PyObject *text = core_identifier(object);
    if (!text)
        return -1;
    rc = PyBytes_Check(text) ? append_bytes(key, text) : append_str(key, text);
    Py_DECREF(text);
    return rc;
}

static inline int append_identifier(struct core_key *key, PyObject *identifier) {
    if (PyUnicode_CheckExact(identifier) && PyUnicode_IS_COMPACT_ASCII(identifier))
        return append_text(key, (const char *)PyUnicode_1BYTE_DATA(identifier),
                           (size_t)PyUnicode_GET_LENGTH(identifier));
    return core_key_identifier(key, identifier);
}

int core_key_identifier(struct core_key *key, PyObject *identifier) {
    if (is_text(identifier))
        return append_str(key, identifier);
    if (PyBytes_Check(identifier))
        return append_bytes(key, identifier);
    return append_object(key, identifier);
}

int core_key_identifiers(struct core_key *key, PyObject *const *identifiers, Py_ssize_t count) {
    size_t start = key->len;
    for (Py_ssize_t i = 0; i < count; i++) {
        if ((i > 0 && core_key_append(key, "/", 1) < 0) ||
            append_identifier(key, identifiers[i]) < 0)
            return -1;
        if (i == 0)
            key->first = key->len;
    }
    if (count == 1 && key->len == start)
        return core_key_append(key, "%", 1);
    int rc = bound(key, start, JOINED_MAX);
    if (key->first > key->len)
        key->first = key->len;
    return rc;
}

int core_key_join(struct core_key *key, PyObject *prefix, PyObject *const *identifiers,
                  Py_ssize_t count) {
    if (core_key_append(key, PyBytes_AS_STRING(prefix), (size_t)PyBytes_GET_SIZE(prefix)) < 0)
        return -1;
    if (count == 0)
        return 0;
    if (core_key_append(key, "/", 1) < 0)
        return -1;
    return core_key_identifiers(key, identifiers, count);
}

/* Appends a joined key, after bounding each part and the whole. */
static int append_joined(struct core_key *key, const char *text, size_t len) {
    size_t start = key->len;
    if (len <= PART_MAX)
        return core_key_append(key, text, len);
    if (len > 64 * JOINED_MAX) /* refused before it is copied */
        return core_key_append(key, text, head_len(text)) < 0 ? -1 : append_digest(key, text, len);
    for (const char *end = text + len, *at = text; at <= end; at++) {
        const char *slash = at < end ? memchr(at, '/', (size_t)(end - at)) : NULL;
        size_t part = key->len, part_len = (size_t)((slash ? slash : end) - at);
        if (core_key_append(key, at, part_len) < 0 || bound(key, part, PART_MAX) < 0 ||
            (slash && core_key_append(key, "/", 1) < 0))
            return -1;
        at += part_len;
    }
    return bound(key, start, JOINED_MAX);
}

int core_key_joined(struct core_key *key, PyObject *joined) {
    if (PyBytes_Check(joined))
        return append_joined(key, PyBytes_AS_STRING(joined), (size_t)PyBytes_GET_SIZE(joined));
    if (!PyUnicode_Check(joined)) {
        PyErr_Format(PyExc_TypeError, "a key must be str or bytes, not %.100s",
                     Py_TYPE(joined)->tp_name);
        return -1;
    }
    Py_ssize_t len;
    const char *utf8 = PyUnicode_AsUTF8AndSize(joined, &len);
    return utf8 ? append_joined(key, utf8, (size_t)len) : append_surrogates(key, joined);
}

int core_key_mark(struct core_key *key, unsigned long long namespace) {
    char mark[9] = {0}; /* NUL first: a limit's namespace never starts with one */
    for (int i = 0; i < 8; i++)
        mark[i + 1] = (char)(namespace >> (8 * i) & 0xFF);
    return core_key_append(key, mark, sizeof mark);
}
