/*
 * What weir_table_open() refuses, and its errors: URIs, files of other programs, damaged and
 * foreign tables, full file systems. A refused file is not changed, and nothing is left behind.
 */
#include "refused.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "table/cell.h"
#include "table/hash.h"

/* ----------------------------------------------------------------------------------------- URIs */

static const struct {
    const char *uri;
    int code, column;
    const char *message;
} unreadable[] = {
    {"", WEIR_ESYNTAX, 1, "\"\": unknown scheme; there are memory://, shm://name and file:///path"},
    {"redis://host", WEIR_ESYNTAX, 1,
     "\"redis://host\": unknown scheme; there are memory://, shm://name and file:///path"},
    {"memory", WEIR_ESYNTAX, 1,
     "\"memory\": unknown scheme; there are memory://, shm://name and file:///path"},
    {"memory://shop", WEIR_ESYNTAX, 10,
     "\"memory://shop\": memory:// takes no name; to share a table, use shm://name"},
    {"shm://", WEIR_ESYNTAX, 7, "\"shm://\": shm:// needs a name, as in shm://shop"},
    {"shm://a/b", WEIR_ESYNTAX, 8,
     "\"shm://a/b\": a name may hold letters, digits, \".\", \"_\" and \"-\" only"},
    {"shm://a%2fb", WEIR_ESYNTAX, 8,
     "\"shm://a%2fb\": a name may hold letters, digits, \".\", \"_\" and \"-\" only"},
    {"shm://a\nb", WEIR_ESYNTAX, 8,
     "\"shm://a\\x0ab\": a name may hold letters, digits, \".\", \"_\" and \"-\" only"},
    {"file://", WEIR_ESYNTAX, 8,
     "\"file://\": file:// needs an absolute path, as in file:///var/lib/app/limits"},
    {"file://tmp/x", WEIR_ESYNTAX, 8,
     "\"file://tmp/x\": file:// needs an absolute path, as in file:///var/lib/app/limits"},
    {"file:///", WEIR_ESYNTAX, 8, "\"file:///\": the path names no file"},
    {"file:///a%zz", WEIR_ESYNTAX, 10,
     "\"file:///a%zz\": % must be followed by two hexadecimal digits, not 00"},
    {"file:///a%4", WEIR_ESYNTAX, 10,
     "\"file:///a%4\": % must be followed by two hexadecimal digits, not 00"},
    {"file:///a%00b", WEIR_ESYNTAX, 10,
     "\"file:///a%00b\": % must be followed by two hexadecimal digits, not 00"},
    {"memory://?size=8", WEIR_ESYNTAX, 11,
     "\"memory://?size\": unknown option; there are keys=N, hits=N, rules=N and group=NAME"},
    {"memory://?keys=", WEIR_ESYNTAX, 16, "\"memory://?keys=\": expected a whole number"},
    {"memory://?keys=8k", WEIR_ESYNTAX, 17, "\"memory://?keys=8k\": expected a whole number"},
    {"memory://?keys=-8", WEIR_ESYNTAX, 16, "\"memory://?keys=-8\": expected a whole number"},
    {"memory://?keys=8&&hits=9", WEIR_ESYNTAX, 18,
     "\"memory://?keys=8&&hits=9\": unknown option; there are keys=N, hits=N, rules=N and "
     "group=NAME"},
    {"memory://?keys=99999999999999999999", WEIR_ESYNTAX, 16,
     "\"memory://?keys=99999999999999999999\": the number is too large"},
    {"memory://?keys=7", WEIR_EINVAL, 11, "keys must be from 8 to 268435456"},
    {"memory://?hits=9&keys=268435457", WEIR_EINVAL, 18, "keys must be from 8 to 268435456"},
    {"memory://?hits=536870913", WEIR_EINVAL, 11, "hits must be from 0 to 536870912"},
    {"memory://?rules=1000001", WEIR_EINVAL, 11, "rules must be from 0 to 1000000"},
    {"memory://?rules=", WEIR_ESYNTAX, 17, "\"memory://?rules=\": expected a whole number"},
};

