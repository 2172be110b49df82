/*
 * Addresses and ranges as texts: which texts are addresses, which are names, and which are errors.
 * Random texts are compared with the result of the C library.
 */
#include "support.h"

#include <arpa/inet.h>

#include "rules/address.h"

#define RANDOM_TEXTS 200000

/* The family and, for addresses, the text that it is printed as. */
static void expect(const char *text, int family, const char *printed) {
    struct weir_address address = {1, 2};
    char again[WEIR_RANGE_TEXT];
    int found = (int)weir_address_parse(text, strlen(text), &address);
    if (found != family)
        fail_msg("\"%s\": family %d, not %d", text, found, family);
    if (family == WEIR_FAMILY_NONE)
        return;
    struct weir_range range = {
        .first = address, .family = (uint8_t)family, .prefix = family == WEIR_FAMILY_4 ? 32 : 128};
    size_t len = weir_range_print(&range, again, sizeof again);
    assert_string_equal(again, printed);
    assert_int_equal(len, strlen(printed));
}

static void test_addresses(void **state) {
    (void)state;
    expect("0.0.0.0", 4, "0.0.0.0");
    expect("10.1.2.3", 4, "10.1.2.3");
    expect("255.255.255.255", 4, "255.255.255.255");
    expect("::", 6, "::");
    expect("::1", 6, "::1");
    expect("1::", 6, "1::");
    expect("2001:db8::8:800:200c:417a", 6, "2001:db8::8:800:200c:417a");
    expect("2001:DB8:0:0:8:800:200C:417A", 6, "2001:db8::8:800:200c:417a");
    expect("2001:0db8:0000:0000:0000:0000:0000:0001", 6, "2001:db8::1");
    expect("1:2:3:4:5:6:7::", 6, "1:2:3:4:5:6:7:0");
    expect("::2:3:4:5:6:7:8", 6, "0:2:3:4:5:6:7:8");
    expect("1:2:3:4:5:6:1.2.3.4", 6, "1:2:3:4:5:6:102:304");
    expect("64:ff9c::192.0.2.33", 6, "64:ff9c::c000:221");
    expect("2001:0DB8:85a3:0001:8A2e:0370:7334:abcd", 6, "2001:db8:85a3:1:8a2e:370:7334:abcd");
    expect("2001:0db8:85a3:0000:0000:ffff:1.22.33.4", 6, "2001:db8:85a3::ffff:116:2104");
    expect("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

static void test_mapped_addresses_are_ipv4(void **state) {
    (void)state;
    expect("::ffff:10.1.2.3", 4, "10.1.2.3");
    expect("::FFFF:10.1.2.3", 4, "10.1.2.3");
    expect("::ffff:a01:203", 4, "10.1.2.3");
    expect("64:ff9b::10.1.2.3", 4, "10.1.2.3"); /* NAT64 */
    expect("64:FF9B::a01:203", 4, "10.1.2.3");
    expect("64:ff9b:1::10.1.2.3", 6,
           "64:ff9b:1::a01:203"); /* a network-specific prefix: its length is unknown */
    expect("::ffff:0:10.1.2.3", 4, "10.1.2.3"); /* SIIT */
    expect("0:0:0:0:0:ffff:10.1.2.3", 4, "10.1.2.3");
    expect("::fffe:10.1.2.3", 6, "::fffe:a01:203");
    expect("1::ffff:10.1.2.3", 6, "1::ffff:a01:203");
}

static void test_a_zone_is_ignored(void **state) {
    (void)state;
    expect("fe80::1%eth0", 6, "fe80::1");
    expect("fe80::1%25eth0", 6, "fe80::1");
    expect("fe80::1%", 0, NULL);
    expect("fe80::1%eth0/64", 0, NULL);
    expect("fe80::1%eth 0", 0, NULL);
    expect("10.1.2.3%eth0", 0, NULL);
    expect("fe80::zz%eth0", 0, NULL);
}

static const char *const no_addresses[] = {"",
                                           "a",
                                           "alice",
                                           "1.2.3",
                                           "1.2.3.4.5",
                                           "1.2.3.",
                                           ".1.2.3",
                                           "1..2.3",
                                           "1.2.3.256",
                                           "1.2.3.1000",
                                           "01.2.3.4",
                                           "1.2.3.04",
                                           "1.2.3.00",
                                           "1.2.3.4 ",
                                           " 1.2.3.4",
                                           "1.2.3.4\n",
                                           "1.2.3.-4",
                                           "+1.2.3.4",
                                           "0x1.2.3.4",
                                           "1,2,3,4",
                                           "1.2.3.a",
                                           "1.2.3./",
                                           "1.2.3.:",
                                           "16909060",
                                           ":",
                                           ":::",
                                           "1:",
                                           ":1",
                                           "1::2::3",
                                           "1:2:3:4:5:6:7",
                                           "1:2:3:4:5:6:7:8:9",
                                           "1:2:3:4:5:6:7:8::",
                                           "::1:2:3:4:5:6:7:8",
                                           "12345::",
                                           "g::",
                                           "1:2:3:4:5:6:7:1.2.3.4",
                                           "::1.2.3",
                                           "::1.2.3.4.5",
                                           "::01.2.3.4",
                                           "1.2.3.4::",
                                           "[::1]",
                                           "::1]",
                                           "::1 ",
                                           "1.2.3.4:80",
                                           "[::1]:80",
                                           "::ffff:1.2.3.400",
                                           "10.0.0.0/8",
                                           "::/0",
                                           "localhost",
                                           "2001:0db8:0000:0000:0000:0000:0000:000g",
                                           "2001:0db8:0000:0000:0000:0000:0000.0001",
                                           "2001:0db8:0000:0000:0000:00000:000:0001",
                                           "20012:db8:0000:0000:0000:0000:0000:0001",
                                           "1234.1.1.1",
                                           "\xd9\xa1.2.3.4"};

static void test_names(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof no_addresses / sizeof no_addresses[0]; i++)
        expect(no_addresses[i], 0, NULL);
    struct weir_address address;
    assert_int_equal(weir_address_parse("1.2.3.4\0x", 9, &address), 0);
    assert_int_equal(weir_address_parse("1.2.\0.4", 7, &address), 0);
    assert_int_equal(weir_address_parse("1.2.3.4xxxx", 7, &address),
                     4); /* nothing after the end is read */
    assert_int_equal(weir_address_parse("::123", 4, &address), 6);
    assert_int_equal(address.low, 0x12);
}

/* A text near an address: one with a few bytes changed, doubled or left out. */
static size_t random_text(char *text, size_t room) {
    static const char bytes[] = "0123456789abcdefABCDEF::::....%/gx- ";
    char start[64];
    unsigned char binary[16];
    for (int i = 0; i < 16; i++)
        binary[i] = random_below(3) ? (unsigned char)next_random() : 0;
    bool four = random_below(2);
    inet_ntop(four ? AF_INET : AF_INET6, binary, start, sizeof start);
    size_t len = strlen(start);
    memcpy(text, start, len);
    for (uint64_t edits = random_below(4); edits > 0 && len > 0; edits--) {
        size_t at = (size_t)random_below(len);
        char byte = bytes[random_below(sizeof bytes - 1)];
        if (random_below(3) == 0) {
            memmove(text + at, text + at + 1, --len - at);
        } else if (random_below(2) && len + 1 < room) {
            memmove(text + at + 1, text + at, len++ - at);
            text[at] = byte;
        } else {
            text[at] = byte;
        }
    }
    text[len] = '\0';
    return len;
}

static unsigned __int128 as_number(const unsigned char *bytes, int count) {
    unsigned __int128 value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* Whether an IPv6 address is an IPv4 address in another form. */
static bool is_within(unsigned __int128 value) {
    unsigned __int128 before = value >> 32;
    return before == 0xffff || before == 0xffff0000 || before == (unsigned __int128)0x64ff9b << 64;
}

static void test_as_the_c_library_reads_them(void **state) {
    char text[80];
    uint64_t of[8] = {0};
    (void)state;
    for (int i = 0; i < RANDOM_TEXTS; i++) {
        unsigned char bytes[16];
        struct weir_address address;
        size_t len = random_text(text, sizeof text);
        if (strchr(text, '%'))
            continue;
        int family = (int)weir_address_parse(text, len, &address), expected = 0;
        unsigned __int128 value = 0;
        if (inet_pton(AF_INET, text, bytes) == 1) {
            expected = 4;
            value = as_number(bytes, 4);
        } else if (inet_pton(AF_INET6, text, bytes) == 1) {
            value = as_number(bytes, 16);
            expected = is_within(value) ? 4 : 6;
            value = expected == 4 ? (uint32_t)value : value;
        }
        if (family != expected ||
            (family && ((unsigned __int128)address.high << 64 | address.low) != value))
            fail_msg("WEIR_SEED=%" PRIu64 ": \"%s\": family %d, not %d", seed, text, family,
                     expected);
        of[family]++;
    }
    assert_true(of[0] > RANDOM_TEXTS / 20 && of[4] > RANDOM_TEXTS / 20 &&
                of[6] > RANDOM_TEXTS / 20);
}

static void expect_range(const char *text, int family, const char *printed) {
    struct weir_range range;
    struct weir_error error = {.message = "?"};
    char again[WEIR_RANGE_TEXT];
    int rc = weir_range_parse(text, strlen(text), &range, &error);
    if (rc != 0 || range.family != family)
        fail_msg("\"%s\": %d, family %d: %s", text, rc, range.family, error.message);
    if (family == WEIR_FAMILY_NONE)
        return;
    assert_true(weir_range_valid(&range));
    weir_range_print(&range, again, sizeof again);
    assert_string_equal(again, printed);
}

static void test_ranges(void **state) {
    (void)state;
    expect_range("10.0.0.0/8", 4, "10.0.0.0/8");
    expect_range("0.0.0.0/0", 4, "0.0.0.0/0");
    expect_range("10.1.2.3/32", 4, "10.1.2.3");
    expect_range("10.1.2.3", 4, "10.1.2.3");
    expect_range("2001:db8::/32", 6, "2001:db8::/32");
    expect_range("2001:DB8:0::/32", 6, "2001:db8::/32");
    expect_range("::/0", 6, "::/0");
    expect_range("2001:db8::1/128", 6, "2001:db8::1");
    expect_range("::ffff:10.0.0.0/104", 4, "10.0.0.0/8");
    expect_range("::ffff:0:0/96", 4, "0.0.0.0/0");
    expect_range("64:ff9b::/96", 4, "0.0.0.0/0");
    expect_range("64:ff9b::10.0.0.0/104", 4, "10.0.0.0/8");
    expect_range("64:ff9b::/64", 6, "64:ff9b::/64");
    expect_range("::ffff:0:10.0.0.0/104", 4, "10.0.0.0/8");
    expect_range("::ffff:10.1.2.3/128", 4, "10.1.2.3");
    expect_range("::fffe:0:0/95", 6, "::fffe:0:0/95");
    expect_range("alice", 0, NULL);
    expect_range("tenant/7", 0, NULL);
    expect_range("10.0.0.0/8/9", 0, NULL);
    expect_range("1.2.3", 0, NULL);
    expect_range("10.1.2.3/view", 0, NULL);
    expect_range("/8", 0, NULL);
}

static void refuse(const char *text, const char *why) {
    struct weir_range range = {.family = 9};
    struct weir_error error = {.message = "?"};
    int rc = weir_range_parse(text, strlen(text), &range, &error);
    if (rc != WEIR_ESYNTAX || !strstr(error.message, why) || error.column < 1)
        fail_msg("\"%s\": %d, %s", text, rc, error.message);
    assert_int_equal(range.family, 0);
}

static void test_a_mistyped_address_is_an_error(void **state) {
    (void)state;
    refuse("10.0.0.300", "0 to 255");
    refuse("10.0.0.01", "leading zeros");
    refuse("10.0.0.0/33", "0 to 32");
    refuse("10.0.0.0/99999999999999999999", "0 to 32");
    refuse("10.0.0.0/08", "leading zeros");
    refuse("2001:db8::/129", "0 to 128");
    refuse("10.0.0.0/", "a number of bits");
    refuse("10.0.0.0/255.0.0.0", "a number of bits");
    refuse("2001:db8::/", "a number of bits");
    refuse("10.0.0/8", "not an IPv4 or IPv6 address");
    refuse("10.0.0.256/8", "not an IPv4 or IPv6 address");
    refuse("2001:db8:::/32", "not an IPv4 or IPv6 address");
    refuse("10.1.2.3/8", "the range is 10.0.0.0/8");
    refuse("10.1.2.3/0", "the range is 0.0.0.0/0");
    refuse("2001:db8::1/64", "the range is 2001:db8::/64");
    refuse("::ffff:10.1.2.3/104", "the range is 10.0.0.0/8");
    refuse("::ffff:0:0/95", "the range is ::fffe:0:0/95");
}

static void test_the_last_address_of_a_range(void **state) {
    static const char *const cases[][2] = {
        {"10.0.0.0/8", "10.255.255.255"},
        {"0.0.0.0/0", "255.255.255.255"},
        {"10.1.2.3", "10.1.2.3"},
        {"2001:db8::/32", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff"},
        {"2001:db8::/65", "2001:db8::7fff:ffff:ffff:ffff"},
        {"::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct weir_range range;
        char text[WEIR_RANGE_TEXT];
        assert_int_equal(weir_range_parse(cases[i][0], strlen(cases[i][0]), &range, NULL), 0);
        range.first = weir_range_last(&range);
        range.prefix = range.family == WEIR_FAMILY_4 ? 32 : 128;
        weir_range_print(&range, text, sizeof text);
        assert_string_equal(text, cases[i][1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_mapped_addresses_are_ipv4),
        cmocka_unit_test(test_a_zone_is_ignored),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_as_the_c_library_reads_them),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_a_mistyped_address_is_an_error),
        cmocka_unit_test(test_the_last_address_of_a_range),
    };
    seed_random();
    return cmocka_run_group_tests_name("cidr", tests, NULL, NULL);
}
