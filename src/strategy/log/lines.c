/*
 * Lines taken, given back and relinked by one decision. Changes remain in `struct weir_lines` until
 * the store commits them (src/table/commit.c). To discard a decision, the store discards this
 * struct.
 */
#include "strategy/log/lines.h"

#include "weir/weir.h"

uint32_t weir_lines_next(const struct weir_lines *lines, uint32_t line) {
    for (uint32_t i = lines->links; i-- > 0;)
        if (lines->link[i].line == line)
            return lines->link[i].next;
    return lines->line[line].next;
}

int weir_lines_link(struct weir_lines *lines, uint32_t line, uint32_t next) {
    if (lines->links == WEIR_LINKS_MAX)
        return WEIR_EFULL;
    lines->link[lines->links++] = (struct weir_link){line, next};
    lines->changed = true;
    return 0;
}

int weir_lines_take(struct weir_lines *lines, uint32_t *line) {
    int rc = lines->locked ? 0 : lines->lock(lines);
    if (rc < 0)
        return rc;
    if (lines->free_head == WEIR_LINE_NONE)
        return WEIR_EFULL;
    if (lines->free_head >= lines->total)
        return WEIR_ECORRUPT;
    *line = lines->free_head;
    /* Not weir_lines_next(): a pending link of a taken line is not yet in the free list. */
    lines->free_head = lines->line[*line].next & WEIR_LINE_MASK;
    lines->free_count--;
    lines->changed = true;
    return 0;
}

int weir_lines_give(struct weir_lines *lines, uint32_t head, uint32_t tail, uint32_t count) {
    int rc = lines->locked ? 0 : lines->lock(lines);
    if (rc == 0 && lines->given_head != WEIR_LINE_NONE)
        rc = weir_lines_link(lines, tail, lines->given_head);
    if (rc < 0)
        return rc;
    if (lines->given_head == WEIR_LINE_NONE)
        lines->given_tail = tail;
    lines->given_head = head;
    lines->given_count += count;
    lines->changed = true;
    return 0;
}