static void test_uris_that_cannot_be_read_say_where(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof unreadable / sizeof unreadable[0]; i++) {
        struct weir_table *table;
        struct weir_error error = {.message = "?"};
        assert_int_equal(weir_table_open(unreadable[i].uri, &table, &error), unreadable[i].code);
        assert_null(table);
        assert_string_equal(error.message, unreadable[i].message);
        assert_int_equal(error.column, unreadable[i].column);
    }
}

static void test_names_and_paths_have_a_longest(void **state) {
    char uri[5000];
    (void)state;
    memset(uri, 'n', sizeof uri);
    memcpy(uri, "shm://", 6);
    uri[6 + WEIR_NAME_MAX + 1] = '\0';
    refuses(uri, WEIR_ESYNTAX, "the name is longer than 200 bytes");
    uri[6 + WEIR_NAME_MAX] = '\0';
    strcat(uri, "?keys=8");
    struct weir_table *table = open_table(uri);
    weir_table_close(table);
    assert_int_equal(weir_table_unlink(uri, NULL), 0);
    memset(uri, 'n', sizeof uri);
    memcpy(uri, "file:///", 8);
    uri[sizeof uri - 1] = '\0';
    refuses(uri, WEIR_ESYNTAX, "the path is too long");
    refuses(NULL, WEIR_EINVAL, "the URI is NULL");
    assert_int_equal(weir_table_open("memory://", NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_table_unlink("shm://", NULL), WEIR_ESYNTAX);
    weir_table_close(NULL);
}

static void test_a_path_may_hold_any_byte_escaped(void **state) {
    (void)state;
    struct weir_table *table = open_table(uri_of("a%3Fb%20c%25%C3%a9", "?keys=8"));
    weir_table_close(table);
    assert_int_equal(access(path_of("a?b c%\xc3\xa9"), F_OK), 0);
    assert_int_equal(weir_table_unlink(uri_of("a%3Fb%20c%25%c3%A9", ""), NULL), 0);
}

/* -------------------------------------------------------------------- files that are not tables */

static void write_file(const char *path, const void *bytes, size_t size) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
}

static void test_what_is_no_table_is_refused_and_left_alone(void **state) {
    char text[8192], after[8192];
    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)("a stranger's file\n"[i % 18]);
    write_file(path_of("it"), text, sizeof text);
    refuses(uri_of("it", ""), WEIR_EFORMAT, "not a weir table");
    refuses(uri_of("it", "?keys=8"), WEIR_EFORMAT, path_of("it"));
    int fd = open(path_of("it"), O_RDONLY);
    assert_int_equal(read(fd, after, sizeof after), sizeof text);
    close(fd);
    assert_memory_equal(text, after, sizeof text);
    write_file(path_of("it"), "", 0);
    refuses(uri_of("it", ""), WEIR_EFORMAT, "not a weir table, or truncated");
    write_file(path_of("it"), WEIR_MAGIC, 8);
    refuses(uri_of("it", ""), WEIR_EFORMAT, "not a weir table, or truncated");
    unlink(path_of("it"));
}

