/*
 * ?group=NAME: a table for the members of one group. They count together, whichever of them created
 * it. Any other user is refused, and so is a table that was not made for the group.
 */
#include "support.h"

#include <grp.h>
#include <sys/stat.h>

static char uri[300];     /* of this test's table, without its options */
static char grouped[340]; /* the same with group=SHARED */

/* Users and a group that need not be in /etc/passwd or /etc/group. */
#define OWNER 64001
#define MEMBER 64002
#define STRANGER 64003
#define SHARED 64010

static int fresh(void **state) {
    (void)state;
    snprintf(uri, sizeof uri, "%s", fresh_shm(""));
    snprintf(grouped, sizeof grouped, "%s?keys=64&group=%d", uri, SHARED);
    return 0;
}

static int remove_it(void **state) {
    (void)state;
    weir_table_unlink(uri, NULL);
    return 0;
}

static void become(uid_t uid, gid_t gid, bool member) {
    const gid_t shared = SHARED;
    MUST(setgroups(member ? 1 : 0, &shared) == 0 && setgid(gid) == 0 && setuid(uid) == 0);
}

static int hits_once(struct weir_table *table) {
    struct weir_limit limit;
    struct weir_verdict verdict;
    MUST(weir_limit_parse("2 per minute", 12, &limit, NULL) == 0);
    struct weir_check check = {.limit = &limit, .key = "k", .key_len = 1, .cost = 1};
    MUST(weir_decide(table, &check, 1, NOW, WEIR_HIT, &verdict, NULL) == 0);
    return verdict.allowed;
}

static int makes_and_hits(void *argument) {
    struct weir_table *table;
    (void)argument;
    become(OWNER, OWNER, true);
    MUST(weir_table_open(grouped, &table, NULL) == 0);
    MUST(hits_once(table) == 1);
    weir_table_close(table);
    return 0;
}

static int opens_and_hits(void *argument) {
    struct weir_table *table;
    (void)argument;
    become(MEMBER, SHARED, false); /* by its own group, not by a supplementary one */
    MUST(weir_table_open(grouped, &table, NULL) == 0);
    MUST(hits_once(table) == 1 && hits_once(table) == 0);
    weir_table_close(table);
    return 0;
}

static void expect_refusal(const char *of, int code, const char *text) {
    struct weir_table *table;
    struct weir_error error = {.message = "?"};
    int rc = weir_table_open(of, &table, &error);
    if (rc != code || !strstr(error.message, text))
        fprintf(stderr, "%s: %d \"%s\", expected %d \"%s\"\n", of, rc, error.message, code, text);
    MUST(rc == code && strstr(error.message, text) && !table);
}

static int stranger_is_refused(void *argument) {
    (void)argument;
    become(STRANGER, STRANGER, false);
    expect_refusal(grouped, WEIR_EACCES, "(uid 64003) is not a member of the group \"64010\"");
    expect_refusal(uri, WEIR_EACCES, "Permission denied");
    return 0;
}

static int member_must_name_the_group(void *argument) {
    char other[340];
    (void)argument;
    become(OWNER, OWNER, true);
    expect_refusal(uri, WEIR_EACCES, "shared with a group (gid 64010, mode 0660)");
    snprintf(other, sizeof other, "%s?group=%d", uri, OWNER);
    expect_refusal(other, WEIR_EACCES, "exists, but not for the group \"64001\" (gid 64010");
    return 0;
}

static void test_members_count_together_and_others_are_refused(void **state) {
    struct stat st;
    char path[400];
    (void)state;
    if (geteuid() != 0)
        SKIP("only root can become another user");
    expect_success(spawn(makes_and_hits, NULL));
    snprintf(path, sizeof path, "/dev/shm/weir.%s", uri + strlen("shm://"));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_int_equal(st.st_uid, OWNER);
    assert_int_equal(st.st_gid, SHARED);
    expect_success(spawn(opens_and_hits, NULL));
    expect_success(spawn(stranger_is_refused, NULL));
    expect_success(spawn(member_must_name_the_group, NULL));
    struct weir_table *table;
    struct weir_error error;
    /* root is not a member */
    assert_int_equal(weir_table_open(grouped, &table, &error), WEIR_EACCES);
    assert_non_null(strstr(error.message, "not a member of the group"));
}

static void test_a_private_table_is_not_opened_for_a_group(void **state) {
    char own[340];
    struct weir_error error;
    struct weir_table *table = open_table(uri);
    (void)state;
    weir_table_close(table);
    snprintf(own, sizeof own, "%s?group=%u", uri, (unsigned)getegid());
    assert_int_equal(weir_table_open(own, &table, &error), WEIR_EACCES);
    assert_non_null(strstr(error.message, "exists, but not for the group"));
}

static void test_a_mode_wider_than_the_group_is_refused(void **state) {
    static const mode_t modes[] = {0666, 0664, 0640, 0600, 02660};
    char own[340], path[400];
    struct weir_error error;
    (void)state;
    snprintf(own, sizeof own, "%s?group=%u", uri, (unsigned)getegid());
    struct weir_table *table = open_table(own);
    weir_table_close(table);
    snprintf(path, sizeof path, "/dev/shm/weir.%s", uri + strlen("shm://"));
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(weir_table_open(own, &table, &error), WEIR_EACCES);
    }
    assert_int_equal(chmod(path, 0660), 0);
    assert_int_equal(weir_table_open(own, &table, &error), 0);
    weir_table_close(table);
}

static void test_groups_that_cannot_be_are_refused(void **state) {
    static const struct {
        const char *options;
        int code;
        const char *text;
    } cases[] = {
        {"?group=no-such-group-here", WEIR_EINVAL, "there is no group \"no-such-group-here\""},
        {"?group=4294967295", WEIR_EINVAL, "there is no group"},
        {"?group=99999999999999999999", WEIR_EINVAL, "there is no group"},
        {"?group=", WEIR_ESYNTAX, "expected the name of a group, at most 32 bytes"},
        {"?group=&keys=8", WEIR_ESYNTAX, "expected the name of a group, at most 32 bytes"},
        {"?group=a/b", WEIR_ESYNTAX, "a group may hold letters"},
        {"?group=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", WEIR_ESYNTAX, "at most 32 bytes"},
    };
    char text[400];
    struct weir_table *table;
    struct weir_error error;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(text, sizeof text, "%s%s", uri, cases[i].options);
        assert_int_equal(weir_table_open(text, &table, &error), cases[i].code);
        if (!strstr(error.message, cases[i].text))
            fail_msg("%s: \"%s\"", text, error.message);
    }
    assert_int_equal(weir_table_open("memory://?group=root", &table, &error), WEIR_ESYNTAX);
    assert_non_null(strstr(error.message, "memory:// is private"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_members_count_together_and_others_are_refused, fresh,
                                        remove_it),
        cmocka_unit_test_setup_teardown(test_a_private_table_is_not_opened_for_a_group, fresh,
                                        remove_it),
        cmocka_unit_test_setup_teardown(test_a_mode_wider_than_the_group_is_refused, fresh,
                                        remove_it),
        cmocka_unit_test_setup_teardown(test_groups_that_cannot_be_are_refused, fresh, remove_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
