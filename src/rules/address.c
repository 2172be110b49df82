/*
 * Reads and prints addresses and ranges.
 *
 * One strict parser reads both the clients of decisions and the rules that an operator writes.
 * Decimal parts have no leading zeros, because inet_aton reads 010 as 8 and other programs read it
 * as 10. IPv6 input follows RFC 4291 section 2.2, output follows RFC 5952.
 *
 * Cost: one pass, no table, no copy; 10 ns for IPv4, 20 to 30 ns for IPv6.
 */
#include "rules/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

#define WITHIN_PREFIX 96                        /* bits before an IPv4 address within IPv6 */
#define MAPPED_LOW UINT64_C(0xffff00000000)     /* ::ffff:0:0/96, RFC 4291 */
#define TRANSLATED_LOW UINT64_C(0xffff0000)     /* ::ffff:0:0:0/96, SIIT, RFC 2765: bits 64 to 95 */
#define NAT64_HIGH UINT64_C(0x0064ff9b00000000) /* 64:ff9b::/96, RFC 6052 */
#define PLAIN_MAX 15                            /* "255.255.255.255" */
#define GROUPS 8                                /* of 16 bits in an IPv6 address */
#define FULL_6 39                               /* bytes of an IPv6 address that is not shortened */
#define ADDRESS_MAX 110                         /* bytes of the longest address with a zone */

/* -------------------------------------------------------------------------------------- reading */

