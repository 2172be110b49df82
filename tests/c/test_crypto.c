/*
 * The hashes: published vectors, and a comparison of Weir's code with libsodium if the build has
 * it.
 *
 * Weir's code is compiled into this test under other names, so that a build with libsodium tests
 * both.
 */
#include "support.h"

#include "crypto/crypto.h"

#define LENGTH_MAX 300

#if defined(WEIR_SODIUM)
struct own_blake2b {
    uint64_t h[8];
    uint64_t bytes;
    unsigned char block[128];
    size_t used;
};
#define weir_blake2b own_blake2b
#define weir_blake2b_init own_blake2b_init
#define weir_blake2b_update own_blake2b_update
#define weir_blake2b_final own_blake2b_final
#define weir_siphash64 own_siphash64
#define weir_siphash128 own_siphash128
void own_blake2b_init(struct own_blake2b *hash);
void own_blake2b_update(struct own_blake2b *hash, const void *data, size_t len);
void own_blake2b_final(struct own_blake2b *hash, unsigned char out[20]);
void own_siphash64(const void *data, size_t len, const unsigned char key[16], unsigned char out[8]);
void own_siphash128(const void *data, size_t len, const unsigned char key[16],
                    unsigned char out[16]);
#include "crypto/blake2b.c"
#define rotate siphash_rotate
#include "crypto/siphash.c"
#undef weir_blake2b
#undef weir_blake2b_init
#undef weir_blake2b_update
#undef weir_blake2b_final
#undef weir_siphash64
#undef weir_siphash128
#endif

static void fill(unsigned char *to, size_t len) {
    for (size_t i = 0; i < len; i++)
        to[i] = (unsigned char)i;
}

static void to_hex(const unsigned char *from, size_t len, char *hex) {
    for (size_t i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", from[i]);
}

/* The example in the appendix of the paper: key 00..0f, message 00..0e. */
static void test_siphash_of_the_paper(void **state) {
    (void)state;
    unsigned char key[16], message[15], out[8];
    char hex[17];
    fill(key, sizeof key);
    fill(message, sizeof message);
    weir_siphash64(message, sizeof message, key, out);
    to_hex(out, sizeof out, hex);
    assert_string_equal(hex, "e545be4961ca29a1"); /* a129ca6149be45e5, the least byte first */
}

static void test_siphash_of_nothing(void **state) {
    (void)state;
    unsigned char key[16], out[16];
    char hex[33];
    fill(key, sizeof key);
    weir_siphash64(NULL, 0, key, out);
    to_hex(out, 8, hex);
    assert_string_equal(hex, "310e0edd47db6f72");
    weir_siphash128(NULL, 0, key, out);
    to_hex(out, 16, hex);
    assert_string_equal(hex, "a3817f04ba25a8e66df67214c7550293");
}

static void blake2b(const unsigned char *data, size_t len, char *hex) {
    unsigned char out[WEIR_BLAKE2B_BYTES];
    struct weir_blake2b hash;
    weir_blake2b_init(&hash);
    weir_blake2b_update(&hash, data, len);
    weir_blake2b_final(&hash, out);
    to_hex(out, sizeof out, hex);
}

/* Computed by Python's hashlib, which contains the authors' BLAKE2b. */
static void test_blake2b_is_that_of_hashlib(void **state) {
    (void)state;
    unsigned char data[LENGTH_MAX];
    char hex[2 * WEIR_BLAKE2B_BYTES + 1];
    fill(data, sizeof data);
    blake2b(NULL, 0, hex);
    assert_string_equal(hex, "3345524abf6bbe1809449224b5972c41790b6cf2");
    blake2b((const unsigned char *)"abc", 3, hex);
    assert_string_equal(hex, "384264f676f39536840523f284921cdc68b6846b");
    blake2b(data, 128, hex);
    assert_string_equal(hex, "e6992372ab022447b34f6d6032fbab707a11adef");
    blake2b(data, 300, hex);
    assert_string_equal(hex, "0442cf14856eeee477bf0a9261dd7bc1e026709b");
}

/* The hash does not depend on how the data is cut into pieces. */
static void test_blake2b_of_pieces(void **state) {
    (void)state;
    unsigned char data[LENGTH_MAX], whole[WEIR_BLAKE2B_BYTES], pieces[WEIR_BLAKE2B_BYTES];
    fill(data, sizeof data);
    for (size_t len = 0; len <= LENGTH_MAX; len++)
        for (size_t cut = 0; cut <= len; cut += 1 + len / 7) {
            struct weir_blake2b one, two;
            weir_blake2b_init(&one);
            weir_blake2b_update(&one, data, len);
            weir_blake2b_final(&one, whole);
            weir_blake2b_init(&two);
            weir_blake2b_update(&two, data, cut);
            weir_blake2b_update(&two, data + cut, len - cut);
            weir_blake2b_final(&two, pieces);
            assert_memory_equal(whole, pieces, sizeof whole);
        }
}

static void test_own_hashes_are_those_of_libsodium(void **state) {
    (void)state;
#if defined(WEIR_SODIUM)
    for (size_t len = 0; len <= LENGTH_MAX; len++) {
        unsigned char data[LENGTH_MAX], key[16], theirs[20], ours[20];
        assert_int_equal(weir_random(data, len < 256 ? len : 256), 0);
        memset(data + 256, 0x5a, LENGTH_MAX - 256);
        assert_int_equal(weir_random(key, sizeof key), 0);
        weir_siphash64(data, len, key, theirs);
        own_siphash64(data, len, key, ours);
        assert_memory_equal(ours, theirs, 8);
        weir_siphash128(data, len, key, theirs);
        own_siphash128(data, len, key, ours);
        assert_memory_equal(ours, theirs, 16);
        struct weir_blake2b sodium;
        struct own_blake2b own;
        weir_blake2b_init(&sodium);
        weir_blake2b_update(&sodium, data, len);
        weir_blake2b_final(&sodium, theirs);
        own_blake2b_init(&own);
        own_blake2b_update(&own, data, len);
        own_blake2b_final(&own, ours);
        assert_memory_equal(ours, theirs, 20);
    }
#else
    SKIP("this build does not use libsodium");
#endif
}

static void test_random_bytes_differ(void **state) {
    (void)state;
    unsigned char one[32], two[32];
    assert_int_equal(weir_random(one, sizeof one), 0);
    assert_int_equal(weir_random(two, sizeof two), 0);
    assert_memory_not_equal(one, two, sizeof one);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash_of_the_paper),
        cmocka_unit_test(test_siphash_of_nothing),
        cmocka_unit_test(test_blake2b_is_that_of_hashlib),
        cmocka_unit_test(test_blake2b_of_pieces),
        cmocka_unit_test(test_own_hashes_are_those_of_libsodium),
        cmocka_unit_test(test_random_bytes_differ),
    };
    return cmocka_run_group_tests_name("crypto", tests, NULL, NULL);
}
