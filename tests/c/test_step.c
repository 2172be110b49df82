/*
 * A kill at every instruction of a decision.
 *
 * A child makes one decision under ptrace. It is stepped through once, and the addresses of its instructions are
 * recorded. Then, for each address, another child is started from the same bytes, runs to that address (from one
 * breakpoint to the next) and is killed. The next process to use the table must find it valid, and exactly as
 * before the decision or exactly as after it, for all limits. That process either has the table open together with
 * others, or opens it alone.
 *
 * Every address within weir_transaction_commit() is tested, and WEIR_STEPS of the others, at equal distances from a
 * random first one (default 100 for each kind of decision and way of opening; 0: all). Sanitizers make the runs long
 * and forks slow, so with them not every address of the commit is tested. x86-64 Linux only.
 */
#include "support.h"

#if !defined(__x86_64__)
static void test_kills(void **state) {
    (void)state;
    SKIP("single steps are done for x86-64 only");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kills)};
    return cmocka_run_group_tests_name("step", tests, NULL, NULL);
}
#else

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#include "step_scenes.h"

#define TRACE_MAX 2000000 /* a decision that never ends */
#define REPETITIONS 16 /* of an instruction such as "rep movsb"; each next one takes a step more */
#define STEPS_DEFAULT (UNDER_ASAN ? 30 : 100)
#define COMMIT_MAX (UNDER_ASAN ? 60u : 500u) /* steps of a commit, per way of opening */

#if UNDER_ASAN
/* What was freed need not be kept for long: it makes each fork slower. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "quarantine_size_mb=1";
}
#endif

/* The visible state of the table, and its cells without the hints. */
struct picture {
    struct weir_verdict verdict[TRACKED_MAX][2];
    struct weir_cell cell[512];
};

static void take_picture(struct scene *scene, struct picture *picture) {
    memset(picture, 0, sizeof *picture);
    for (uint32_t i = 0; i < scene->tracked_count; i++)
        for (int many = 0; many < 2; many++) {
            struct weir_check check = scene->tracked[i];
            check.cost = many ? check.limit->amount : 1;
            int rc = weir_decide(scene->table, &check, 1, scene->now_ns, WEIR_TEST,
                                 &picture->verdict[i][many], NULL);
            if (rc < 0)
                fail_msg("%s: %s", scene->kind->name, weir_strerror(rc));
        }
    uint64_t keys = scene->table->header->keys;
    assert_true(keys <= sizeof picture->cell / sizeof picture->cell[0]);
    memcpy(picture->cell, scene->table->cell, keys * sizeof picture->cell[0]);
    for (uint64_t i = 0; i < keys; i++)
        picture->cell[i].state.denials = picture->cell[i].state.usage = 0;
}

static bool same_picture(const struct scene *scene, const struct picture *a,
                         const struct picture *b) {
    return !memcmp(a->verdict, b->verdict, sizeof a->verdict) &&
           (scene->kind->loose || !memcmp(a->cell, b->cell, sizeof a->cell));
}

/* The stop markers, and the decision between them. */
__attribute__((noinline)) static void at_end(void) {
    __asm__ volatile("");
}

__attribute__((noinline)) static void act(struct scene *scene) {
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    if (!scene->table && weir_table_open(scene->uri, &scene->table, NULL) < 0)
        _exit(2);
    int rc = scene->clears ? weir_clear(scene->table, scene->checks, scene->n)
                           : weir_decide(scene->table, scene->checks, scene->n, scene->now_ns,
                                         scene->mode, verdicts, NULL);
    at_end();
    if (rc < 0)
        _exit(3);
}

/* ------------------------------------------------------------------------------------- under ptrace */

/* The addresses of the instructions of a decision, in order. */
struct trace {
    uint64_t *at;
    uint32_t *from; /* the index from which this one is reached by one hop, see find_hops() */
    uint32_t length, size;
    uint32_t commit_from, commit_to; /* indices; equal if there was no commit */
};

static uint64_t where(pid_t pid) {
    struct user_regs_struct regs;
    assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
    return regs.rip;
}

static long peek(pid_t pid, uint64_t address) {
    errno = 0;
    long word = ptrace(PTRACE_PEEKDATA, pid, (void *)address, NULL);
    assert_int_equal(errno, 0);
    return word;
}

