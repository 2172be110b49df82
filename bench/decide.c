/*
 * The time of a decision in C, compared with its necessary parts: a lock and a cache miss.
 *
 * Workload: one limit with room for every hit, a 25-byte key; hot (always the same key) and over
 * many keys at random. Measured alternately with it in each round: lock and unlock of an
 * uncontended robust process-shared pthread mutex; one dependent read from random 4 KiB pages. The
 * cost of statistics is compared with the same decision without them: with a label, and with a
 * label and a client.
 *
 * Caveats: the machine is often shared; compare numbers of one run only. Numbers are medians of the
 * rounds, followed by the lowest and highest.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "series.h"
#include "weir/stats.h"

static const char *const names[] = {"fixed-window", "moving-window", "sliding-window-counter",
                                    "token-bucket", "leaky-bucket"};

/* ---------------------------------------------------------------------------------------- peers */

static double mutex_ns(void) {
    enum { N = 3000000 };
    pthread_mutexattr_t attr;
    pthread_mutex_t mutex;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attr);
    double start = seconds();
    for (int i = 0; i < N; i++) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
    }
    return (seconds() - start) / N * 1e9;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A cycle through `n` cache lines in random order, on pages of 4 KiB. */
struct chain {
    uint64_t (*line)[8];
    uint64_t n, at;
};

static struct chain make_chain(uint64_t n) {
    struct chain chain = {.n = n};
    uint64_t state = 88172645463325252u;
    chain.line = mmap(NULL, n * 64, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chain.line == MAP_FAILED)
        must(WEIR_ENOMEM, NULL);
    madvise(chain.line, n * 64, MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < n; i++)
        chain.line[i][0] = i;
    for (uint64_t i = n - 1; i > 0; i--) { /* Sattolo: one cycle */
        uint64_t j = next_random(&state) % i, swap = chain.line[i][0];
        chain.line[i][0] = chain.line[j][0];
        chain.line[j][0] = swap;
    }
    return chain;
}

static double read_ns(struct chain *chain) {
    enum { N = 1000000 };
    double start = seconds();
    for (int i = 0; i < N; i++)
        chain->at = chain->line[chain->at][0];
    *(volatile uint64_t *)&chain->at = chain->at;
    return (seconds() - start) / N * 1e9;
}

/* ----------------------------------------------------------------------------------------- weir */

/* What a check adds to the statistics. */
enum stats { NO_STATS, BY_LABEL, BY_CLIENT };

static struct weir_check with_stats(struct weir_table *table, enum stats stats,
                                    struct weir_check check) {
    if (stats >= BY_LABEL)
        check.label = weir_stats_label(table, "1000000000 per 1 minute", 23);
    if (stats >= BY_CLIENT) {
        check.client = (const char *)check.key + 8; /* after "LIMITER/" */
        check.client_len = check.key_len - 8;
    }
    return check;
}

static double hot_ns(struct weir_table *table, int strategy, size_t n, enum stats stats) {
    enum { N = 1000000 };
    static int64_t now = START_NS;
    static const char key[] = "LIMITER/10.1.2.3/api.view";
    struct weir_limit limit[8];
    struct weir_check check[8];
    struct weir_verdict verdict[8];
    for (size_t i = 0; i < n; i++) {
        limit[i] = limit_of(strategy, 1000000000 + (int64_t)i);
        check[i] =
            with_stats(table, stats,
                       (struct weir_check){
                           .limit = &limit[i], .key = key, .key_len = sizeof key - 1, .cost = 1});
    }
    double start = seconds();
    /* A hit each 100 us: a moving window contains at most 600,000. */
    for (int i = 0; i < N; i++)
        must(weir_decide(table, check, n, now += 100000, WEIR_HIT, verdict, NULL), NULL);
    return (seconds() - start) / N * 1e9;
}