static inline uint64_t load_8(const char *from) {
    uint64_t word;
    memcpy(&word, from, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

#define EACH_BYTE(byte) ((byte) * UINT64_C(0x0101010101010101))

/* Bit i is set if byte i of eight is a dot. */
static inline uint32_t dots_of_8(const char *text) {
    uint64_t other = load_8(text) ^ EACH_BYTE('.');
    uint64_t zero = ~(((other & EACH_BYTE(0x7f)) + EACH_BYTE(0x7f)) | other | EACH_BYTE(0x7f));
    return (uint32_t)((zero >> 7) * UINT64_C(0x0102040810204080) >> 56);
}

/* Bit i is set if byte i of a text of 7 to 15 bytes is a dot, or if i is its length. */
static inline uint32_t dots_of(const char *text, size_t len) {
    uint32_t dots = 1u << len;
    if (len >= 8)
        return dots | dots_of_8(text) | dots_of_8(text + len - 8) << (len - 8);
    for (size_t i = 0; i < len; i++)
        dots |= (uint32_t)(text[i] == '.') << i;
    return dots;
}

/*
 * Reads four numbers from 0 to 255 and nothing else. The number of digits is unpredictable, so a
 * loop over the digits would cost several mispredicted branches. No branch here depends on it.
 */
static bool read_4(const char *text, size_t len, uint32_t *address) {
    if (len < 7 || len > PLAIN_MAX)
        return false;
    uint32_t dots = dots_of(text, len), value = 0, wrong = 0, from = 0;
    for (int i = 0; i < 4; i++) {
        if (dots == 0)
            return false;
        uint32_t to = (uint32_t)__builtin_ctz(dots), digits = to - from;
        if (digits - 1 > 2)
            return false;
        uint32_t c = (uint32_t)(unsigned char)text[to - 1] - '0';
        uint32_t b = (uint32_t)(unsigned char)text[digits > 1 ? to - 2 : from] - '0';
        uint32_t a = (uint32_t)(unsigned char)text[from] - '0';
        wrong |= (a > 9) | (b > 9) | (c > 9) | ((a == 0) & (digits > 1)); /* a leading zero */
        uint32_t number = c + b * (digits > 1 ? 10 : 0) + a * (digits > 2 ? 100 : 0);
        wrong |= number > 255;
        value = value << 8 | number;
        from = to + 1;
        dots &= dots - 1;
    }
    *address = value;
    return dots == 0 && !wrong;
}

/* The value of a hexadecimal digit of either case; above 15 if it is not one. */
static inline uint32_t hex_digit(char c) {
    static const uint8_t digit[256] = {
        ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,
        ['6'] = 7,  ['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
        ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['A'] = 11, ['B'] = 12,
        ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16};
    return (uint32_t)digit[(unsigned char)c] - 1;
}

/*
 * Reads a group of 1 to 4 digits; returns their number. Four digits, the usual case, are read
 * without a loop.
 */
static inline size_t read_group(const char *text, size_t len, uint32_t *group) {
    if (len >= 4) {
        uint32_t a = hex_digit(text[0]), b = hex_digit(text[1]), c = hex_digit(text[2]),
                 d = hex_digit(text[3]);
        if ((a | b | c | d) <= 15) {
            *group = a << 12 | b << 8 | c << 4 | d;
            return 4;
        }
    }
    size_t digits = 0;
    uint32_t digit;
    *group = 0;
    while (digits < len && digits < 4 && (digit = hex_digit(text[digits])) <= 15) {
        *group = *group << 4 | digit;
        digits++;
    }
    return digits;
}

/* Reads eight groups of four digits, the usual form of clients, without a branch. */
static bool read_full_6(const char *text, struct weir_address *address) {
    uint64_t half[2] = {0, 0};
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < GROUPS; i++, text += 5) {
        uint32_t a = hex_digit(text[0]), b = hex_digit(text[1]), c = hex_digit(text[2]),
                 d = hex_digit(text[3]);
        wrong |= a | b | c | d | (i + 1 < GROUPS && text[4] != ':' ? 16 : 0);
        half[i / 4] = half[i / 4] << 16 | a << 12 | b << 8 | c << 4 | d;
    }
    *address = (struct weir_address){half[0], half[1]};
    return wrong <= 15;
}

/* Reads all groups up to the end into one number. False if there is anything else. */
static bool read_6(const char *text, size_t len, struct weir_address *address) {
    unsigned __int128 value = 0; /* the groups so far, the first one in the highest bits */
    uint32_t count = 0, gap = GROUPS + 1, tail; /* groups; groups before "::", if any */
    const char *at = text, *end = text + len;
    if (len == FULL_6 && read_full_6(text, address))
        return true;
    if (len >= 2 && at[0] == ':' && at[1] == ':') {
        gap = 0;
        at += 2;
    }
    while (at < end) {
        uint32_t group;
        const char *next = at + read_group(at, (size_t)(end - at), &group);
        if (next == at)
            return false;
        if (next < end && *next == '.') { /* an IPv4 address at the end counts for two groups */
            if (count > GROUPS - 2 || !read_4(at, (size_t)(end - at), &tail))
                return false;
            value = value << 32 | tail;
            count += 2;
            break;
        }
        if (count == GROUPS)
            return false;
        value = value << 16 | group;
        count++;
        if (next == end)
            break;
        if (*next++ != ':' ||
            next == end) /* a fifth digit, another character, or one ":" at the end */
            return false;
        if (*next == ':') {
            if (gap <= GROUPS)
                return false;
            gap = count;
            next++;
        }
        at = next;
    }
    if (gap <= GROUPS ? count == GROUPS : count != GROUPS)
        return false;
    if (gap > 0 && gap < GROUPS) { /* shift the groups before the gap up */
        unsigned __int128 behind = ((unsigned __int128)1 << 16 * (count - gap)) - 1;
        value = (value & ~behind) << 16 * (GROUPS - count) | (value & behind);
    }
    address->high = (uint64_t)(value >> 64);
    address->low = (uint64_t)value;
    return true;
}

/* Whether an IPv6 address is an IPv4 address: mapped, or translated by SIIT or NAT64. */
static inline bool holds_4(const struct weir_address *address) {
    uint64_t middle = address->low >> 32;
    return address->high == 0 ? middle == MAPPED_LOW >> 32 || middle == TRANSLATED_LOW
                              : address->high == NAT64_HIGH && middle == 0;
}

/* The length without the zone, which names an interface and does not identify the client. */
static size_t before_zone(const char *text, size_t len) {
    const char *zone = memchr(text, '%', len);
    if (!zone || zone + 1 == text + len)
        return len;
    for (const char *c = zone; c < text + len; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
              *c == '%' || *c == '.' || *c == '-' || *c == '_'))
            return len;
    return (size_t)(zone - text);
}

enum weir_family weir_address_parse(const char *text, size_t len, struct weir_address *address) {
    uint32_t plain;
    if (len < 2 || len > ADDRESS_MAX)
        return WEIR_FAMILY_NONE;
    if (read_4(text, len, &plain)) {
        *address = (struct weir_address){0, plain};
        return WEIR_FAMILY_4;
    }
    /* Every IPv6 address has a ":" in its first five bytes. */
    size_t colon = 0, most = len < 5 ? len : 5;
    while (colon < most && text[colon] != ':')
        colon++;
    if (colon == most)
        return WEIR_FAMILY_NONE;
    if (!read_6(text, len, address)) {
        size_t rest = before_zone(text, len);
        if (rest == len || !read_6(text, rest, address))
            return WEIR_FAMILY_NONE;
    }
    if (!holds_4(address))
        return WEIR_FAMILY_6;
    *address = (struct weir_address){0, address->low & UINT32_MAX};
    return WEIR_FAMILY_4;
}

/* --------------------------------------------------------------------------------------- ranges */

static unsigned __int128 wide(const struct weir_address *address) {
    return (unsigned __int128)address->high << 64 | address->low;
}

static struct weir_address narrow(unsigned __int128 value) {
    return (struct weir_address){(uint64_t)(value >> 64), (uint64_t)value};
}

static uint32_t width(uint32_t family) {
    return family == WEIR_FAMILY_4 ? 32 : 128;
}

/* A mask of the bits after the prefix. */
static unsigned __int128 behind(const struct weir_range *range) {
    uint32_t bits = width(range->family) - range->prefix;
    return bits >= 128 ? ~(unsigned __int128)0 : ((unsigned __int128)1 << bits) - 1;
}

struct weir_address weir_range_last(const struct weir_range *range) {
    return narrow(wide(&range->first) | behind(range));
}

bool weir_range_valid(const struct weir_range *range) {
    if (range->family != WEIR_FAMILY_4 && range->family != WEIR_FAMILY_6)
        return false;
    return range->prefix <= width(range->family) && (wide(&range->first) & behind(range)) == 0 &&
           (range->family == WEIR_FAMILY_6 ||
            (range->first.high == 0 && range->first.low <= UINT32_MAX));
}

static int wrong(const char *text, size_t len, size_t at, const char *why,
                 struct weir_error *error) {
    char quoted[WEIR_QUOTE_SIZE(48)];
    weir_quote(quoted, sizeof quoted, text, len < 48 ? len : 48);
    return weir_fail(error, WEIR_ESYNTAX, (int)at + 1, "%s: %s", quoted, why);
}

/* Whether the text is four numbers joined by dots: an IPv4 address, maybe mistyped, not a name. */
static bool four_numbers(const char *text, size_t len) {
    uint32_t dots = 0, digits = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '.') {
            if (digits == 0)
                return false;
            dots++;
            digits = 0;
        } else if (text[i] >= '0' && text[i] <= '9' && digits < 3) {
            digits++;
        } else {
            return false;
        }
    }
    return dots == 3 && digits > 0;
}

