/*
 * The pool of 64-byte lines as one decision sees it: lines taken, lines given back, and changes of
 * links. Others see nothing of it before the store commits it. Until then, only bytes that no
 * committed state refers to are written: those after the end of a log, and those of lines on the
 * free list.
 */
#ifndef WEIR_LINES_H
#define WEIR_LINES_H

#include <stdbool.h>
#include <stdint.h>

#define WEIR_LINE_NONE UINT32_C(0) /* line 0 is never used: index 0 means "no line" */
#define WEIR_LINE_BITS 26          /* of an index; logs use the other 6 bits */
#define WEIR_LINES_MAX (UINT32_C(1) << WEIR_LINE_BITS)
#define WEIR_LINE_MASK (WEIR_LINES_MAX - 1)
#define WEIR_LINE_BYTES 60
#define WEIR_LINKS_MAX 192 /* the most links that one decision may change */

struct weir_line {
    uint32_t next; /* lower WEIR_LINE_BITS: the next line of the log, or of the free list. The upper
                      bits belong to the log (src/strategy/log/log.c) and are undefined on the free
                      list. Undefined in the last line of a log: the log's state contains its end */
    uint8_t bytes[WEIR_LINE_BYTES];
};

_Static_assert(sizeof(struct weir_line) == 64, "a line is one cache line");

struct weir_link {
    uint32_t line;
    uint32_t next;
};

struct weir_lines {
    struct weir_line *line; /* the pool; indices refer to it */
    uint32_t total;         /* lines in the pool; every index is less */
    uint32_t free_head;     /* first line of the free list as this decision sees it */
    uint32_t free_count;
    /* Chain of lines given back. It joins the free list at commit, not before:. */
    uint32_t given_head;
    uint32_t given_tail; /* an undo may need the bytes of these lines */
    uint32_t given_count;
    uint32_t links; /* pending changes of `next`, in order */
    bool locked;    /* the pool's lock is held, and free_head and free_count are current */
    bool changed;
    int (*lock)(struct weir_lines *lines); /* takes the pool's lock and sets the members above;
                                              returns 0 or WEIR_E… */
    void *owner;                           /* for lock() */
    struct weir_link link[WEIR_LINKS_MAX +
                          1]; /* the last one is for the store, which links the lines given back */
};

/* The `next` of `line`, all 32 bits of it, pending links included. */
uint32_t weir_lines_next(const struct weir_lines *lines, uint32_t line);

/*
 * Sets all 32 bits of the `next` of `line` at commit. Returns 0 or WEIR_EFULL (too many changed
 * links).
 */
int weir_lines_link(struct weir_lines *lines, uint32_t line, uint32_t next);

/*
 * Removes a line from the free list. Its bytes are undefined. Returns 0, WEIR_EFULL or WEIR_EBUSY.
 */
int weir_lines_take(struct weir_lines *lines, uint32_t *line);

/*
 * Gives back the chain of `count` lines from `head` to `tail`. Returns 0, WEIR_EFULL or WEIR_EBUSY.
 */
int weir_lines_give(struct weir_lines *lines, uint32_t head, uint32_t tail, uint32_t count);

#endif