/* A key of 24 bytes: "LIMITER/" and 16 hexadecimal digits of `number`. Takes a few ns. */
static void make_key(char key[24], uint64_t number) {
    static const char digit[] = "0123456789abcdef";
    memcpy(key, "LIMITER/", 8);
    for (int i = 0; i < 16; i++)
        key[8 + i] = digit[number >> (60 - 4 * i) & 15];
}

static double wide_ns(struct weir_table *table, int strategy, uint64_t keys, uint64_t *seed,
                      enum stats stats) {
    enum { N = 500000 };
    static int64_t now = START_NS;
    struct weir_limit limit = limit_of(strategy, 1000000000);
    must(weir_limit_init(&limit, limit.amount, 100, WEIR_YEAR, NULL), NULL); /* no key expires */
    limit.strategy = strategy;
    struct weir_verdict verdict;
    char key[24];
    struct weir_check check = with_stats(
        table, stats,
        (struct weir_check){.limit = &limit, .key = key, .key_len = sizeof key, .cost = 1});
    double start = seconds();
    for (int i = 0; i < N; i++) {
        make_key(key, next_random(seed) % keys * UINT64_C(0x9E3779B97F4A7C15));
        must(weir_decide(table, &check, 1, now++, WEIR_HIT, &verdict, NULL), NULL);
    }
    return (seconds() - start) / N * 1e9;
}

static double keys_ns(uint64_t keys, uint64_t *seed) {
    enum { N = 500000 };
    char key[24];
    volatile char sink;
    double start = seconds();
    for (int i = 0; i < N; i++) {
        make_key(key, next_random(seed) % keys * UINT64_C(0x9E3779B97F4A7C15));
        sink = key[23];
    }
    (void)sink;
    return (seconds() - start) / N * 1e9;
}

static void fill(struct weir_table *table, int strategy, uint64_t keys) {
    struct weir_limit limit = limit_of(strategy, 1000000000);
    must(weir_limit_init(&limit, limit.amount, 100, WEIR_YEAR, NULL), NULL);
    limit.strategy = strategy;
    struct weir_verdict verdict;
    char key[24];
    struct weir_check check = {.limit = &limit, .key = key, .key_len = sizeof key, .cost = 1};
    for (uint64_t i = 0; i < keys; i++) {
        make_key(key, i * UINT64_C(0x9E3779B97F4A7C15));
        must(weir_decide(table, &check, 1, START_NS - 1, WEIR_HIT, &verdict, NULL), NULL);
    }
}

/* Decisions per second of two processes on one shared table: on one key, or on a key each. */
static double pair_rate(const char *uri, int strategy, bool same_key) {
    enum { N = 400000, PROCESSES = 2 };
    _Atomic int *ready =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child[PROCESSES];
    double start = 0;
    for (int p = 0; p < PROCESSES; p++) {
        child[p] = fork();
        if (child[p] != 0)
            continue;
        struct weir_table *table = open_table(uri);
        struct weir_limit limit = limit_of(strategy, 1000000000);
        struct weir_verdict verdict;
        char key[24];
        make_key(key, same_key ? 1 : (uint64_t)p + 1);
        struct weir_check check = {.limit = &limit, .key = key, .key_len = sizeof key, .cost = 1};
        atomic_fetch_add(ready, 1);
        while (atomic_load(ready) <= PROCESSES)
            ;
        for (int i = 0; i < N; i++)
            must(weir_decide(table, &check, 1, START_NS + i * 100000, WEIR_HIT, &verdict, NULL),
                 NULL);
        _exit(0);
    }
    while (atomic_load(ready) < PROCESSES)
        usleep(1000);
    start = seconds();
    atomic_fetch_add(ready, 1);
    for (int p = 0; p < PROCESSES; p++)
        waitpid(child[p], NULL, 0);
    double took = seconds() - start;
    munmap((void *)ready, 4096);
    return N * PROCESSES / took / 1e6;
}

/* ------------------------------------------------------------------------------------- sections */