static void poke(pid_t pid, uint64_t address, long word) {
    assert_int_equal(ptrace(PTRACE_POKEDATA, pid, (void *)address, (void *)word), 0);
}

/* Waits until it stops; the signal, or 0 if it has ended. */
static int wait_stop(pid_t pid) {
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
}

static int single_step(pid_t pid) {
    assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
    return wait_stop(pid);
}

/* Runs until `address` is reached for the first time from here on: SIGTRAP, else as wait_stop(). */
static int run_to(pid_t pid, uint64_t address) {
    if (where(pid) == address) {
        int stop = single_step(pid);
        if (stop != SIGTRAP || where(pid) == address) /* a repeated instruction reaches itself */
            return stop;
    }
    long word = peek(pid, address);
    poke(pid, address, (word & ~0xffL) | 0xcc);
    assert_int_equal(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    int stop = wait_stop(pid);
    if (stop != SIGTRAP)
        return stop;
    poke(pid, address, word);
    struct user_regs_struct regs;
    assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
    regs.rip = address;
    assert_int_equal(ptrace(PTRACE_SETREGS, pid, NULL, &regs), 0);
    return SIGTRAP;
}

/* A child stopped where act() begins, the table's bytes being those from before the decision. */
static pid_t start(struct scene *scene, bool alone) {
    memcpy(scene->bytes, scene->before, scene->size);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(77);
        alarm(60);
        if (alone && !scene->kind->recovers && weir_table_open(scene->uri, &scene->table, NULL) < 0)
            _exit(2);
        raise(SIGSTOP);
        act(scene);
        _exit(0);
    }
    int signal = wait_stop(pid);
    if (signal == 0)
        SKIP("ptrace is not permitted here");
    assert_int_equal(signal, SIGSTOP);
    assert_int_equal(run_to(pid, (uint64_t)(uintptr_t)act), SIGTRAP);
    return pid;
}

static void end(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

/*
 * The last index before k that has the k-th address, for each k; 0 if there is none: index 0 is act(), where each child
 * begins.
 */
static void find_earlier(const struct trace *trace, uint32_t *earlier) {
    enum { SLOTS = 1 << 16 };
    struct {
        uint64_t at;
        uint32_t index;
    } *slot = calloc(SLOTS, sizeof *slot);
    assert_non_null(slot);
    for (uint32_t k = 0; k < trace->length; k++) {
        uint32_t i = (uint32_t)(trace->at[k] * UINT64_C(0x9E3779B97F4A7C15) >> 48);
        while (slot[i].at && slot[i].at != trace->at[k])
            i = (i + 1) % SLOTS;
        slot[i].at = trace->at[k];
        earlier[k] = slot[i].index;
        slot[i].index = k;
    }
    free(slot);
}

/*
 * One hop goes from any index to the next one that has a given address: k is reached from each index between the last
 * one with the same address and k. from[k] is the one of them that takes the fewest hops. `best` has the indices that
 * may be it: those with fewer hops than all later ones, in ascending order of both.
 */
static void find_hops(struct trace *trace) {
    uint32_t *earlier = malloc(trace->length * sizeof *earlier);
    uint32_t *best = malloc(trace->length * sizeof *best), count = 0;
    uint32_t *hops = malloc(trace->length * sizeof *hops);
    assert_true(earlier && best && hops);
    find_earlier(trace, earlier);
    for (uint32_t k = 0; k < trace->length; k++) {
        uint32_t low = 0, high = count;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (best[middle] < earlier[k])
                low = middle + 1;
            else
                high = middle;
        }
        trace->from[k] = k > 0 ? best[low] : 0;
        hops[k] = k > 0 ? hops[best[low]] + 1 : 0;
        while (count > 0 && hops[best[count - 1]] >= hops[k])
            count--;
        best[count++] = k;
    }
    free(earlier);
    free(best);
    free(hops);
}

static void append(struct trace *trace, uint64_t at) {
    if (trace->length == trace->size) {
        trace->size = trace->size ? trace->size * 2 : 1 << 16;
        trace->at = realloc(trace->at, trace->size * sizeof trace->at[0]);
        trace->from = realloc(trace->from, trace->size * sizeof trace->from[0]);
        assert_true(trace->at && trace->from);
    }
    trace->at[trace->length++] = at;
}