/* Whether the text before a "/" looks like an address, so that a mistake in it is an error. */
static bool like_address(const char *text, size_t len) {
    bool divided = false;
    for (size_t i = 0; i < len; i++) {
        divided |= text[i] == '.' || text[i] == ':';
        if (text[i] != '.' && text[i] != ':' && hex_digit(text[i]) > 15)
            return false;
    }
    return divided;
}

/* Whether the text after a "/" looks like a prefix: a number or, by mistake, a mask or nothing. */
static bool like_prefix(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((text[i] < '0' || text[i] > '9') && text[i] != '.')
            return false;
    return true;
}

/* Reads the number of bits after the "/". */
static int read_prefix(const char *text, size_t len, size_t at, uint32_t most, uint32_t *prefix,
                       struct weir_error *error) {
    uint32_t value = 0;
    if (at == len || memchr(text + at, '.', len - at))
        return wrong(text, len, at, "a prefix is a number of bits, as in 10.0.0.0/8", error);
    for (size_t i = at; i < len; i++) {
        uint32_t digit = (uint32_t)(unsigned char)text[i] - '0';
        value = value < 1000 ? value * 10 + digit : value;
    }
    if (len - at > 1 && text[at] == '0')
        return wrong(text, len, at, "a prefix has no leading zeros", error);
    if (value > most)
        return wrong(text, len, at,
                     most == 32 ? "an IPv4 prefix is from 0 to 32"
                                : "an IPv6 prefix is from 0 to 128",
                     error);
    *prefix = value;
    return 0;
}