static void bench_hot(void) {
    struct weir_table *table = open_table("memory://?keys=4096&hits=4000000");
    struct weir_table *shared = open_table("shm://weir-bench?keys=4096&hits=4000000");
    struct series mutex = {.n = 0}, one[5] = {{.n = 0}}, shm[5] = {{.n = 0}}, three[5] = {{.n = 0}};
    for (int round = 0; round < ROUNDS; round++) {
        add(&mutex, mutex_ns());
        for (int s = 0; s < 5; s++) {
            add(&one[s], hot_ns(table, s, 1, NO_STATS));
            add(&shm[s], hot_ns(shared, s, 1, NO_STATS));
            add(&three[s], hot_ns(table, s, 3, NO_STATS));
        }
    }
    printf("A hot key, one thread\n");
    print("robust shared mutex, lock + unlock", &mutex, "ns", NULL, NULL);
    for (int s = 0; s < 5; s++) {
        char name[64];
        snprintf(name, sizeof name, "%s, memory://", names[s]);
        print(name, &one[s], "ns", "mutex", &mutex);
        snprintf(name, sizeof name, "%s, shm://", names[s]);
        print(name, &shm[s], "ns", "mutex", &mutex);
        snprintf(name, sizeof name, "%s, three limits", names[s]);
        print(name, &three[s], "ns", "mutex", &mutex);
    }
    weir_table_close(table);
    weir_table_close(shared);
    weir_table_unlink("shm://weir-bench", NULL);
}

static void bench_wide(uint64_t keys) {
    struct chain chain = make_chain(keys);
    printf("\n%.0f M keys at random, one thread (without the time to make a key)\n",
           (double)keys / 1e6);
    for (int s = 0; s < 5; s++) {
        char uri[96];
        uint64_t seed = 88172645463325252u;
        /*
         * A quarter more cells than keys, so that nothing is evicted. A moving window needs a line
         * for each key.
         */
        snprintf(uri, sizeof uri, "memory://?keys=%llu&hits=%llu",
                 (unsigned long long)(keys + keys / 4),
                 (unsigned long long)(s == WEIR_MOVING_WINDOW ? keys * 14 : 0));
        struct weir_table *table = open_table(uri);
        struct series read = {.n = 0}, wide = {.n = 0};
        struct weir_table_info info;
        fill(table, s, keys);
        for (int round = 0; round < ROUNDS; round++) {
            add(&read, read_ns(&chain));
            double making = keys_ns(keys, &seed);
            add(&wide, wide_ns(table, s, keys, &seed, NO_STATS) - making);
        }
        must(weir_table_info(table, START_NS, &info), NULL);
        if (s == 0)
            print("one dependent random read", &read, "ns", NULL, NULL);
        print(names[s], &wide, "ns", "read", &read);
        if (info.evictions || info.keys != keys)
            printf("    (%llu keys, %llu evictions)\n", (unsigned long long)info.keys,
                   (unsigned long long)info.evictions);
        weir_table_close(table);
    }
    munmap(chain.line, chain.n * 64);
}