static void follow(struct scene *scene, bool alone, struct trace *trace) {
    pid_t pid = start(scene, alone);
    uint64_t back = 0, last = 0;
    uint32_t repeated = 0;
    trace->length = trace->commit_from = trace->commit_to = 0;
    for (uint64_t at; (at = where(pid)) != (uint64_t)(uintptr_t)at_end;) {
        assert_true(trace->length < TRACE_MAX);
        if (at == (uint64_t)(uintptr_t)weir_transaction_commit && !back) {
            struct user_regs_struct regs;
            assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
            back = (uint64_t)peek(pid, regs.rsp);
            trace->commit_from = trace->commit_to = trace->length;
        } else if (at == back) {
            trace->commit_to = trace->length; /* the last commit, if there are several */
        }
        repeated = at == last ? repeated + 1 : 0;
        last = at;
        if (repeated < REPETITIONS)
            append(trace, at);
        assert_int_equal(single_step(pid), SIGTRAP);
    }
    end(pid);
    find_hops(trace);
}

/* False, and the child is gone, if it goes another way than the trace. */
static bool run_until(pid_t pid, const struct trace *trace, uint32_t k) {
    uint32_t *hop = malloc((k + 1) * sizeof *hop), count = 0;
    assert_non_null(hop);
    for (uint32_t i = k; i > 0; i = trace->from[i])
        hop[count++] = i;
    int stop = SIGTRAP;
    while (count > 0 && stop == SIGTRAP)
        stop = run_to(pid, trace->at[hop[--count]]);
    free(hop);
    if (stop == SIGTRAP && where(pid) == trace->at[k])
        return true;
    if (stop != 0)
        end(pid);
    return false;
}

/*
 * A child that is stopped at the k-th address; 0 if there are no more. The path of a child depends on the state of this
 * process before the fork: its heap, and the functions that the dynamic linker has resolved. If a child takes another
 * path, the addresses are recorded again.
 */
static pid_t start_at(struct scene *scene, bool alone, struct trace *trace, uint32_t k) {
    for (int tries = 0; tries < 10 && k < trace->length; tries++) {
        pid_t pid = start(scene, alone);
        if (run_until(pid, trace, k))
            return pid;
        follow(scene, alone, trace);
    }
    if (k < trace->length)
        fail_msg("%s: a child never goes the way that one before it went", scene->kind->name);
    return 0;
}

/* ----------------------------------------------------------------------------------------- the kills */

static struct picture before, after, found;

static const char *describe(const struct scene *scene) {
    if (same_picture(scene, &found, &before))
        return "as before";
    if (same_picture(scene, &found, &after))
        return "as after";
    return "neither as before nor as after";
}

/* Kills one at the k-th address and looks at what is left. */
static void kill_at(struct scene *scene, bool alone, struct trace *trace, uint32_t k) {
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_error error = {.message = ""};
    pid_t pid = start_at(scene, alone, trace, k);
    if (pid == 0)
        return;
    end(pid);
    if (alone)
        scene->table = open_table(scene->uri);
    take_picture(scene, &found);
    int rc = weir_table_check(scene->table, &error);
    const char *is = describe(scene);
    if (rc < 0 || *is == 'n')
        fail_msg("%s, killed at step %u of %u (commit: %u to %u), %s: the table is %s %s",
                 scene->kind->name, k, trace->length, trace->commit_from, trace->commit_to,
                 alone ? "opened again" : "open", is, error.message);
    rc = weir_decide(scene->table, scene->checks, scene->n, scene->now_ns, scene->mode, verdicts,
                     NULL);
    if (rc == 0)
        rc = weir_table_check(scene->table, &error);
    if (rc < 0)
        fail_msg("%s, killed at step %u, %s: the next decision: %s %s", scene->kind->name, k,
                 alone ? "opened again" : "open", weir_strerror(rc), error.message);
    if (alone) {
        weir_table_close(scene->table);
        scene->table = NULL;
    }
}

static uint32_t kill_everywhere(struct scene *scene, bool alone, struct trace *trace) {
    const char *given = getenv("WEIR_STEPS");
    uint32_t budget = given ? (uint32_t)atoi(given) : STEPS_DEFAULT, kills = 0;
    if (alone && scene->kind->recovers)
        budget = budget / 4; /* long: it is opened and verified, too */
    uint32_t inside = trace->commit_to - trace->commit_from, outside = trace->length - inside;
    bool all = given && atoi(given) == 0;
    uint32_t inner = all ? 1 : inside / COMMIT_MAX + 1;
    uint32_t outer = all ? 1 : outside / (budget + 1) + 1;
    uint32_t in_first = (uint32_t)random_below(inner), out_first = (uint32_t)random_below(outer);
    for (uint32_t k = 0; k < trace->length; k++) {
        bool in = k >= trace->commit_from && k < trace->commit_to;
        if (in ? k % inner != in_first : k % outer != out_first)
            continue;
        kill_at(scene, alone, trace, k);
        kills++;
    }
    return kills;
}

