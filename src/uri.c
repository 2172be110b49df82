/*
 * memory://  shm://name  file:///path, each with ?keys=N&hits=N&rules=N&group=NAME. This file only
 * parses text; it opens nothing.
 */
#include "uri.h"

#include <stdio.h>
#include <string.h>

#include "error.h"
#include "weir/rules.h"

/*
 * How much of a URI an error may show. A URI of another store with a mistyped scheme can contain a
 * password, before an "@" or as an option. The path of file:///path may contain "@".
 */
static size_t shown_len(const char *text) {
    static const char *const known[] = {"keys=", "hits=", "rules=", "group=", "forks="};
    if (strchr(text, '@') && strncmp(text, "file:///", 8) != 0)
        return strcspn(text, ":@");
    for (const char *at = strchr(text, '?'); at; at = strchr(at, '&')) {
        bool found = *++at == '&';
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            found = found || strncmp(at, known[i], strlen(known[i])) == 0;
        if (!found)
            return (size_t)(at - text) + strcspn(at, "=&");
    }
    return strnlen(text, 4096);
}

static int fail(const char *text, const char *at, struct weir_error *error, const char *why) {
    char quoted[WEIR_QUOTE_SIZE(48)];
    size_t len = shown_len(text);
    weir_quote(quoted, sizeof quoted, text, len < 48 ? len : 48);
    return weir_fail(error, WEIR_ESYNTAX, (int)(at - text) + 1, "%s: %s", quoted, why);
}

static const char name_letters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

static int hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* file:///path up to "?", with %XX for bytes that a URI reserves. */
static int read_path(const char *text, const char *from, const char *end, struct weir_uri *uri,
                     struct weir_error *error) {
    size_t len = 0;
    if (from == end || *from != '/')
        return fail(text, from, error,
                    "file:// needs an absolute path, as in file:///var/lib/app/limits");
    for (const char *c = from; c < end; c++) {
        char byte = *c;
        if (byte == '%') {
            int high = end - c > 2 ? hex(c[1]) : -1;
            int low = end - c > 2 ? hex(c[2]) : -1;
            if (high < 0 || low < 0 || (high | low) == 0)
                return fail(text, c, error, "% must be followed by two hexadecimal digits, not 00");
            byte = (char)(high << 4 | low);
            c += 2;
        }
        if (len + 1 >= sizeof uri->path - 32) /* room for the suffix of a temporary name */
            return fail(text, from, error, "the path is too long");
        uri->path[len++] = byte;
    }
    uri->path[len] = '\0';
    if (len == 1)
        return fail(text, from, error, "the path names no file");
    return 0;
}

static int read_name(const char *text, const char *from, const char *end, struct weir_uri *uri,
                     struct weir_error *error) {
    size_t len = (size_t)(end - from);
    if (len == 0)
        return fail(text, from, error, "shm:// needs a name, as in shm://shop");
    if (len > WEIR_NAME_MAX)
        return fail(text, from, error, "the name is longer than 200 bytes");
    /* One "/" is allowed: automatic tables are in a folder that only their user can write to. */
    const char *folder = !strncmp(from, "auto-", 5) ? memchr(from, '/', len) : NULL;
    for (const char *c = from; c < end; c++)
        if (c != folder && !strchr(name_letters, *c))
            return fail(text, c, error,
                        "a name may hold letters, digits, \".\", \"_\" and \"-\" only");
    if (folder && (folder + 1 == end || folder[1] == '.'))
        return fail(text, folder, error, "after the \"/\" comes the name of a table");
    snprintf(uri->path, sizeof uri->path, "/dev/shm/weir.%.*s", (int)len, from);
    return 0;
}

static int read_number(const char *text, const char **at, uint64_t *number,
                       struct weir_error *error) {
    const char *from = *at;
    uint64_t value = 0;
    while (**at >= '0' && **at <= '9') {
        if (value > UINT64_MAX / 10 - 10)
            return fail(text, from, error, "the number is too large");
        value = value * 10 + (uint64_t)(*(*at)++ - '0');
    }
    if (*at == from || (**at != '\0' && **at != '&'))
        return fail(text, *at, error, "expected a whole number");
    *number = value;
    return 0;
}

