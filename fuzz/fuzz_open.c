/*
 * A damaged table file: opening refuses it or makes it safe to use.
 *
 * Input: a byte of flags, then patches to the undamaged file (damaged.h) until the input ends:
 *
 *     flags   1: the header's checksum is corrected   2: the table is damaged while it is open
 *     patch   offset (2 bytes, little-endian, x 1), length - 1 (1 byte, 0 to 15), the bytes
 */
#include <stdint.h>

#include "damaged.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct damaged damaged;
    static unsigned char *bytes;
    if (!bytes) {
        damaged_make(&damaged);
        bytes = malloc(damaged.size);
        DAMAGED_MUST(bytes);
    }
    memcpy(bytes, damaged.base, damaged.size);
    uint8_t flags = size ? data[0] : 0;
    for (size_t at = 1; at + 3 < size;) {
        size_t offset = (size_t)(data[at] | data[at + 1] << 8) % damaged.size;
        size_t length = (size_t)(data[at + 2] & 15) + 1;
        at += 3;
        for (size_t i = 0; i < length && at < size; i++, at++)
            bytes[(offset + i) % damaged.size] = data[at];
    }
    if (flags & 1) {
        struct weir_header header;
        memcpy(&header, bytes, sizeof header);
        header.checksum = weir_checksum(&header);
        memcpy(bytes, &header, sizeof header);
    }
    damaged_try(&damaged, bytes, flags & 2);
    unlink(damaged.path);
    return 0;
}
