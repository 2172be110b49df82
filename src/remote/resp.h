/*
 * RESP2 and RESP3, the protocol of Redis: values out of bytes that may not have come yet. Reads nothing
 * behind `end`, allocates nothing, copies nothing.
 */
#ifndef WEIR_RESP_H
#define WEIR_RESP_H

#include <stddef.h>
#include <stdint.h>

#define WEIR_RESP_DEPTH 8            /* of what is passed over */
#define WEIR_RESP_BULK_MAX (1 << 16) /* bytes of one text */
#define WEIR_RESP_ITEMS_MAX 4096     /* of one aggregate */

struct weir_resp {
    const char *at;
    const char *end;
};

/* One value. Of an aggregate only the head: its items follow as values of their own. */
struct weir_resp_value {
    char type;        /* the byte that begins it: + - : $ * and RESP3's _ , # ! = ( % ~ > | */
    int64_t integer;  /* of ":"; of an aggregate the number of values that follow, -1: null */
    const char *text; /* of the others, in the input */
    size_t len;
};

/* The next value. 1: there; 0: more bytes are needed; WEIR_EFORMAT. */
int weir_resp_next(struct weir_resp *resp, struct weir_resp_value *value);

/* The same, after passing over whatever was pushed before it, and its attributes. */
int weir_resp_reply(struct weir_resp *resp, struct weir_resp_value *value);

#endif
