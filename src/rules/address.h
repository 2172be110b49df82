/*
 * Addresses and ranges as text. No host names are resolved.
 */
#ifndef WEIR_CIDR_H
#define WEIR_CIDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/weir.h"

enum weir_family {
    WEIR_FAMILY_NONE = 0, /* a name, not an address */
    WEIR_FAMILY_4 = 4,
    WEIR_FAMILY_6 = 6,
};

/* An address as a number; IPv4 in the lower half of `low`. */
struct weir_address {
    uint64_t high, low;
};

/*
 * A range: the addresses whose first `prefix` bits are those of `first`. One address is a /32 or
 * /128.
 */
struct weir_range {
    struct weir_address first;
    uint8_t family; /* enum weir_family; WEIR_FAMILY_NONE: a name, the rest is zero */
    uint8_t prefix; /* of IPv4: 0 to 32; of IPv6: 0 to 128 */
};

/* Room for the longest text of a range, with its NUL: "2001:db8:…/128". */
#define WEIR_RANGE_TEXT 56

/*
 * Parses the `len` bytes of `text` as an address. Returns its family, or WEIR_FAMILY_NONE. The text
 * must contain nothing else, except a zone after an IPv6 address ("fe80::1%eth0"), which is
 * ignored. An IPv4 address within IPv6 becomes that IPv4 address: "::ffff:10.1.2.3", SIIT's
 * "::ffff:0:10.1.2.3", NAT64's "64:ff9b::10.1.2.3". Reads nothing beyond `len`.
 */
enum weir_family weir_address_parse(const char *text, size_t len, struct weir_address *address);

/*
 * Parses the client of a rule: "10.1.2.3", "10.0.0.0/8", "2001:db8::/32", or a name (family NONE)
 * if it does not look like an address or a range. "::ffff:10.0.0.0/104" is 10.0.0.0/8.
 * Errors: WEIR_ESYNTAX for an invalid address or range, such as "10.0.0.300", "10.0.0/8",
 * "10.0.0.0/33", and if bits after the prefix are set, as in "10.1.2.3/8" (the message contains the
 * valid range).
 */
int weir_range_parse(const char *text, size_t len, struct weir_range *range,
                     struct weir_error *error);

/*
 * Parses the client in a key: an address as for weir_address_parse(), or a network,
 * "2001:db8::/64", which is how weir.flask counts IPv6 clients. In keys, the slash is "%2F". Family
 * NONE: another name.
 */
enum weir_family weir_client_range(const char *text, size_t len, struct weir_range *range);

/* The same; for a network, its first address, by which rules that cover it are found. */
enum weir_family weir_client_address(const char *text, size_t len, struct weir_address *address);

/*
 * Writes the form that limits count a client's address under: brackets, a port and a zone are left
 * out, IPv4 within IPv6 is that IPv4 address, and IPv6 becomes the network of its first
 * `ipv6_prefix` bits (0 to 128; wider networks stay). `size` at least WEIR_RANGE_TEXT. The length,
 * or 0 if the text is not an address.
 */
size_t weir_client_form(const char *text, size_t len, uint32_t ipv6_prefix, char *buffer,
                        size_t size);

/*
 * Writes "10.0.0.0/8", or "10.1.2.3" for a single address. `size` at least WEIR_RANGE_TEXT; the
 * length.
 */
size_t weir_range_print(const struct weir_range *range, char *buffer, size_t size);

/* The last address of a range. */
struct weir_address weir_range_last(const struct weir_range *range);

/* Whether the prefix is valid for the family, and no bit after it is set. */
bool weir_range_valid(const struct weir_range *range);

#endif
