/*
 * Any bytes as a client and as the client of a rule: nothing is read after the end; an address has
 * the value that the C library finds; a range prints as a text that reads back as the same range;
 * an error has a column.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>

#include "rules/address.h"
#include "guarded.h"
#include "must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned __int128 number(const unsigned char *bytes, int count) {
    unsigned __int128 value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* Compares with the C library, whose function takes no length and no zone. */
static void check_address(const struct guarded *text, enum weir_family family,
                          const struct weir_address *address) {
    char whole[128];
    unsigned char bytes[16];
    if (text->len >= sizeof whole || memchr(text->bytes, '%', text->len) ||
        memchr(text->bytes, '\0', text->len))
        return;
    memcpy(whole, text->bytes, text->len);
    whole[text->len] = '\0';
    unsigned __int128 value = 0;
    enum weir_family expected = WEIR_FAMILY_NONE;
    if (inet_pton(AF_INET, whole, bytes) == 1) {
        expected = WEIR_FAMILY_4;
        value = number(bytes, 4);
    } else if (inet_pton(AF_INET6, whole, bytes) == 1) {
        value = number(bytes, 16);
        unsigned __int128 nat64 = (unsigned __int128)0x0064ff9b << 64;
        unsigned __int128 before = value >> 32;
        expected = before == 0xffff || before == 0xffff0000 || before == nat64 ? WEIR_FAMILY_4
                                                                               : WEIR_FAMILY_6;
        if (expected == WEIR_FAMILY_4)
            value = (uint32_t)value;
    }
    MUST(family == expected);
    MUST(family == WEIR_FAMILY_NONE ||
         ((unsigned __int128)address->high << 64 | address->low) == value);
}

static void check_range(const struct weir_range *range) {
    struct weir_range again;
    char text[WEIR_RANGE_TEXT];
    MUST(weir_range_valid(range));
    size_t len = weir_range_print(range, text, sizeof text);
    MUST(len > 0 && len < sizeof text && len == strlen(text));
    MUST(weir_range_parse(text, len, &again, NULL) == 0);
    MUST(again.family == range->family && again.prefix == range->prefix &&
         again.first.high == range->first.high && again.first.low == range->first.low);
}

/* The form that limits count is an address or a network, and does not change if converted again. */
static void check_form(const struct guarded *text, enum weir_family family) {
    char form[WEIR_RANGE_TEXT], again[WEIR_RANGE_TEXT];
    for (uint32_t prefix = 0; prefix <= 128; prefix += 32) {
        size_t len = weir_client_form(text->bytes, text->len, prefix, form, sizeof form);
        MUST(len < sizeof form && (len > 0 || family == WEIR_FAMILY_NONE));
        MUST(len == 0 || (weir_client_form(form, len, prefix, again, sizeof again) == len &&
                          memcmp(form, again, len) == 0));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct weir_address address;
    struct weir_range range;
    struct weir_error error;
    struct guarded text = guarded_copy(data, size);
    enum weir_family family = weir_address_parse(text.bytes, text.len, &address);
    check_form(&text, family);
    check_address(&text, family, &address);
    int rc = weir_range_parse(text.bytes, text.len, &range, &error);
    if (family != WEIR_FAMILY_NONE)
        MUST(rc == 0 && range.family == family);
    if (rc == 0 && range.family != WEIR_FAMILY_NONE)
        check_range(&range);
    if (rc < 0) {
        MUST(rc == WEIR_ESYNTAX && error.code == rc && range.family == WEIR_FAMILY_NONE);
        MUST(error.column >= 1 && (size_t)error.column <= size + 1 && error.message[0]);
    }
    guarded_free(&text);
    return 0;
}