/* Decisions with and without statistics, alternately. */
static void bench_stats(uint64_t keys) {
    static const char *const what[] = {"no statistics", "by label", "by label and client"};
    struct series hot[3] = {{.n = 0}}, three[3] = {{.n = 0}}, wide[3] = {{.n = 0}};
    char uri[96];
    uint64_t seed = 88172645463325252u;
    snprintf(uri, sizeof uri, "memory://?keys=%llu&hits=0", (unsigned long long)(keys + keys / 4));
    struct weir_table *table = open_table("memory://?keys=4096&hits=0"), *large = open_table(uri);
    fill(large, WEIR_FIXED_WINDOW, keys);
    for (int round = 0; round < ROUNDS; round++)
        for (int w = 0; w < 3; w++) {
            enum stats stats = (enum stats)((round + w) % 3);
            add(&hot[stats], hot_ns(table, WEIR_FIXED_WINDOW, 1, stats));
            add(&three[stats], hot_ns(table, WEIR_FIXED_WINDOW, 3, stats));
            double making = keys_ns(keys, &seed);
            add(&wide[stats], wide_ns(large, WEIR_FIXED_WINDOW, keys, &seed, stats) - making);
        }
    printf("\nFixed windows with and without statistics\n");
    for (int w = 0; w < 3; w++) {
        char name[64];
        snprintf(name, sizeof name, "hot key, %s", what[w]);
        print(name, &hot[w], "ns", "none", &hot[0]);
    }
    for (int w = 0; w < 3; w++) {
        char name[64];
        snprintf(name, sizeof name, "three limits, %s", what[w]);
        print(name, &three[w], "ns", "none", &three[0]);
    }
    for (int w = 0; w < 3; w++) {
        char name[64];
        snprintf(name, sizeof name, "at random, %s", what[w]);
        print(name, &wide[w], "ns", "none", &wide[0]);
    }
    weir_table_close(table);
    weir_table_close(large);
}

static void bench_pair(void) {
    const char *uri = "shm://weir-bench-pair?keys=4096&hits=4000000";
    struct weir_table *keep = open_table(uri);
    printf("\nTwo processes on one shm:// table\n");
    for (int s = 0; s < 5; s++) {
        struct series same = {.n = 0}, own = {.n = 0};
        for (int round = 0; round < ROUNDS; round++) {
            must(weir_table_reset(keep), NULL);
            add(&same, pair_rate(uri, s, true));
            add(&own, pair_rate(uri, s, false));
        }
        char name[64];
        snprintf(name, sizeof name, "%s, a key each", names[s]);
        print(name, &own, "M/s", NULL, NULL);
        snprintf(name, sizeof name, "%s, one key", names[s]);
        print(name, &same, "M/s", NULL, NULL);
    }
    weir_table_close(keep);
    weir_table_unlink("shm://weir-bench-pair", NULL);
}

static void bench_bytes(void) {
    struct weir_table *table = open_table("memory://?keys=1000000");
    struct weir_table_info info;
    fill(table, WEIR_FIXED_WINDOW, 1000000);
    must(weir_table_info(table, START_NS, &info), NULL);
    printf("\nMemory\n");
    printf("  fixed window, keys=1000000, 1 M keys offered: %.1f bytes a key (%.2f %% evicted)\n",
           (double)info.bytes / (double)info.keys, (double)info.evictions / 1e4);
    weir_table_close(table);

    table = open_table("memory://?keys=1000&hits=400000");
    struct weir_limit limit = limit_of(WEIR_MOVING_WINDOW, 1000);
    struct weir_verdict verdict;
    char key[24];
    struct weir_check check = {.limit = &limit, .key = key, .key_len = sizeof key, .cost = 1};
    for (int hit = 0; hit < 100; hit++)
        for (uint64_t k = 0; k < 500; k++) {
            make_key(key, k);
            must(
                weir_decide(table, &check, 1, START_NS + hit * 100000000, WEIR_HIT, &verdict, NULL),
                NULL);
        }
    must(weir_table_info(table, START_NS, &info), NULL);
    printf("  moving window, 100 hits 0.1 s apart: %.0f bytes a key\n",
           (double)(info.lines_used * 64) / 500 + 64);
    weir_table_close(table);
}

int main(int argc, char **argv) {
    uint64_t keys = 10000000;
    if (argc > 2 || (argc == 2 && (keys = strtoull(argv[1], NULL, 10)) < 1000)) {
        fprintf(stderr, "usage: %s [KEYS]   (default 10000000, at least 1000)\n", argv[0]);
        return 2;
    }
    printf("libweir %s, medians of %d rounds (lowest to highest)\n\n", weir_version(), ROUNDS);
    bench_hot();
    bench_wide(keys);
    bench_stats(keys);
    bench_pair();
    bench_bytes();
    return 0;
}
