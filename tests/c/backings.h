/*
 * Tests that run once per backing: a table in memory, in shared memory and in a file.
 */
#ifndef WEIR_TESTS_BACKINGS_H
#define WEIR_TESTS_BACKINGS_H

#include "support.h"

/* Each test below runs once per backing. */
static const char *const homes[] = {"memory://", "shm://", "file://"};

struct backing {
    struct weir_table *table;
    char uri[256]; /* without options */
};

static inline int open_backing(void **state, const char *scheme) {
    static int count;
    struct backing *backing = calloc(1, sizeof *backing);
    char uri[300];
    count++;
    if (!strcmp(scheme, "shm://"))
        snprintf(backing->uri, sizeof backing->uri, "shm://test-%d-backing-%d", (int)getpid(),
                 count);
    else if (!strcmp(scheme, "file://"))
        snprintf(backing->uri, sizeof backing->uri, "file:///tmp/weir-test-%d-%d", (int)getpid(),
                 count);
    else
        snprintf(backing->uri, sizeof backing->uri, "memory://");
    snprintf(uri, sizeof uri, "%s?keys=1024&hits=2000", backing->uri);
    backing->table = open_table(uri);
    *state = backing;
    return 0;
}

static inline int close_backing(void **state) {
    struct backing *backing = *state;
    check_sound(backing->table);
    weir_table_close(backing->table);
    weir_table_unlink(backing->uri, NULL);
    free(backing);
    return 0;
}

static inline int in_memory(void **state) {
    return open_backing(state, homes[0]);
}

static inline int in_shm(void **state) {
    return open_backing(state, homes[1]);
}

static inline int in_file(void **state) {
    return open_backing(state, homes[2]);
}

static inline struct weir_table *table_of(void **state) {
    return ((struct backing *)*state)->table;
}

#define ON_EACH_BACKING(test)                                                                      \
    {#test " in memory", test, in_memory, close_backing, NULL},                                    \
        {#test " in shm", test, in_shm, close_backing, NULL}, {                                    \
        #test " in a file", test, in_file, close_backing, NULL                                     \
    }

#endif
