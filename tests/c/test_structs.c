/*
 * The sizes of the public structs. Programs reserve the memory of these structs themselves, so a
 * program that was compiled earlier has the sizes of that time.
 */
#include "support.h"
#include "weir/hiredis.h"
#include "weir/memcached.h"
#include "weir/redis.h"
#include "weir/rules.h"
#include "weir/state.h"
#include "weir/stats.h"

#define STRUCT(name, bytes) {#name, sizeof(struct name), bytes}

/* Sizes on 64-bit machines, the only ones that meson.build accepts. */
static const struct {
    const char *name;
    size_t now;
    size_t pinned;
} structs[] = {
    STRUCT(weir_bytes, 16),
    STRUCT(weir_check, 56),
    STRUCT(weir_counter, 56),
    STRUCT(weir_decision, 16),
    STRUCT(weir_error, 264),
    STRUCT(weir_hiredis_options, 56),
    STRUCT(weir_limit, 56),
    STRUCT(weir_memcached_reply, 72),
    STRUCT(weir_part, 56),
    STRUCT(weir_redis_command, 608),
    STRUCT(weir_redis_reply, 56),
    STRUCT(weir_redis_request, 64),
    STRUCT(weir_registered_limit, 256),
    STRUCT(weir_request, 56),
    STRUCT(weir_rule, 288),
    STRUCT(weir_stats_counts, 128),
    STRUCT(weir_table_info, 64),
    STRUCT(weir_top_client, 192),
    STRUCT(weir_verdict, 48),
    STRUCT(weir_zone, 24),
    STRUCT(weir_zone_offset, 16),
};

#define STRUCTS (sizeof structs / sizeof structs[0])

static void test_public_structs_keep_their_sizes(void **state) {
    int changed = 0;
    (void)state;
    for (size_t i = 0; i < STRUCTS; i++)
        if (structs[i].now != structs[i].pinned) {
            print_error("struct %s has %zu bytes; programs compiled earlier have %zu. Use a "
                        "reserved member, or add a function with a new struct (RELEASING.md, ABI). "
                        "Only with a new soname, write the new size into tests/c/test_structs.c.\n",
                        structs[i].name, structs[i].now, structs[i].pinned);
            changed++;
        }
    assert_int_equal(changed, 0);
}

/* Whether a line of a header defines a struct that is missing above. */
static bool is_missing(const char *line) {
    char name[128], brace;
    if (sscanf(line, "struct %127s %c", name, &brace) != 2 || brace != '{')
        return false;
    for (size_t i = 0; i < STRUCTS; i++)
        if (strcmp(structs[i].name, name) == 0)
            return false;
    print_error("struct %s is not in the list: write its size into tests/c/test_structs.c\n", name);
    return true;
}

static void test_every_public_struct_is_listed(void **state) {
    const char *tests = getenv("WEIR_TESTS");
    char path[4096], line[512];
    int headers = 0, missing = 0;
    (void)state;
    if (!tests)
        SKIP("WEIR_TESTS is not set");
    snprintf(path, sizeof path, "%s/../include/weir", tests);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/../include/weir/%s", tests, entry->d_name);
        FILE *header = fopen(path, "r");
        assert_non_null(header);
        while (fgets(line, sizeof line, header))
            missing += is_missing(line);
        fclose(header);
        headers++;
    }
    closedir(folder);
    assert_true(headers > 10);
    assert_int_equal(missing, 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public_structs_keep_their_sizes),
        cmocka_unit_test(test_every_public_struct_is_listed),
    };
    return cmocka_run_group_tests_name("structs", tests, NULL, NULL);
}
