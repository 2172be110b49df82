/*
 * Addresses and ranges of them, as people and programs write them. Pure text: no names are looked up.
 */
#ifndef WEIR_CIDR_H
#define WEIR_CIDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/weir.h"

enum weir_family {
    WEIR_FAMILY_NONE = 0, /* a name: no address at all */
    WEIR_FAMILY_4 = 4,
    WEIR_FAMILY_6 = 6,
};

/* An address as a number; IPv4 in the lower half of `low`. */
struct weir_address {
    uint64_t high, low;
};

/* A range: the addresses whose first `prefix` bits are those of `first`. One address is a /32 or /128. */
struct weir_range {
    struct weir_address first;
    uint8_t family; /* enum weir_family; WEIR_FAMILY_NONE: a name, the rest is zero */
    uint8_t prefix; /* of IPv4: 0 to 32; of IPv6: 0 to 128 */
};

/* Room for the longest text of a range, with its NUL: "2001:db8:…/128". */
#define WEIR_RANGE_TEXT 56

/*
 * Which address the `len` bytes of `text` are: its family, or WEIR_FAMILY_NONE. Nothing may stand before or
 * after it, but a zone after an IPv6 address ("fe80::1%eth0"), which is ignored. An IPv4 address within
 * IPv6 is that IPv4 address: "::ffff:10.1.2.3", SIIT's "::ffff:0:10.1.2.3", NAT64's "64:ff9b::10.1.2.3". Reads nothing beyond `len`.
 */
enum weir_family weir_address_parse(const char *text, size_t len, struct weir_address *address);

/*
 * Reads what a person wrote: "10.1.2.3", "10.0.0.0/8", "2001:db8::/32", or, if it is neither an address nor
 * a range nor looks like one, a name (family NONE). "::ffff:10.0.0.0/104" is 10.0.0.0/8.
 * Errors: WEIR_ESYNTAX for what was meant as an address or a range and is none: "10.0.0.300", "10.0.0/8",
 * "10.0.0.0/33", and bits set behind the prefix, as in "10.1.2.3/8" (the message says which range that is).
 */
int weir_range_parse(const char *text, size_t len, struct weir_range *range,
                     struct weir_error *error);

/*
 * The address or network that a client is called: as weir_address_parse(), or a network as weir.flask counts
 * IPv6 clients, "2001:db8::/64", whose slash is "%2F" within a key. Family NONE: another name.
 */
enum weir_family weir_client_range(const char *text, size_t len, struct weir_range *range);

/* The same, of a network its first address: where to look for a rule that covers it. */
enum weir_family weir_client_address(const char *text, size_t len, struct weir_address *address);

/*
 * Writes the form that limits count a client's address under: brackets, a port and a zone are left out, IPv4
 * within IPv6 is that IPv4 address, and IPv6 becomes the network of its first `ipv6_prefix` bits (0 to 128;
 * wider networks stay). `size` at least WEIR_RANGE_TEXT. The length, or 0 if the text is no address.
 */
size_t weir_client_form(const char *text, size_t len, uint32_t ipv6_prefix, char *buffer,
                        size_t size);

/* Writes "10.0.0.0/8", or "10.1.2.3" for a single address. `size` at least WEIR_RANGE_TEXT; the length. */
size_t weir_range_print(const struct weir_range *range, char *buffer, size_t size);

/* The last address of a range. */
struct weir_address weir_range_last(const struct weir_range *range);

/* Whether a range has no bit set behind its prefix, and a prefix that its family has. */
bool weir_range_valid(const struct weir_range *range);

#endif
