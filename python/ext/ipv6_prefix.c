/* How many bits of an IPv6 address identify a client, as an application stored it in a table. */
#include "ipv6_prefix.h"

#include "weir/meter.h"

#define PREFIX_METER "ipv6 prefix"

/*
 * The value of the meter: the lowest 8 bits are the prefix. The others are the second at which it
 * was stored, so that the latest prefix is the greatest value.
 */
int core_ipv6_prefix(struct weir_table *table) {
    uint64_t value = 0;
    if (weir_meter_add(table, PREFIX_METER, sizeof PREFIX_METER - 1, 0, &value) < 0 || value == 0)
        return -1;
    return (value & 255) <= 128 ? (int)(value & 255) : -1;
}

int core_set_ipv6_prefix(struct weir_table *table, int prefix, int64_t now_ns) {
    uint64_t note = (uint64_t)(now_ns / 1000000000) << 8 | (uint64_t)prefix;
    return weir_meter_raise(table, PREFIX_METER, sizeof PREFIX_METER - 1, note);
}
