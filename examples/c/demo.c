/*
 * A limit on the command line: decides requests of a client and prints the results.
 *
 *     cc demo.c $(pkg-config --cflags --libs weir) -o demo
 *     ./demo "3 per minute; 100 per day" alice 5
 *     ./demo --table shm://demo "3 per minute" alice      # the next run continues the count
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <weir/weir.h>

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int fail(const char *what, const struct weir_error *error) {
    fprintf(stderr, "%s: %s\n", what, error->message);
    return 1;
}

static int usage(void) {
    fputs("usage: demo [--table URI] LIMITS CLIENT [TIMES]\n", stderr);
    return 2;
}

/* Decides one request of `client` with all limits: either all of them are charged, or none. */
static int ask(struct weir_table *table, const struct weir_prepared *prepared,
               const struct weir_limit *limits, const char *client) {
    struct weir_request request = {.now_ns = now_ns(), .client = {client, strlen(client)}};
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_decision decision;
    char text[96];
    int rc = weir_decide_prepared(table, prepared, &request, verdicts, &decision);
    if (rc < 0) {
        fprintf(stderr, "cannot decide: %s\n", weir_strerror(rc));
        return 1;
    }
    const struct weir_verdict *verdict = &verdicts[decision.deciding];
    weir_limit_print(&limits[decision.deciding], text, sizeof text);
    if (decision.allowed)
        printf("%s passes: %lld left of %s\n", client, (long long)verdict->remaining, text);
    else if (verdict->retry_after_ns == WEIR_NEVER)
        printf("%s is denied by %s\n", client, text);
    else
        printf("%s is denied by %s for %.1f s\n", client, text,
               (double)verdict->retry_after_ns / 1e9);
    return 0;
}

int main(int argc, char **argv) {
    const char *uri = "memory://";
    struct weir_limit limits[WEIR_CHECKS_MAX];
    struct weir_part parts[WEIR_CHECKS_MAX] = {{0}};
    struct weir_prepared *prepared;
    struct weir_table *table;
    struct weir_error error;
    size_t n = WEIR_CHECKS_MAX;
    if (argc > 2 && strcmp(argv[1], "--table") == 0) {
        uri = argv[2];
        argc -= 2;
        argv += 2;
    }
    if (argc < 3 || argc > 4)
        return usage();
    if (weir_limit_parse_many(argv[1], strlen(argv[1]), limits, &n, &error) < 0)
        return fail("limits", &error);
    for (size_t i = 0; i < n; i++) {
        parts[i].limit = &limits[i];
        parts[i].before = (struct weir_bytes){"demo/", 5};
        parts[i].cost = 1;
    }
    if (weir_prepare(parts, n, &prepared, &error) < 0)
        return fail("limits", &error);
    if (weir_table_open(uri, &table, &error) < 0) {
        weir_prepared_free(prepared);
        return fail("table", &error);
    }
    int rc = 0;
    long times = argc == 4 ? strtol(argv[3], NULL, 10) : 1;
    for (long i = 0; i < times && rc == 0; i++)
        rc = ask(table, prepared, limits, argv[2]);
    weir_table_close(table);
    weir_prepared_free(prepared);
    return rc;
}
