/*
 * A kill at every instruction of a decision.
 *
 * A child makes one decision under ptrace. For each of its instructions, another child is started
 * from the same bytes, runs to that instruction and is killed: see stepper.h. The next process to
 * use the table must find it valid, and exactly as before the decision or exactly as after it, for
 * all limits. That process either has the table open together with others, or opens it alone.
 *
 * Every address within weir_transaction_commit() is tested, and WEIR_STEPS of the others, at equal
 * distances from a random first one (default 100 for each kind of decision and way of opening; 0:
 * all). Sanitizers make the runs long and forks slow, so with them not every address of the commit
 * is tested. x86-64 Linux only.
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

#include "step_scenes.h"
#include "stepper.h"

#define STEPS_DEFAULT (UNDER_ASAN ? 30 : 100)
#define COMMIT_MAX (UNDER_ASAN ? 60u : 500u) /* steps of a commit, per way of opening */

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

static void restore(void *argument) {
    struct scene *scene = argument;
    memcpy(scene->bytes, scene->before, scene->size);
}

static void open_alone(void *argument) {
    struct scene *scene = argument;
    if (scene->alone && !scene->kind->recovers &&
        weir_table_open(scene->uri, &scene->table, NULL) < 0)
        _exit(2);
}

__attribute__((noinline)) static void act(void *argument) {
    struct scene *scene = argument;
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

/* ------------------------------------------------------------------------------------ the kills */

static struct picture before, after, found;

static const char *describe(const struct scene *scene) {
    if (same_picture(scene, &found, &before))
        return "as before";
    if (same_picture(scene, &found, &after))
        return "as after";
    return "neither as before nor as after";
}

/* Kills one at the k-th address and looks at what is left. */
static void kill_at(struct scene *scene, struct stepper *stepper, uint32_t k) {
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_error error = {.message = ""};
    if (!kill_at_instruction(stepper, k))
        return;
    if (scene->alone)
        scene->table = open_table(scene->uri);
    take_picture(scene, &found);
    int rc = weir_table_check(scene->table, &error);
    const char *is = describe(scene), *how = scene->alone ? "opened again" : "open";
    if (rc < 0 || *is == 'n')
        fail_msg("%s, killed at step %u of %u (commit: %u to %u), %s: the table is %s %s",
                 scene->kind->name, k, stepper->length, stepper->marked_from, stepper->marked_to,
                 how, is, error.message);
    rc = weir_decide(scene->table, scene->checks, scene->n, scene->now_ns, scene->mode, verdicts,
                     NULL);
    if (rc == 0)
        rc = weir_table_check(scene->table, &error);
    if (rc < 0)
        fail_msg("%s, killed at step %u, %s: the next decision: %s %s", scene->kind->name, k, how,
                 weir_strerror(rc), error.message);
    if (scene->alone) {
        weir_table_close(scene->table);
        scene->table = NULL;
    }
}

static uint32_t kill_everywhere(struct scene *scene, struct stepper *stepper) {
    const char *given = getenv("WEIR_STEPS");
    uint32_t budget = given ? (uint32_t)atoi(given) : STEPS_DEFAULT, kills = 0;
    if (scene->alone && scene->kind->recovers)
        budget = budget / 4; /* long: it is opened and verified, too */
    uint32_t inside = stepper->marked_to - stepper->marked_from, outside = stepper->length - inside;
    bool all = given && atoi(given) == 0;
    uint32_t inner = all ? 1 : inside / COMMIT_MAX + 1;
    uint32_t outer = all ? 1 : outside / (budget + 1) + 1;
    uint32_t in_first = (uint32_t)random_below(inner), out_first = (uint32_t)random_below(outer);
    for (uint32_t k = 0; k < stepper->length; k++) {
        bool in = k >= stepper->marked_from && k < stepper->marked_to;
        if (in ? k % inner != in_first : k % outer != out_first)
            continue;
        kill_at(scene, stepper, k);
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
static void leave_a_record(struct scene *scene, struct stepper *stepper) {
    bool open = false;
    record(stepper);
    for (uint32_t k = stepper->marked_to; !open; k--) {
        assert_true(k > stepper->marked_from);
        assert_true(kill_at_instruction(stepper, k));
        for (uint32_t i = 0; i < scene->table->header->stripes; i++)
            open |= weir_lock_at(scene->table, i)->txn != 0;
    }
    memcpy(scene->before, scene->bytes, scene->size);
}

static void step_through(void **state) {
    const struct kind *kind = *state;
    struct scene scene;
    struct stepper stepper = {.name = kind->name,
                              .restore = restore,
                              .begin = open_alone,
                              .act = act,
                              .argument = &scene,
                              .marked = (uint64_t)(uintptr_t)weir_transaction_commit};
    prepare(&scene, kind);
    if (kind->recovers)
        leave_a_record(&scene, &stepper);
    take_picture(&scene, &before);
    act(&scene);
    take_picture(&scene, &after);
    assert_int_equal(scene.kind->loose || memcmp(&before, &after, sizeof before) != 0, 1);
    int64_t began = clock_now();
    uint32_t kills = 0, steps = 0;
    for (int alone = 0; alone < (UNDER_ASAN && kind->recovers ? 1 : 2); alone++) {
        scene.alone = alone;
        /* First, so that this process has already done what it does between kills. */
        kill_at(&scene, &stepper, 0);
        record(&stepper);
        steps = stepper.length;
        kills += kill_everywhere(&scene, &stepper);
        weir_table_close(scene.table);
        scene.table = NULL;
    }
    print_message("# %s: %u steps, %u of them in the commit, %u kills in %.1f s\n", kind->name,
                  steps, stepper.marked_to - stepper.marked_from, kills,
                  (double)(clock_now() - began) / 1e9);
    weir_table_unlink(scene.uri, NULL);
    munmap(scene.bytes, scene.size);
    free(scene.before);
    free_trace(&stepper);
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
    stay_on_this_processor();
    return cmocka_run_group_tests_name("killed at every step", tests, NULL, NULL);
}
#endif
