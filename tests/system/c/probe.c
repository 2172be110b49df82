/*
 * For each line of input, a key: makes a decision on a Redis server, and prints the result and its
 * duration.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <weir/hiredis.h>

static long long clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
    struct weir_hiredis_options options = {.port = argc > 1 ? atoi(argv[1]) : 0,
                                           .deadline_ms = argc > 2 ? atoi(argv[2]) : 0,
                                           .password = argc > 3 ? argv[3] : NULL};
    struct weir_hiredis *redis;
    struct weir_limit limits[2];
    struct weir_error error;
    size_t n = 2;
    char line[256];
    weir_limit_parse_many("3 per hour; 1000 per day", 24, limits, &n, &error);
    if (weir_hiredis_open(&options, &redis, &error) < 0) {
        printf("not opened: %s\n", error.message);
        return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        struct weir_verdict verdicts[2];
        struct weir_decision decision;
        line[strcspn(line, "\n")] = '\0';
        struct weir_check checks[2] = {
            {.limit = &limits[0], .key = line, .key_len = strlen(line), .cost = 1},
            {.limit = &limits[1], .key = line, .key_len = strlen(line), .cost = 1}};
        long long began = clock_ms();
        int rc;
        if (strncmp(line, "clear ", 6) == 0) {
            for (int i = 0; i < 2; i++) {
                checks[i].key = line + 6;
                checks[i].key_len -= 6;
            }
            rc = weir_hiredis_clear(redis, checks, n, &error);
            printf("%s %lld\n", rc < 0 ? error.message : "cleared", clock_ms() - began);
        } else {
            rc = weir_hiredis_decide(redis, checks, n, WEIR_HIT, verdicts, &decision, &error);
            printf("%s %lld\n",
                   rc < 0             ? error.message
                   : decision.allowed ? "allowed"
                                      : "denied",
                   clock_ms() - began);
        }
        fflush(stdout);
    }
    weir_hiredis_close(redis);
    return 0;
}