static void test_what_is_no_file_is_refused(void **state) {
    (void)state;
    assert_int_equal(mkdir(path_of("it"), 0700), 0);
    refuses(uri_of("it", ""), WEIR_ESYSTEM, "Is a directory");
    rmdir(path_of("it"));
    assert_int_equal(mkfifo(path_of("it"), 0600), 0);
    refuses(uri_of("it", ""), WEIR_EFORMAT, "not a regular file");
    unlink(path_of("it"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path_of("it"));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    refuses(uri_of("it", ""), WEIR_ESYSTEM, "cannot open it");
    close(fd);
    unlink(path_of("it"));
    refuses("file:///dev/null", geteuid() ? WEIR_EACCES : WEIR_EFORMAT, "file:///dev/null");
    refuses(uri_of("there/is/no/such", ""), WEIR_ENOENT, "cannot create it: No such file");
    refuses("shm://auto-no-folder/it", WEIR_ENOENT, "cannot create it in /dev/shm: No such file");
}

static void test_a_symbolic_link_is_not_followed(void **state) {
    char target[64];
    (void)state;
    snprintf(target, sizeof target, "%s", path_of("target"));
    assert_int_equal(symlink(target, path_of("it")), 0);
    refuses(uri_of("it", "?keys=8"), WEIR_EACCES, "it is a symbolic link"); /* dangling */
    assert_int_not_equal(access(target, F_OK), 0);
    struct weir_table *table = open_table(uri_of("target", "?keys=8"));
    weir_table_close(table);
    refuses(uri_of("it", ""), WEIR_EACCES, "it is a symbolic link");
    unlink(target);
    unlink(path_of("it"));
}

/* ------------------------------------------------------------------- owners and permissions */

static void test_a_table_that_others_may_read_is_refused(void **state) {
    static const mode_t modes[] = {0644, 0640, 0602, 0620, 0601};
    struct stat st;
    (void)state;
    struct weir_table *table = open_table(uri_of("it", "?keys=8"));
    assert_int_equal(stat(path_of("it"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    weir_table_close(table);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        char text[64];
        chmod(path_of("it"), modes[i]);
        snprintf(text, sizeof text, "others may read or write it (mode %04o)", modes[i]);
        refuses(uri_of("it", ""), WEIR_EACCES, text);
    }
    unlink(path_of("it"));
}

static void test_a_table_of_another_user_is_refused(void **state) {
    (void)state;
    if (geteuid() != 0)
        SKIP("only root can give a file away");
    struct weir_table *table = open_table(uri_of("it", "?keys=8"));
    weir_table_close(table);
    assert_int_equal(chown(path_of("it"), 65534, 65534), 0);
    refuses(uri_of("it", ""), WEIR_EACCES, "owned by another user (uid 65534, not 0)");
    unlink(path_of("it"));
}

static int open_as_nobody(void *argument) {
    struct weir_table *table;
    struct weir_error error;
    MUST(setgid(65534) == 0 && setuid(65534) == 0);
    MUST(weir_table_open(argument, &table, &error) == WEIR_EACCES);
    MUST(strstr(error.message, "Permission denied"));
    return 0;
}

static void test_root_s_table_is_closed_to_others(void **state) {
    (void)state;
    if (geteuid() != 0)
        SKIP("only root can become another user");
    char uri[300];
    snprintf(uri, sizeof uri, "%s", fresh_shm("?keys=8"));
    struct weir_table *table = open_table(uri);
    expect_success(spawn(open_as_nobody, uri));
    weir_table_close(table);
    weir_table_unlink(uri, NULL);
}

/* ------------------------------------------------------------------- foreign and damaged tables */

/* Makes a table, lets `damage` change its bytes, and expects the refusal. */
static void refuses_after(void (*damage)(struct weir_header *), int code, const char *text) {
    struct weir_table *table = open_table(uri_of("it", "?keys=64&hits=200"));
    size_t bytes = table->bytes;
    weir_table_close(table);
    int fd = open(path_of("it"), O_RDWR);
    struct weir_header *header = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(header != MAP_FAILED);
    damage(header);
    unsigned char *before = malloc(bytes);
    memcpy(before, header, bytes);
    refuses(uri_of("it", ""), code, text);
    if (code == WEIR_EVERSION) /* foreign files are not changed */
        assert_memory_equal(before, header, bytes);
    free(before);
    munmap(header, bytes);
    close(fd);
    unlink(path_of("it"));
}

static void newer_version(struct weir_header *header) {
    header->version++;
    header->checksum = weir_checksum(header);
}

static void other_signature(struct weir_header *header) {
    header->signature ^= 1;
    header->checksum = weir_checksum(header);
}

static void flipped_secret(struct weir_header *header) {
    header->secret[7] ^= 1;
}

static void more_keys(struct weir_header *header) {
    header->keys += 8;
    header->checksum = weir_checksum(header);
}

static void more_lines(struct weir_header *header) {
    header->lines++;
    header->checksum = weir_checksum(header);
}

static void other_pool(struct weir_header *header) {
    header->pool_at += 64;
    header->checksum = weir_checksum(header);
}

static void huge(struct weir_header *header) {
    header->keys = UINT64_MAX;
    header->hits = UINT64_MAX;
    header->rules = UINT32_MAX;
    header->checksum = weir_checksum(header);
}

static void lost_line(struct weir_header *header) {
    ((struct weir_pool *)((char *)header + header->pool_at))->free_head = 2;
}

static void stray_key(struct weir_header *header) {
    struct weir_cell *cell = (struct weir_cell *)((char *)header + header->cells_at);
    for (int i = 0; i < 64; i++)
        cell[i].fingerprint[1] = 1;
}

static void test_foreign_and_damaged_tables_are_refused(void **state) {
    char layouts[80];
    (void)state;
    snprintf(layouts, sizeof layouts,
             "another version of weir (layout %u, this one is %u); remove it",
             WEIR_LAYOUT_VERSION + 1, WEIR_LAYOUT_VERSION);
    refuses_after(newer_version, WEIR_EVERSION, layouts);
    refuses_after(other_signature, WEIR_EVERSION, "made by another build or machine; remove it");
    refuses_after(flipped_secret, WEIR_EFORMAT, "its header is damaged; remove it");
    refuses_after(more_keys, WEIR_EFORMAT, "its header is damaged; remove it");
    refuses_after(more_lines, WEIR_EFORMAT, "its header is damaged; remove it");
    refuses_after(other_pool, WEIR_EFORMAT, "its header is damaged; remove it");
    refuses_after(huge, WEIR_EFORMAT, "its header is damaged; remove it");
    refuses_after(lost_line, WEIR_EFORMAT, "damaged (");
    refuses_after(stray_key, WEIR_EFORMAT, "damaged (");
}

static void test_a_truncated_or_longer_file_is_refused(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct weir_table *table = open_table(uri_of("it", "?keys=64&hits=200"));
        off_t bytes = (off_t)table->bytes;
        weir_table_close(table);
        assert_int_equal(truncate(path_of("it"), i == 0   ? 4096
                                                 : i == 1 ? bytes - 1
                                                          : bytes + 1),
                         0);
        refuses(uri_of("it", ""), WEIR_EFORMAT, "truncated: ");
        unlink(path_of("it"));
    }
}

static void test_another_size_is_refused_and_the_message_has_the_existing_one(void **state) {
    (void)state;
    struct weir_table *table = open_table(uri_of("it", "?keys=60&hits=200"));
    assert_int_equal(info_of(table, NOW).keys_max, 64);
    refuses(uri_of("it", "?keys=128"), WEIR_EMISMATCH,
            "exists with keys=64&hits=200&rules=1024; use these values, or remove it");
    refuses(uri_of("it", "?keys=64&hits=201"), WEIR_EMISMATCH, "exists with keys=64&hits=200");
    refuses(uri_of("it", "?rules=8"), WEIR_EMISMATCH, "exists with keys=64&hits=200&rules=1024");
    weir_table_close(open_table(uri_of("it", "?keys=57")));
    weir_table_close(open_table(uri_of("it", "?hits=200")));
    weir_table_close(open_table(uri_of("it", "")));
    weir_table_close(table);
    unlink(path_of("it"));
}

/* --------------------------------------------------------------------------- full file systems */

/* In another mount namespace, where /dev/shm and a folder are 1 MiB each; 77: not permitted. */
static int fill_small_file_systems(void *argument) {
    struct weir_table *table;
    struct weir_error error;
    struct stat st;
    char path[128], uri[160];
    (void)argument;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m") < 0 ||
        mount("tmpfs", folder, "tmpfs", 0, "size=1m") < 0)
        return 77;
    snprintf(uri, sizeof uri, "file://%s/it", folder);
    const char *uris[] = {"shm://full", uri};
    for (int i = 0; i < 2; i++) {
        int before = descriptors();
        MUST(weir_table_open(uris[i], &table, &error) == WEIR_ENOSPC);
        MUST(strstr(error.message, uris[i]) && strstr(error.message, "cannot reserve 2"));
        MUST(strstr(
            error.message,
            "KiB: No space left on device; free some space, or set fewer keys with ?keys=N"));
        MUST(descriptors() == before);
        snprintf(path, sizeof path, "%s", i ? folder : "/dev/shm");
        DIR *directory = opendir(path);
        MUST(directory);
        for (struct dirent *entry; (entry = readdir(directory));)
            MUST(entry->d_name[0] == '.'); /* not even a temporary name */
        closedir(directory);
        char fitting[200];
        snprintf(fitting, sizeof fitting, "%s?keys=1024", uris[i]);
        MUST(weir_table_open(fitting, &table, &error) == 0);
        MUST(weir_table_unlink(fitting, NULL) == 0 && stat(path, &st) == 0);
        weir_table_close(table);
    }
    return 0;
}

static void test_a_full_file_system_is_an_error_at_once(void **state) {
    int status;
    (void)state;
    pid_t pid = spawn(fill_small_file_systems, NULL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        SKIP("mounts need a privilege that this process does not have");
    assert_int_equal(status, 0);
}

static int open_beyond_the_file_size_limit(void *argument) {
    const struct rlimit limit = {1 << 20, 1 << 20};
    struct weir_table *table;
    struct weir_error error;
    signal(SIGXFSZ, SIG_IGN);
    MUST(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    MUST(weir_table_open(argument, &table, &error) == WEIR_ENOSPC);
    MUST(strstr(error.message, "File too large"));
    return 0;
}

static void test_a_file_size_limit_is_an_error_at_once(void **state) {
    char uri[160];
    (void)state;
    snprintf(uri, sizeof uri, "%s", uri_of("it", ""));
    expect_success(spawn(open_beyond_the_file_size_limit, uri));
    assert_int_not_equal(access(path_of("it"), F_OK), 0);
}

static void test_what_is_no_table_is_not_removed(void **state) {
    struct weir_error error;
    (void)state;
    int fd = open(path_of("it"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "precious data", 13), 13);
    close(fd);
    assert_int_equal(weir_table_unlink(uri_of("it", ""), &error), WEIR_EFORMAT);
    assert_non_null(strstr(error.message, "not removed"));
    assert_int_equal(access(path_of("it"), F_OK), 0);
    unlink(path_of("it"));
    assert_int_equal(mkdir(path_of("it"), 0700), 0);
    assert_int_not_equal(weir_table_unlink(uri_of("it", ""), &error), 0);
    assert_int_equal(rmdir(path_of("it")), 0);
    assert_int_equal(symlink("/etc/passwd", path_of("it")), 0);
    assert_int_equal(weir_table_unlink(uri_of("it", ""), &error), WEIR_EACCES);
    unlink(path_of("it"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AFTER_WHICH_IT_GOES(test_uris_that_cannot_be_read_say_where),
        AFTER_WHICH_IT_GOES(test_names_and_paths_have_a_longest),
        AFTER_WHICH_IT_GOES(test_a_path_may_hold_any_byte_escaped),
        AFTER_WHICH_IT_GOES(test_what_is_no_table_is_refused_and_left_alone),
        AFTER_WHICH_IT_GOES(test_what_is_no_file_is_refused),
        AFTER_WHICH_IT_GOES(test_a_symbolic_link_is_not_followed),
        AFTER_WHICH_IT_GOES(test_a_table_that_others_may_read_is_refused),
        AFTER_WHICH_IT_GOES(test_a_table_of_another_user_is_refused),
        AFTER_WHICH_IT_GOES(test_root_s_table_is_closed_to_others),
        AFTER_WHICH_IT_GOES(test_foreign_and_damaged_tables_are_refused),
        AFTER_WHICH_IT_GOES(test_a_truncated_or_longer_file_is_refused),
        AFTER_WHICH_IT_GOES(test_another_size_is_refused_and_the_message_has_the_existing_one),
        AFTER_WHICH_IT_GOES(test_a_full_file_system_is_an_error_at_once),
        AFTER_WHICH_IT_GOES(test_a_file_size_limit_is_an_error_at_once),
        AFTER_WHICH_IT_GOES(test_what_is_no_table_is_not_removed),
    };
    seed_random();
    return cmocka_run_group_tests_name("refused tables", tests, make_folder, remove_folder);
}
