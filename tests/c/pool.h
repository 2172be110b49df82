/*
 * A pool of lines in private memory for tests: what a table does for one decision, without a table.
 *
 *     pool_begin(&pool);  strategy->step(..., &pool.lines);  pool_commit(&pool);   or discard it
 */
#ifndef WEIR_TESTS_POOL_H
#define WEIR_TESTS_POOL_H

#include <stdlib.h>
#include <string.h>

#include "strategy/log/lines.h"
#include "weir/weir.h"

struct pool {
    struct weir_lines lines;
    struct weir_line *line;
    uint32_t total;
    uint32_t free_head;
    uint32_t free_count;
};

static inline int pool_lock(struct weir_lines *lines) {
    struct pool *pool = lines->owner;
    lines->locked = true;
    lines->free_head = pool->free_head;
    lines->free_count = pool->free_count;
    return 0;
}

static inline void pool_init(struct pool *pool, uint32_t total) {
    memset(pool, 0, sizeof *pool);
    pool->line = aligned_alloc(64, (size_t)total * sizeof *pool->line);
    memset(pool->line, 0xA5, (size_t)total * sizeof *pool->line);
    pool->total = total;
    pool->free_head = 1;
    pool->free_count = total - 1;
    for (uint32_t i = 1; i < total; i++)
        pool->line[i].next = i + 1 < total ? i + 1 : WEIR_LINE_NONE;
}

static inline void pool_free(struct pool *pool) {
    free(pool->line);
}

static inline void pool_begin(struct pool *pool) {
    struct weir_lines *lines = &pool->lines;
    lines->line = pool->line;
    lines->total = pool->total;
    lines->given_head = lines->given_tail = WEIR_LINE_NONE;
    lines->given_count = lines->links = 0;
    lines->locked = lines->changed = false;
    lines->lock = pool_lock;
    lines->owner = pool;
}

static inline void pool_commit(struct pool *pool) {
    struct weir_lines *lines = &pool->lines;
    if (!lines->changed)
        return;
    for (uint32_t i = 0; i < lines->links; i++)
        pool->line[lines->link[i].line].next = lines->link[i].next;
    if (!lines->locked)
        return;
    if (lines->given_head != WEIR_LINE_NONE)
        pool->line[lines->given_tail].next = lines->free_head;
    pool->free_head = lines->given_head != WEIR_LINE_NONE ? lines->given_head : lines->free_head;
    pool->free_count = lines->free_count + lines->given_count;
}

/* Marks the free lines in `seen`; false if one is marked already or the count is wrong. */
static inline bool pool_mark_free(const struct pool *pool, uint8_t *seen) {
    uint32_t line = pool->free_head, count = 0;
    for (; count < pool->free_count; line = pool->line[line].next & WEIR_LINE_MASK, count++) {
        if (line == WEIR_LINE_NONE || line >= pool->total || seen[line / 8] >> line % 8 & 1)
            return false;
        seen[line / 8] |= (uint8_t)(1u << line % 8);
    }
    return line == WEIR_LINE_NONE || pool->free_count == 0;
}

#endif
