/*
 * Common parts of the tests of refused and contested tables: a folder for the run, names in it,
 * refusals.
 */
#ifndef WEIR_TESTS_REFUSED_H
#define WEIR_TESTS_REFUSED_H

#include "support.h"

#include <sys/stat.h>

#include "open.h"

static char folder[32]; /* of this run */

static inline int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/weir-refused-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state) {
    (void)state;
    return rmdir(folder); /* fails if something was left behind */
}

/* folder/name, or file://folder/name with options. */
static inline const char *path_of(const char *name) {
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static inline const char *uri_of(const char *name, const char *options) {
    static char uri[160];
    snprintf(uri, sizeof uri, "file://%s/%s%s", folder, name, options);
    return uri;
}

static inline int descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    int count = 0;
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* After each test, so that one failure does not make the others fail. */
static inline int remove_it(void **state) {
    (void)state;
    unlink(path_of("it"));
    return 0;
}

/* Opening `uri` fails with `code`, and the message holds `text`; no descriptor stays open. */
static inline void refuses(const char *uri, int code, const char *text) {
    struct weir_table *table = (struct weir_table *)&folder;
    struct weir_error error = {.message = "?"};
    int before = descriptors();
    int rc = weir_table_open(uri, &table, &error);
    if (rc != code || error.code != code || table || !strstr(error.message, text))
        fail_msg("%s: %d \"%s\", expected %d \"%s\"", uri, rc, error.message, code, text);
    assert_int_equal(descriptors(), before);
    assert_int_equal(weir_table_open(uri, &table, NULL), code);
}

#define AFTER_WHICH_IT_GOES(test) cmocka_unit_test_teardown(test, remove_it)

#endif