static void prepare(struct scene *scene, const struct kind *kind) {
    do {
        memset(scene, 0, sizeof *scene);
        scene->kind = kind;
        scene->now_ns = NOW;
        snprintf(scene->uri, sizeof scene->uri, "%s", fresh_shm(kind->options));
        scene->table = open_table(scene->uri);
        scene->size = scene->table->bytes;
        char path[300];
        snprintf(path, sizeof path, "/dev/shm/weir.%.*s", (int)strcspn(scene->uri + 6, "?"),
                 scene->uri + 6);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        scene->bytes = mmap(NULL, scene->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(scene->bytes != MAP_FAILED);
        close(fd);
        scene->before = malloc(scene->size);
        assert_non_null(scene->before);
        kind->prepare(scene);
        check_sound(scene->table);
        memcpy(scene->before, scene->bytes, scene->size);
        if (scene->n == 0) {
            weir_table_close(scene->table);
            weir_table_unlink(scene->uri, NULL);
            munmap(scene->bytes, scene->size);
            free(scene->before);
        }
    } while (scene->n == 0);
}

/* Kills one in the last moment before its commit takes effect: the most there may be to undo. */
static void leave_a_record(struct scene *scene, struct trace *trace) {
    bool open = false;
    follow(scene, false, trace);
    for (uint32_t k = trace->commit_to; !open; k--) {
        assert_true(k > trace->commit_from);
        pid_t pid = start_at(scene, false, trace, k);
        assert_true(pid > 0);
        end(pid);
        for (uint32_t i = 0; i < scene->table->header->stripes; i++)
            open |= weir_lock_at(scene->table, i)->txn != 0;
    }
    memcpy(scene->before, scene->bytes, scene->size);
}

static void step_through(void **state) {
    const struct kind *kind = *state;
    struct trace trace = {.length = 0};
    struct scene scene;
    prepare(&scene, kind);
    if (kind->recovers)
        leave_a_record(&scene, &trace);
    take_picture(&scene, &before);
    act(&scene);
    take_picture(&scene, &after);
    assert_int_equal(scene.kind->loose || memcmp(&before, &after, sizeof before) != 0, 1);
    int64_t began = clock_now();
    uint32_t kills = 0, steps = 0;
    for (int alone = 0; alone < (UNDER_ASAN && kind->recovers ? 1 : 2); alone++) {
        trace.length = 0;
        append(&trace, (uint64_t)(uintptr_t)act);
        /* First, so that this process has already done what it does between kills. */
        kill_at(&scene, alone, &trace, 0);
        follow(&scene, alone, &trace);
        steps = trace.length;
        kills += kill_everywhere(&scene, alone, &trace);
        weir_table_close(scene.table);
        scene.table = NULL;
    }
    print_message("# %s: %u steps, %u of them in the commit, %u kills in %.1f s\n", kind->name,
                  steps, trace.commit_to - trace.commit_from, kills,
                  (double)(clock_now() - began) / 1e9);
    weir_table_unlink(scene.uri, NULL);
    munmap(scene.bytes, scene.size);
    free(scene.before);
    free(trace.at);
    free(trace.from);
}

/* Arguments are names of kinds: only those, in the order of the list. */
static bool is_wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name))
            return true;
    return argc < 2;
}

int main(int argc, char **argv) {
    enum { COUNT = sizeof kinds / sizeof kinds[0] };
    struct CMUnitTest tests[COUNT] = {{0}};
    size_t n = 0;
    for (size_t i = 0; i < COUNT; i++)
        if (is_wanted(kinds[i].name, argc, argv))
            tests[n++] = (struct CMUnitTest){kinds[i].name, step_through, NULL, NULL,
                                             (void *)(uintptr_t)&kinds[i]};
    seed_random();
    return cmocka_run_group_tests_name("killed at every step", tests, NULL, NULL);
}
#endif
