/* How many bits of an IPv6 address identify a client, as an application stored it in a table. */
#ifndef WEIR_EXT_IPV6_PREFIX_H
#define WEIR_EXT_IPV6_PREFIX_H

#include "core.h"

/*
 * The number of bits of an IPv6 address that identify a client, as weir.flask stored it in the
 * table; -1: not stored.
 */
int core_ipv6_prefix(struct weir_table *table);

/* Stores it. The latest value wins. 0, or an error of weir_meter_raise(). */
int core_set_ipv6_prefix(struct weir_table *table, int prefix, int64_t now_ns);

#endif