/* Refuses a range with bits set after the prefix: another range may have been meant. */
static int refuse_host_bits(const char *text, size_t len, struct weir_range *range,
                            struct weir_error *error) {
    unsigned __int128 first = wide(&range->first);
    if ((first & behind(range)) == 0)
        return 0;
    char meant[WEIR_RANGE_TEXT], why[120];
    range->first = narrow(first & ~behind(range));
    weir_range_print(range, meant, sizeof meant);
    snprintf(why, sizeof why, "the address has bits set after the prefix; the range is %s", meant);
    return wrong(text, len, 0, why, error);
}

/*
 * "::ffff:10.0.0.0/104" means 10.0.0.0/8. A wider range that contains the mapped addresses, such as
 * ::/0, applies to IPv6 only.
 */
static int read_range(const char *text, size_t len, size_t slash, struct weir_range *range,
                      struct weir_error *error) {
    uint32_t prefix = 0;
    enum weir_family family = weir_address_parse(text, slash, &range->first);
    if (family == WEIR_FAMILY_NONE)
        return wrong(text, len, 0, "the text before the / is not an IPv4 or IPv6 address", error);
    bool colons = memchr(text, ':', slash) != NULL;
    int rc = read_prefix(text, len, slash + 1, colons ? 128 : 32, &prefix, error);
    if (rc < 0)
        return rc;
    if (colons && family == WEIR_FAMILY_4) {
        if (prefix < WITHIN_PREFIX) {
            read_6(text, slash, &range->first);
            family = WEIR_FAMILY_6;
        } else {
            prefix -= WITHIN_PREFIX;
        }
    }
    range->family = (uint8_t)family;
    range->prefix = (uint8_t)prefix;
    return refuse_host_bits(text, len, range, error);
}

int weir_range_parse(const char *text, size_t len, struct weir_range *range,
                     struct weir_error *error) {
    *range = (struct weir_range){.family = WEIR_FAMILY_NONE};
    const char *slash = len > 0 ? memchr(text, '/', len) : NULL;
    if (slash) {
        size_t before = (size_t)(slash - text);
        if (!like_address(text, before) || !like_prefix(slash + 1, len - before - 1))
            return 0;
        int rc = read_range(text, len, before, range, error);
        if (rc < 0)
            *range = (struct weir_range){.family = WEIR_FAMILY_NONE};
        return rc;
    }
    range->family = (uint8_t)weir_address_parse(text, len, &range->first);
    if (range->family != WEIR_FAMILY_NONE)
        range->prefix = (uint8_t)width(range->family);
    else if (four_numbers(text, len))
        return wrong(text, len, 0,
                     "not an IPv4 address: four numbers from 0 to 255 without leading zeros",
                     error);
    return 0;
}

/* -------------------------------------------------------------------------------------- clients */

/* Whether the text has only digits, as in ":8080". An empty port is accepted. */
static bool is_port(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return len <= 5;
}

