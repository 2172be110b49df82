/*
 * RESP2 and RESP3, the protocol of Redis. Reads values from input that may be incomplete. Reads
 * nothing at or after `end`, allocates nothing, copies nothing.
 */
#ifndef WEIR_RESP_H
#define WEIR_RESP_H

#include <stddef.h>
#include <stdint.h>

#define WEIR_RESP_DEPTH 8            /* of a skipped value */
#define WEIR_RESP_BULK_MAX (1 << 16) /* bytes of one text */
#define WEIR_RESP_ITEMS_MAX 4096     /* of one aggregate */

/* Input, or a part of it. */
struct weir_resp {
    const char *at;
    const char *end;
};

/* One value. For an aggregate, only its head: its items follow as separate values. */
struct weir_resp_value {
    char type;        /* the byte that begins it: + - : $ * and RESP3's _ , # ! = ( % ~ > | */
    int64_t integer;  /* of ":"; of an aggregate the number of values that follow, -1: null */
    const char *text; /* of the others, in the input */
    size_t len;
};

/*
 * Reads a line. *line: without its end, "\r\n"; at most `max` bytes, none of them "\r" or "\n".
 * Returns 1, 0 if more bytes are needed, or WEIR_EFORMAT. Memcached has the same lines.
 */
int weir_resp_line(struct weir_resp *input, size_t max, struct weir_resp *line);

/* Reads the next value. Returns 1, 0 if more bytes are needed, or WEIR_EFORMAT. */
int weir_resp_next(struct weir_resp *resp, struct weir_resp_value *value);

/* The same, but skips pushed messages and attributes before it. */
int weir_resp_reply(struct weir_resp *resp, struct weir_resp_value *value);

#endif
