/*
 * The kinds of decision that test_step.c kills at every step, and the table each of them finds.
 */
#ifndef WEIR_TESTS_STEP_SCENES_H
#define WEIR_TESTS_STEP_SCENES_H

#include "support.h"

#include "table/cell.h"
#include "table/hash.h"

#define TRACKED_MAX 40

struct scene;

/* A kind of decision, and the table it finds. */
struct kind {
    const char *name;
    const char *options;
    void (*prepare)(struct scene *scene);
    bool loose;    /* more than one transaction: between them is a state of its own; verdicts still
                      agree */
    bool recovers; /* begins with what another left that was killed; opening it is a part of it */
};

struct scene {
    const struct kind *kind;
    char uri[300];
    struct weir_table *table; /* as long as one is open in this process */
    unsigned char *bytes;     /* the same, mapped directly and without locks */
    size_t size;
    struct weir_limit limit[4];
    char key[TRACKED_MAX][16];
    struct weir_check tracked[TRACKED_MAX]; /* all keys that exist or may exist */
    uint32_t tracked_count;
    struct weir_check checks[WEIR_CHECKS_MAX]; /* the decision */
    uint32_t n;
    enum weir_mode mode;
    bool clears;
    bool alone; /* the table is opened by each process, and no other has it open */
    int64_t now_ns;
    unsigned char *before; /* the table's bytes when the decision begins */
};

static inline const struct weir_check *track(struct scene *scene, const struct weir_limit *limit,
                                             const char *key) {
    uint32_t i = scene->tracked_count++;
    assert_true(i < TRACKED_MAX);
    snprintf(scene->key[i], sizeof scene->key[i], "%s", key);
    scene->tracked[i] = check_of(limit, scene->key[i], 1);
    return &scene->tracked[i];
}

static inline void hit_times(struct scene *scene, const struct weir_check *check, int times,
                             int64_t step_ns) {
    for (int i = 0; i < times; i++, scene->now_ns += step_ns)
        hit(scene->table, check->limit, check->key, scene->now_ns);
}

static inline void decides(struct scene *scene, const struct weir_check *check) {
    scene->checks[scene->n++] = *check;
}

/*
 * `count` keys of as many stripes, in the table or not yet, in descending order of their stripes.
 */
static inline void on_stripes(struct scene *scene, const struct weir_limit *limits, int count) {
    uint32_t last = scene->table->stripe_mask + 1;
    for (int number = 0, i = 0; i < count && number < 100000; number++) {
        char key[16];
        uint64_t fingerprint[2];
        snprintf(key, sizeof key, "key %d", number);
        weir_fingerprint(scene->table, key, strlen(key), &limits[i], fingerprint);
        uint32_t stripe = weir_cell_stripe(scene->table, fingerprint);
        if (stripe >= last || stripe < (uint32_t)(count - 1 - i))
            continue;
        last = stripe;
        decides(scene, track(scene, &limits[i], key));
        i++;
    }
    assert_int_equal(scene->n, count);
}

static inline void new_key(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    decides(scene, track(scene, &scene->limit[0], "new"));
}

static inline void hot_key(struct scene *scene) {
    new_key(scene);
    hit_times(scene, &scene->checks[0], 3, 1);
}

static inline void three_limits_of_two_stripes(struct scene *scene) {
    for (int i = 0; i < 3; i++)
        scene->limit[i] = limit_of(i ? WEIR_TOKEN_BUCKET : WEIR_FIXED_WINDOW, 10 + i, MINUTE);
    on_stripes(scene, scene->limit, 2);
    decides(scene, track(scene, &scene->limit[2], "third"));
    for (int i = 0; i < 2; i++)
        hit_times(scene, &scene->checks[i], 2, SECOND);
}

static inline void fresh_window(struct scene *scene) {
    hot_key(scene);
    scene->now_ns += DAY;
}

static inline void three_limits(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_FIXED_WINDOW, 10, MINUTE);
    scene->limit[1] = limit_of(WEIR_TOKEN_BUCKET, 20, MINUTE);
    scene->limit[2] = limit_of(WEIR_SLIDING_WINDOW_COUNTER, 30, MINUTE);
    on_stripes(scene, scene->limit, 3);
    for (int i = 0; i < 2; i++) /* the third is new */
        hit_times(scene, &scene->checks[i], 2, SECOND);
}

/* The lowest stripe, the coordinator, is that of a limit to which nothing is charged. */
static inline void coordinator_without_a_change(struct scene *scene) {
    three_limits(scene);
    scene->checks[2].cost = 0;
}