/* Removes brackets and a port: "[2001:db8::1]:443", "10.0.0.1:443". */
static void without_port(const char **text, size_t *len) {
    if (*len > 2 && (*text)[0] == '[') {
        const char *end = memchr(*text, ']', *len);
        size_t inner = end ? (size_t)(end - *text) : 0, after = *len - inner;
        if (inner > 1 && (after == 1 || (end[1] == ':' && is_port(end + 2, after - 2)))) {
            *text += 1;
            *len = inner - 1;
        }
        return;
    }
    const char *colon = memchr(*text, ':', *len);
    if (!colon)
        return;
    size_t before = (size_t)(colon - *text);
    uint32_t plain;
    if (is_port(colon + 1, *len - before - 1) && read_4(*text, before, &plain))
        *len = before;
}

/* Finds the "/" of a network, which is "%2F" in keys. *wide: its length. */
static size_t find_slash(const char *text, size_t len, size_t *wide) {
    const char *slash = memchr(text, '/', len);
    *wide = 1;
    for (size_t i = len > 6 ? len - 6 : 0; !slash && i + 3 < len; i++)
        if (text[i] == '%' && text[i + 1] == '2' && text[i + 2] == 'F') {
            slash = text + i;
            *wide = 3;
        }
    return slash ? (size_t)(slash - text) : len;
}

enum weir_family weir_client_range(const char *text, size_t len, struct weir_range *range) {
    size_t wide, slash = find_slash(text, len, &wide);
    char plain[ADDRESS_MAX];
    struct weir_error ignored;
    *range = (struct weir_range){.family = WEIR_FAMILY_NONE};
    if (len > ADDRESS_MAX || slash == len) {
        range->family = (uint8_t)weir_address_parse(text, len, &range->first);
        range->prefix = (uint8_t)width(range->family);
        return range->family;
    }
    size_t rest = len - slash - wide;
    memcpy(plain, text, slash);
    plain[slash] = '/';
    memcpy(plain + slash + 1, text + slash + wide, rest);
    if (rest == 0 || rest > 3 || weir_range_parse(plain, slash + 1 + rest, range, &ignored) < 0)
        range->family = WEIR_FAMILY_NONE;
    return range->family;
}

enum weir_family weir_client_address(const char *text, size_t len, struct weir_address *address) {
    struct weir_range range;
    enum weir_family family = weir_address_parse(text, len, address);
    if (family != WEIR_FAMILY_NONE || len < 4 || len > ADDRESS_MAX || !memchr(text, '/', len))
        return family;
    family = weir_client_range(text, len, &range);
    *address = range.first;
    return family;
}

size_t weir_client_form(const char *text, size_t len, uint32_t ipv6_prefix, char *buffer,
                        size_t size) {
    struct weir_range range;
    without_port(&text, &len);
    if (len == 0 || weir_client_range(text, len, &range) == WEIR_FAMILY_NONE)
        return 0;
    if (range.family == WEIR_FAMILY_6 && range.prefix > ipv6_prefix) {
        range.prefix = (uint8_t)ipv6_prefix;
        range.first = narrow(wide(&range.first) & ~behind(&range));
    }
    return weir_range_print(&range, buffer, size);
}

/* ------------------------------------------------------------------------------------- printing */

size_t weir_range_print(const struct weir_range *range, char *buffer, size_t size) {
    unsigned char bytes[16];
    uint32_t bits = width(range->family), of = bits / 8;
    unsigned __int128 value = wide(&range->first);
    for (uint32_t i = 0; i < of; i++)
        bytes[i] = (unsigned char)(value >> 8 * (of - 1 - i));
    inet_ntop(of == 4 ? AF_INET : AF_INET6, bytes, buffer, (socklen_t)size);
    size_t len = strlen(buffer);
    if (range->prefix < bits)
        len += (size_t)snprintf(buffer + len, size - len, "/%u", range->prefix);
    return len;
}
