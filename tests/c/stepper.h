/*
 * A child process that does one action under ptrace, and is stopped at any instruction of it.
 *
 * One child is stepped through, and the addresses of its instructions are recorded. Each other
 * child is started from the same state and runs to one of those instructions from one breakpoint to
 * the next. x86-64 Linux only: elsewhere, single steps may never leave a loop of exclusive loads
 * and stores.
 */
#ifndef WEIR_TESTS_STEPPER_H
#define WEIR_TESTS_STEPPER_H

#include "support.h"

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define TRACE_MAX 2000000 /* an action that never ends */
#define REFUSED 77        /* the exit status of a child that may not be traced */
/* Of an instruction such as "rep movsb"; each next one takes a step more. */
#define REPETITIONS 16

#if UNDER_ASAN
/* What was freed need not be kept for long: it makes each fork slower. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "quarantine_size_mb=1";
}
#endif

struct stepper {
    const char *name;                /* for messages */
    void (*restore)(void *argument); /* here, before each child: makes the same state again */
    void (*begin)(void *argument); /* in the child, before the first instruction that is recorded */
    void (*act)(void *argument); /* in the child: must call at_end() after the last one; noinline */
    void *argument;
    uint64_t marked; /* the address of a function that act() calls, or 0 */

    /* The trace: the addresses of the instructions, in order. */
    uint64_t *at;
    uint32_t *from; /* the index from which this one is reached by one hop, see find_hops() */
    uint32_t length, size;
    /*
     * Indices: from the marked function's first instruction to where its last call returned, or
     * equal.
     */
    uint32_t marked_from, marked_to;
};

/* Where recording ends. */
__attribute__((noinline)) static void at_end(void) {
    __asm__ volatile("");
}

/* ------------------------------------------------------------------------------------ one child */

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

/* Keeps this process and its children on one processor: a step takes a third of the time then. */
static void stay_on_this_processor(void) {
    cpu_set_t set;
    int processor = sched_getcpu();
    CPU_ZERO(&set);
    if (processor >= 0) {
        CPU_SET((size_t)processor, &set);
        sched_setaffinity(0, sizeof set, &set);
    }
}

/* A child that is stopped at the first instruction of act(). */
static pid_t start_child(const struct stepper *stepper) {
    stepper->restore(stepper->argument);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(REFUSED);
        alarm(600);
        stepper->begin(stepper->argument);
        raise(SIGSTOP);
        stepper->act(stepper->argument);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == REFUSED)
        SKIP("ptrace is not permitted here");
    assert_true(WIFSTOPPED(status));
    assert_int_equal(WSTOPSIG(status), SIGSTOP);
    assert_int_equal(run_to(pid, (uint64_t)(uintptr_t)stepper->act), SIGTRAP);
    return pid;
}

static void kill_child(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

/* ------------------------------------------------------------------------------------ the trace */

/*
 * The last index before k that has the k-th address, for each k; 0 if there is none: index 0 is
 * act(), where each child begins.
 */
static void find_earlier(const struct stepper *trace, uint32_t *earlier) {
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
 * One hop goes from any index to the next one that has a given address: k is reached from each
 * index between the last one with the same address and k. from[k] is the one of them that takes the
 * fewest hops. `best` has the indices that may be it: those with fewer hops than all later ones, in
 * ascending order of both.
 */
static void find_hops(struct stepper *trace) {
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

static void append(struct stepper *trace, uint64_t at) {
    if (trace->length == trace->size) {
        trace->size = trace->size ? trace->size * 2 : 1 << 16;
        trace->at = realloc(trace->at, trace->size * sizeof trace->at[0]);
        trace->from = realloc(trace->from, trace->size * sizeof trace->from[0]);
        assert_true(trace->at && trace->from);
    }
    trace->at[trace->length++] = at;
}

/* Steps through one child, and records the trace. */
static void record(struct stepper *trace) {
    pid_t pid = start_child(trace);
    uint64_t back = 0, last = 0;
    uint32_t repeated = 0;
    trace->length = trace->marked_from = trace->marked_to = 0;
    for (uint64_t at; (at = where(pid)) != (uint64_t)(uintptr_t)at_end;) {
        assert_true(trace->length < TRACE_MAX);
        if (at == trace->marked && !back) {
            struct user_regs_struct regs;
            assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
            back = (uint64_t)peek(pid, regs.rsp);
            trace->marked_from = trace->marked_to = trace->length;
        } else if (at == back) {
            trace->marked_to = trace->length; /* the last call, if there are several */
        }
        repeated = at == last ? repeated + 1 : 0;
        last = at;
        if (repeated < REPETITIONS)
            append(trace, at);
        assert_int_equal(single_step(pid), SIGTRAP);
    }
    kill_child(pid);
    find_hops(trace);
}

/* False, and the child is gone, if it goes another way than the trace. */
static bool run_until(pid_t pid, const struct stepper *trace, uint32_t k) {
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
        kill_child(pid);
    return false;
}

/*
 * Kills a child at the k-th instruction; false if there are not so many. The path of a child
 * depends on the state of this process before the fork: its heap, and the functions that the
 * dynamic linker has resolved. If a child takes another path, the trace is recorded again.
 */
static bool kill_at_instruction(struct stepper *trace, uint32_t k) {
    for (int tries = 0; tries < 10 && (k == 0 || k < trace->length); tries++) {
        pid_t pid = start_child(trace);
        if (k == 0 || run_until(pid, trace, k)) {
            kill_child(pid);
            return true;
        }
        record(trace);
    }
    if (k < trace->length)
        fail_msg("%s: a child never goes the way that one before it went", trace->name);
    return false;
}

static void free_trace(struct stepper *trace) {
    free(trace->at);
    free(trace->from);
    trace->at = NULL;
    trace->from = NULL;
    trace->length = trace->size = 0;
}

#endif