static inline void one_denied(struct scene *scene) {
    three_limits(scene);
    scene->checks[1].cost = 20;
    scene->mode = WEIR_EACH;
}

static inline void refund(struct scene *scene) {
    three_limits(scene);
    scene->mode = WEIR_REFUND;
}

/*
 * Hits a key, at times step_ns apart, until the hit that changes the number of lines in use by
 * `change` or more (in its direction); then goes back to right before it.
 */
static inline void until_lines(struct scene *scene, const struct weir_check *check, int64_t step_ns,
                               int change) {
    for (int i = 0; i < 5000; i++, scene->now_ns += step_ns) {
        memcpy(scene->before, scene->bytes, scene->size);
        int64_t used = (int64_t)info_of(scene->table, NOW).lines_used;
        hit(scene->table, check->limit, check->key, scene->now_ns);
        int64_t more = (int64_t)info_of(scene->table, NOW).lines_used - used;
        if (change > 0 ? more >= change : more <= change) {
            memcpy(scene->bytes, scene->before, scene->size);
            return;
        }
    }
    fail_msg("%s: not found", scene->kind->name);
}

static inline void log_takes_a_line(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_MOVING_WINDOW, 1000, MINUTE);
    decides(scene, track(scene, &scene->limit[0], "log"));
    hit_times(scene, &scene->checks[0], 20, SECOND / 10);
    until_lines(scene, &scene->checks[0], SECOND / 10, 1);
}

static inline void log_gives_a_line(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_MOVING_WINDOW, 1000, MINUTE);
    decides(scene, track(scene, &scene->limit[0], "log"));
    hit_times(scene, &scene->checks[0], 100, SECOND / 10);
    scene->now_ns += MINUTE - 10 * SECOND;
    until_lines(scene, &scene->checks[0], SECOND, -1);
}

static inline void log_takes_an_index_line(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_MOVING_WINDOW, 1000, MINUTE);
    decides(scene, track(scene, &scene->limit[0], "log"));
    until_lines(scene, &scene->checks[0], SECOND / 10, 2);
}

static inline void long_log_expires_but_for_its_end(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_MOVING_WINDOW, 1000, MINUTE);
    decides(scene, track(scene, &scene->limit[0], "log"));
    hit_times(scene, &scene->checks[0], 90, SECOND / 10);
    scene->now_ns += MINUTE - 2 * SECOND; /* all but 20 of them have left */
}

static inline void three_logs_take_lines(struct scene *scene) {
    for (int i = 0; i < 3; i++)
        scene->limit[i] = limit_of(WEIR_MOVING_WINDOW, 1000 + i, MINUTE);
    on_stripes(scene, scene->limit, 3);
    int64_t at_ns = scene->now_ns;
    for (int i = 0; i < 3; i++) {
        scene->now_ns = at_ns;
        until_lines(scene, &scene->checks[i], SECOND / 10 + i, i + 1 < 3 ? 1 : 2);
    }
    scene->now_ns = at_ns + MINUTE / 2;
}

static inline void refund_of_a_log(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_MOVING_WINDOW, 1000, MINUTE);
    decides(scene, track(scene, &scene->limit[0], "log"));
    hit_times(scene, &scene->checks[0], 120, SECOND / 10);
    scene->checks[0].cost = 60;
    scene->mode = WEIR_REFUND;
}

static inline void eviction_of_a_log(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_FIXED_WINDOW, 1, DAY);
    scene->limit[1] = limit_of(WEIR_MOVING_WINDOW, 1000, MINUTE);
    hit_times(scene, track(scene, &scene->limit[1], "log"), 50, SECOND / 10);
    for (int i = 0; i < 7; i++) { /* seven at their limits fill the only bucket */
        char key[16];
        snprintf(key, sizeof key, "other %d", i);
        hit_times(scene, track(scene, &scene->limit[0], key), 3, 1);
    }
    decides(scene, track(scene, &scene->limit[0], "new"));
}

