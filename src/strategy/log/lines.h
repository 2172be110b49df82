/*
 * The pool of 64-byte lines as one decision sees it: lines taken and given, links to be changed. Nothing
 * here is visible to others before the store commits it; until then only bytes change that nobody can
 * reach: those behind the end of a log, and those of lines that are still on the free list.
 */
#ifndef WEIR_LINES_H
#define WEIR_LINES_H

#include <stdbool.h>
#include <stdint.h>

#define WEIR_LINE_NONE UINT32_C(0) /* line 0 is never handed out: index 0 says "no line" */
#define WEIR_LINE_BITS 26 /* an index fits 26 bits: logs pack 6 bits of their own beside it */
#define WEIR_LINES_MAX (UINT32_C(1) << WEIR_LINE_BITS)
#define WEIR_LINE_MASK (WEIR_LINES_MAX - 1)
#define WEIR_LINE_BYTES 60
#define WEIR_LINKS_MAX 192 /* links one decision may change */

struct weir_line {
    uint32_t
        next; /* WEIR_LINE_BITS: in a log the next line, on the free list the next free one. The bits
                      above are the log's own (src/strategy/log/log.c); on the free list they say nothing. The last
                      line of a log says nothing here: the log's own state names its end */
    uint8_t bytes[WEIR_LINE_BYTES];
};

_Static_assert(sizeof(struct weir_line) == 64, "a line is one cache line");

struct weir_link {
    uint32_t line;
    uint32_t next;
};

struct weir_lines {
    struct weir_line *line; /* the pool; indices are into it */
    uint32_t total;         /* lines in the pool: every index is below */
    uint32_t free_head;     /* first line of the free list as this decision sees it */
    uint32_t free_count;
    uint32_t
        given_head; /* chain of lines given back; joins the free list at commit, not before, since */
    uint32_t given_tail; /* an undo may still need their bytes */
    uint32_t given_count;
    uint32_t links; /* pending changes of `next`, in order */
    bool locked;    /* the pool's lock is held and free_head, free_count are true */
    bool changed;
    int (*lock)(
        struct weir_lines *lines); /* takes the pool's lock and sets the above; 0 or WEIR_E… */
    void *owner;                   /* for lock() */
    struct weir_link
        link[WEIR_LINKS_MAX + 1]; /* the last one is the store's, to join what was given */
};

/* The `next` of `line`, all 32 bits of it, pending links included. */
uint32_t weir_lines_next(const struct weir_lines *lines, uint32_t line);

/* Will set all 32 bits of the next of `line`. Returns 0 or WEIR_EFULL (too many links in one decision). */
int weir_lines_link(struct weir_lines *lines, uint32_t line, uint32_t next);

/* Takes a line off the free list into *line. Its bytes are undefined. Returns 0, WEIR_EFULL, WEIR_EBUSY. */
int weir_lines_take(struct weir_lines *lines, uint32_t *line);

/* Gives back the chain of `count` lines from `head` to `tail`. Returns 0, WEIR_EFULL, WEIR_EBUSY. */
int weir_lines_give(struct weir_lines *lines, uint32_t head, uint32_t tail, uint32_t count);

#endif
