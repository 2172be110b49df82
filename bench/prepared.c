/*
 * A prepared check on a hot key, compared with Rust's governor (keyed, dashmap, String key).
 *
 * Workload: every hit is admitted; one thread; one core for both; the time argument grows by 100 us
 * at each hit. Each round runs governor once with its own clock (as in applications) and once with
 * its fake clock, and each decision of Weir once; ratios are those of one round. governor is the
 * program that WEIR_GOVERNOR names, built from bench/governor with cargo; script/bench does that if
 * cargo is installed.
 *
 * Caveats: the machine is often shared; compare numbers of one run only. Numbers are medians of the
 * rounds, followed by the lowest and highest.
 */
#include <sched.h>
#include <stdbool.h>

#include "series.h"
#include "weir/stats.h"

#define CLIENT "10.1.2.3"
#define HITS 2000000

enum { MEMORY, SHARED, BACKINGS };

static const struct {
    const char *name;
    int strategy, backing;
    size_t limits;
    bool counted;
} rows[] = {
    {"fixed-window, memory://", WEIR_FIXED_WINDOW, MEMORY, 1, false},
    {"fixed-window, shm://", WEIR_FIXED_WINDOW, SHARED, 1, false},
    {"token-bucket, memory://", WEIR_TOKEN_BUCKET, MEMORY, 1, false},
    {"token-bucket, shm://", WEIR_TOKEN_BUCKET, SHARED, 1, false},
    {"fixed-window, counted, memory://", WEIR_FIXED_WINDOW, MEMORY, 1, true},
    {"three fixed windows, memory://", WEIR_FIXED_WINDOW, MEMORY, 3, false},
    {"three fixed windows, shm://", WEIR_FIXED_WINDOW, SHARED, 3, false},
    {"three token buckets, memory://", WEIR_TOKEN_BUCKET, MEMORY, 3, false},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

static struct weir_prepared *prepare(struct weir_table *table, size_t row) {
    static const char *const periods[] = {"10 per 1 minute", "100 per 1 hour", "1000 per 1 day"};
    struct weir_limit limit[3];
    struct weir_part part[3];
    struct weir_prepared *prepared;
    struct weir_error error;
    for (size_t i = 0; i < rows[row].limits; i++) {
        limit[i] = limit_of(rows[row].strategy, 1000000000 + (int64_t)i);
        part[i] = (struct weir_part){
            .limit = &limit[i], .before = {"LIMITER/", 8}, .after = {"/api.view", 9}, .cost = 1};
        if (rows[row].counted)
            part[i].label = weir_stats_label(table, periods[i], strlen(periods[i]));
    }
    must(weir_prepare(part, rows[row].limits, &prepared, &error), &error);
    return prepared;
}

static double hot_ns(struct weir_table *table, const struct weir_prepared *prepared) {
    static int64_t now_ns = START_NS;
    struct weir_verdict verdict[3];
    struct weir_decision decision;
    struct weir_request request = {.client = {CLIENT, sizeof CLIENT - 1}};
    double start = seconds();
    for (int i = 0; i < HITS; i++) {
        request.now_ns = now_ns += 100000;
        must(weir_decide_prepared(table, prepared, &request, verdict, &decision), NULL);
    }
    return (seconds() - start) / HITS * 1e9;
}

/* One round of governor; false if there is none. */
static bool governor_ns(double *own, double *fake) {
    const char *program = getenv("WEIR_GOVERNOR");
    FILE *pipe = program && *program ? popen(program, "r") : NULL;
    if (!pipe)
        return false;
    bool read = fscanf(pipe, "%lf %lf", own, fake) == 2;
    return pclose(pipe) == 0 && read;
}

static void stay_on_one_core(void) {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return;
    CPU_ZERO(&one);
    for (size_t cpu = CPU_SETSIZE; cpu-- > 0;)
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &one);
            (void)sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

static void print_row(const char *name, const struct series *row, const struct series *own,
                      const struct series *fake) {
    print(name, row, "ns", own->n ? "governor" : NULL, own->n ? own : NULL);
    if (fake->n) {
        struct series ratio = {.n = 0};
        for (int i = 0; i < row->n; i++)
            add(&ratio, row->value[i] / fake->value[i]);
        printf("  %-38s %50.2f x with its fake clock\n", "", median(&ratio));
    }
}

int main(void) {
    struct weir_table *table[BACKINGS] = {open_table("memory://?keys=4096"),
                                          open_table("shm://weir-bench-prepared?keys=4096")};
    struct weir_prepared *prepared[ROWS];
    struct series own = {.n = 0}, fake = {.n = 0}, row[ROWS];
    memset(row, 0, sizeof row);
    stay_on_one_core();
    for (size_t r = 0; r < ROWS; r++)
        prepared[r] = prepare(table[rows[r].backing], r);
    for (int round = 0; round < ROUNDS; round++) {
        double a, b;
        if (governor_ns(&a, &b)) {
            add(&own, a);
            add(&fake, b);
        }
        for (size_t r = 0; r < ROWS; r++)
            add(&row[r], hot_ns(table[rows[r].backing], prepared[r]));
    }
    printf("A prepared check, a hot key, one thread\n");
    if (own.n == ROUNDS) {
        print("governor 0.10.4, its own clock", &own, "ns", NULL, NULL);
        print("governor 0.10.4, its fake clock", &fake, "ns", NULL, NULL);
    } else {
        own.n = fake.n = 0;
        printf("  governor 0.10.4                          missing: cargo makes it of "
               "bench/governor\n");
    }
    for (size_t r = 0; r < ROWS; r++) {
        print_row(rows[r].name, &row[r], &own, &fake);
        weir_prepared_free(prepared[r]);
    }
    weir_table_close(table[MEMORY]);
    weir_table_close(table[SHARED]);
    weir_table_unlink("shm://weir-bench-prepared", NULL);
    return 0;
}
