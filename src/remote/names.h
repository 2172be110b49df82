/*
 * Shared by the codecs of all remote stores: names of counters, which checks share a counter, and
 * which verdict is reported to the client.
 */
#ifndef WEIR_REMOTE_H
#define WEIR_REMOTE_H

#include <stdbool.h>
#include <stddef.h>

#include "weir/weir.h"

/* The most bytes of a name in addition to prefix and key. */
#define WEIR_NAME_REST 192

/*
 * Writes the name of a check's counter, `prefix:fw:{LIMITER/10.1.2.3}/api.view/10/1/minute`, into
 * `name`, which has room for prefix, key and WEIR_NAME_REST; not NUL-terminated. Returns its
 * length.
 *
 * The braces enclose the key up to its second slash, all of it if there are fewer: namespace and
 * first identifier, so that a client's limits share a slot of a Redis Cluster. Amount, multiples
 * and unit (and burst or zone, if the strategy takes it) are always the last parts, so different
 * counters have different names for any bytes in the key.
 */
size_t weir_remote_name(const struct weir_check *check, const char *prefix, size_t prefix_len,
                        char *name);

/* Whether two checks have the same name. */
bool weir_remote_same(const struct weir_check *a, const struct weir_check *b);

#endif