/* Fills both buckets of a new key, of which one of the others could move to a third. */
static inline void another_moves_out(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_FIXED_WINDOW, 10, DAY);
    for (int number = 0; scene->tracked_count + 1 < TRACKED_MAX; number++) {
        char key[16];
        uint64_t fingerprint[2], bucket[2];
        snprintf(key, sizeof key, "key %d", number);
        weir_fingerprint(scene->table, key, strlen(key), &scene->limit[0], fingerprint);
        weir_buckets_of(scene->table, fingerprint, bucket);
        bool full = true;
        for (int b = 0; b < 2; b++)
            for (uint32_t i = 0; i < WEIR_BUCKET_CELLS; i++)
                full &= scene->table->cell[bucket[b] * WEIR_BUCKET_CELLS + i].state.expires_ns != 0;
        if (full) {
            decides(scene, track(scene, &scene->limit[0], key));
            return;
        }
        hit_times(scene, track(scene, &scene->limit[0], key), 2, 1);
    }
    scene->n =
        0; /* chance: no full pair of buckets this time; prepared again with another secret */
}

/*
 * Hits a key, a second apart: at most a hundred times, and until the pool has free lines, or has
 * none.
 */
static inline bool until_free(struct scene *scene, const struct weir_check *check, bool free) {
    for (int i = 0; i < 100; i++, scene->now_ns += SECOND) {
        memcpy(scene->before, scene->bytes, scene->size);
        hit(scene->table, check->limit, check->key, scene->now_ns);
        if ((scene->table->pool->free_count > 0) == free)
            return true;
    }
    return false;
}

static inline bool has_cell(const struct scene *scene, const struct weir_check *check) {
    uint64_t fingerprint[2];
    weir_fingerprint(scene->table, check->key, strlen(check->key), check->limit, fingerprint);
    return weir_cell_find(scene->table, fingerprint) != WEIR_CELL_NONE;
}

/*
 * The pool is empty, and the hit needs a line, which is taken from an expired log. Several logs
 * have the other lines: a longer one would be refused the last of them.
 */
static inline void reclaim(struct scene *scene) {
    scene->limit[0] = limit_of(WEIR_MOVING_WINDOW, 100, SECOND);
    scene->limit[1] = limit_of(WEIR_MOVING_WINDOW, 100, DAY);
    const struct weir_check *log = track(scene, &scene->limit[1], "log");
    hit_times(scene, log, 1, SECOND);
    const struct weir_check *expired = track(scene, &scene->limit[0], "expired");
    hit_times(scene, expired, 50, SECOND / 100);
    scene->now_ns += MINUTE;
    bool empty = false;
    for (int i = 0; i < 10 && !empty; i++) {
        char key[16];
        snprintf(key, sizeof key, "other %d", i);
        empty = until_free(scene, track(scene, &scene->limit[1], key), false);
    }
    assert_true(empty && until_free(scene, log, true));
    memcpy(scene->bytes, scene->before, scene->size);
    /* By chance another key has taken it: then prepared again, with another secret. */
    if (has_cell(scene, expired))
        decides(scene, log);
}

static inline void clear(struct scene *scene) {
    log_takes_a_line(scene);
    scene->clears = true;
}

static const struct kind kinds[] = {
    {"a new key", "?keys=256&hits=500", new_key, false, false},
    {"a hot key", "?keys=256&hits=500", hot_key, false, false},
    {"a window that opens again", "?keys=256&hits=500", fresh_window, false, false},
    {"three limits", "?keys=256&hits=500", three_limits, false, false},
    {"a coordinator without a change", "?keys=256&hits=500", coordinator_without_a_change, false,
     false},
    {"each of three, one denied", "?keys=256&hits=500", one_denied, false, false},
    {"refund of three", "?keys=256&hits=500", refund, false, false},
    {"a log takes a line", "?keys=256&hits=500", log_takes_a_line, false, false},
    {"a log gives a line", "?keys=256&hits=500", log_gives_a_line, false, false},
    {"a log takes an index line", "?keys=256&hits=500", log_takes_an_index_line, false, false},
    {"a long log expires", "?keys=256&hits=1000", long_log_expires_but_for_its_end, false, false},
    {"three logs take lines", "?keys=256&hits=1000", three_logs_take_lines, false, false},
    {"refund of a log", "?keys=256&hits=500", refund_of_a_log, false, false},
    {"eviction of a log", "?keys=8&hits=500", eviction_of_a_log, false, false},
    {"another key moves out", "?keys=32&hits=500", another_moves_out, true, false},
    {"an expired log is reclaimed", "?keys=64&hits=14", reclaim, true, false},
    {"clear", "?keys=256&hits=500", clear, false, false},
    {"recovery of three limits", "?keys=64&hits=500", three_limits_of_two_stripes, false, true},
    {"recovery of three logs", "?keys=256&hits=1000", three_logs_take_lines, false, true},
    {"recovery of a log", "?keys=8&hits=14", log_takes_a_line, false, true},
};

#endif
