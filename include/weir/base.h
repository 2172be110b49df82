/*
 * Results, errors, bounds and the version: what all headers of libweir need. weir/weir.h includes
 * this header.
 */
#ifndef WEIR_BASE_H
#define WEIR_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WEIR_API __attribute__((visibility("default")))
#else
#define WEIR_API
#endif

#define WEIR_VERSION_MAJOR 0
#define WEIR_VERSION_MINOR 1
#define WEIR_VERSION_PATCH 0

/* Bounds. Input beyond them is refused with an error that names the bound. */
#define WEIR_CHECKS_MAX 32              /* limits in one decision, and in one limit string */
#define WEIR_TEXT_MAX 4096              /* bytes of a limit string */
#define WEIR_KEY_MAX ((size_t)16 << 20) /* bytes of a key */
#define WEIR_NOW_MAX INT64_C(4611686018427387904)       /* 2^62 ns: the year 2116 */
#define WEIR_PERIOD_MAX_NS INT64_C(3110400000000000000) /* 100 years of 360 days */
#define WEIR_NAME_MAX 200                               /* bytes of a table's name in shm://name */
#define WEIR_KEYS_MAX (UINT64_C(1) << 28)               /* keys of a table */
#define WEIR_HITS_MAX (UINT64_C(1) << 29)               /* moving-window hits of a table */

/* The retry_after_ns of a request that can never pass, because its cost exceeds the limit. */
#define WEIR_NEVER INT64_MAX

/* Errors: name, value, text. */
#define WEIR_ERRORS(X)                                                                             \
    X(EINVAL, -1, "an argument is out of its range")                                               \
    X(ESYNTAX, -2, "a limit string or URI cannot be read")                                         \
    X(ENOMEM, -3, "out of memory")                                                                 \
    X(ENOSPC, -4, "not enough space to reserve the table")                                         \
    X(EACCES, -5, "no permission, or owned by another user")                                       \
    X(ENOENT, -6, "no such table")                                                                 \
    X(EFORMAT, -7, "not a weir table, or damaged")                                                 \
    X(EVERSION, -8, "a table of another version or machine layout")                                \
    X(EMISMATCH, -9, "the table exists with another size")                                         \
    X(EFULL, -10, "the table's pool of moving-window hits is full")                                \
    X(EBUSY, -11, "a stopped process holds the table's lock")                                      \
    X(ESYSTEM, -12, "a system call failed")                                                        \
    X(ETOOMANY, -13, "too many limits in one string or decision")                                  \
    X(ECORRUPT, -14, "the table's invariants do not hold")

enum weir_result {
    WEIR_OK = 0,
#define WEIR_ERROR_ENUM(name, value, text) WEIR_##name = value,
    WEIR_ERRORS(WEIR_ERROR_ENUM)
#undef WEIR_ERROR_ENUM
};

/* An error for people to read. `message` is always NUL-terminated. */
struct weir_error {
    int code;          /* the WEIR_E... value that was returned */
    int column;        /* limit strings and URIs: 1-based column of the first wrong byte; 0: none */
    char message[256]; /* one sentence, no newline; bytes of the input are escaped */
};

/* The text of a result, e.g. "out of memory". Static storage; never NULL. */
WEIR_API const char *weir_strerror(int result);

/* "0.1.0". Static storage. */
WEIR_API const char *weir_version(void);

/* A table that is open: weir/table.h. */
struct weir_table;

#ifdef __cplusplus
}
#endif

#endif