static int read_group(const char *text, const char **at, struct weir_uri *uri,
                      struct weir_error *error) {
    size_t len = strcspn(*at, "&");
    if (len == 0 || len > WEIR_GROUP_MAX)
        return fail(text, *at, error, "expected the name of a group, at most 32 bytes");
    for (size_t i = 0; i < len; i++)
        if (!strchr(name_letters, (*at)[i]))
            return fail(text, *at + i, error,
                        "a group may hold letters, digits, \".\", \"_\" and \"-\" only");
    if (uri->backing == WEIR_BACKING_MEMORY || uri->backing == WEIR_BACKING_FORKS)
        return fail(text, *at, error, "memory:// is private; a group can share shm:// and file://");
    memcpy(uri->group, *at, len);
    uri->group[len] = '\0';
    *at += len;
    return 0;
}

static int read_options(const char *text, const char *at, struct weir_uri *uri,
                        struct weir_error *error) {
    while (*at) {
        const char *from = at;
        uint64_t *number = !strncmp(at, "keys=", 5)    ? &uri->keys
                           : !strncmp(at, "hits=", 5)  ? &uri->hits
                           : !strncmp(at, "rules=", 6) ? &uri->rules
                                                       : NULL;
        bool group = !strncmp(at, "group=", 6);
        if (!strncmp(at, "forks=share", 11) && (at[11] == '\0' || at[11] == '&')) {
            if (uri->backing == WEIR_BACKING_SHM || uri->backing == WEIR_BACKING_FILE)
                return fail(text, at, error, "forks=share is for memory://; others share anyway");
            uri->backing = WEIR_BACKING_FORKS;
            at += at[11] == '&' ? 12 : 11;
            continue;
        }
        if (!number && !group)
            return fail(text, from, error,
                        "unknown option; there are keys=N, hits=N, rules=N and group=NAME");
        at = strchr(at, '=') + 1;
        int rc = group ? read_group(text, &at, uri, error) : read_number(text, &at, number, error);
        if (rc < 0)
            return rc;
        if (number == &uri->keys && (uri->keys < WEIR_BUCKET_CELLS || uri->keys > WEIR_KEYS_MAX))
            return weir_fail(error, WEIR_EINVAL, (int)(from - text) + 1,
                             "keys must be from 8 to 268435456");
        if (number == &uri->hits && uri->hits > WEIR_HITS_MAX)
            return weir_fail(error, WEIR_EINVAL, (int)(from - text) + 1,
                             "hits must be from 0 to 536870912");
        if (number == &uri->rules && uri->rules > WEIR_RULES_MAX)
            return weir_fail(error, WEIR_EINVAL, (int)(from - text) + 1,
                             "rules must be from 0 to 1000000");
        if (*at == '&')
            at++;
    }
    return 0;
}

int weir_uri_parse(const char *text, struct weir_uri *uri, struct weir_error *error) {
    static const struct {
        const char *prefix;
        enum weir_backing backing;
    } schemes[] = {{"memory://", WEIR_BACKING_MEMORY},
                   {"shm://", WEIR_BACKING_SHM},
                   {"file://", WEIR_BACKING_FILE}};
    if (!text)
        return weir_fail(error, WEIR_EINVAL, 0, "the URI is NULL");
    uri->path[0] = '\0';
    uri->keys = 0;
    uri->hits = UINT64_MAX;
    uri->rules = UINT64_MAX;
    uri->group[0] = '\0';
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t len = strlen(schemes[i].prefix);
        if (strncmp(text, schemes[i].prefix, len) != 0)
            continue;
        const char *from = text + len;
        const char *end = from + strcspn(from, "?");
        uri->backing = schemes[i].backing;
        int rc = 0;
        if (uri->backing == WEIR_BACKING_SHM)
            rc = read_name(text, from, end, uri, error);
        else if (uri->backing == WEIR_BACKING_FILE)
            rc = read_path(text, from, end, uri, error);
        else if (end != from)
            rc = fail(text, from, error,
                      "memory:// takes no name; to share a table, use shm://name");
        return rc < 0 || *end == '\0' ? rc : read_options(text, end + 1, uri, error);
    }
    return fail(text, text, error,
                "unknown scheme; there are memory://, shm://name and file:///path");
}
