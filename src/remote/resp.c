/*
 * Lines and lengths of the protocol. A value is read only if it is complete: the caller keeps the
 * received bytes and reads again from the start when there are more. Replies are short, so that
 * costs little.
 */
#include "remote/resp.h"

#include <stdbool.h>
#include <string.h>

#include "weir/weir.h"

#define LINE_MAX (1 << 16)

int weir_resp_line(struct weir_resp *input, size_t max, struct weir_resp *line) {
    size_t there = (size_t)(input->end - input->at);
    const char *end = there ? memchr(input->at, '\r', there) : NULL;
    size_t len = end ? (size_t)(end - input->at) : there;
    if (len > max || (len && memchr(input->at, '\n', len)))
        return WEIR_EFORMAT;
    if (!end || end + 1 == input->end)
        return 0;
    if (end[1] != '\n')
        return WEIR_EFORMAT;
    *line = (struct weir_resp){input->at, end};
    input->at = end + 2;
    return 1;
}

static bool parse_integer(const char *text, size_t len, int64_t *value) {
    bool negative = len > 0 && text[0] == '-';
    uint64_t sum = 0, most = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    size_t i = negative || (len > 0 && text[0] == '+') ? 1 : 0;
    if (i == len)
        return false;
    for (; i < len; i++) {
        unsigned digit = (unsigned)text[i] - '0';
        if (digit > 9 || sum > (most - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return true;
}

static int read_bulk(struct weir_resp *resp, int64_t len, struct weir_resp_value *value) {
    if (len == -1) {
        value->type = '_';
        return 1;
    }
    if (len < 0 || len > WEIR_RESP_BULK_MAX)
        return WEIR_EFORMAT;
    if (resp->end - resp->at < len + 2)
        return 0;
    value->text = resp->at;
    value->len = (size_t)len;
    resp->at += len;
    if (resp->at[0] != '\r' || resp->at[1] != '\n')
        return WEIR_EFORMAT;
    resp->at += 2;
    return 1;
}

static int read_value(struct weir_resp *resp, struct weir_resp_value *value) {
    struct weir_resp input;
    int rc = weir_resp_line(resp, LINE_MAX, &input);
    if (rc <= 0)
        return rc;
    const char *line = input.at;
    size_t len = (size_t)(input.end - input.at);
    if (len == 0)
        return WEIR_EFORMAT;
    *value = (struct weir_resp_value){.type = line[0], .text = line + 1, .len = len - 1};
    switch (line[0]) {
    case '+':
    case '-':
    case '_':
    case ',':
    case '#':
    case '(':
        return 1;
    case ':':
        return parse_integer(line + 1, len - 1, &value->integer) ? 1 : WEIR_EFORMAT;
    case '$':
    case '!':
    case '=': {
        int64_t bytes;
        if (!parse_integer(line + 1, len - 1, &bytes))
            return WEIR_EFORMAT;
        value->len = 0;
        return read_bulk(resp, bytes, value);
    }
    case '*':
    case '%':
    case '~':
    case '>':
    case '|':
        if (!parse_integer(line + 1, len - 1, &value->integer) || value->integer < -1 ||
            value->integer > WEIR_RESP_ITEMS_MAX)
            return WEIR_EFORMAT;
        if (value->integer > 0 && (line[0] == '%' || line[0] == '|'))
            value->integer *= 2;
        return 1;
    default:
        return WEIR_EFORMAT;
    }
}

int weir_resp_next(struct weir_resp *resp, struct weir_resp_value *value) {
    return resp->at < resp->end ? read_value(resp, value) : 0;
}

/* Skips the items of an aggregate. */
static int pass_over(struct weir_resp *resp, int64_t items) {
    int64_t left[WEIR_RESP_DEPTH] = {items};
    int depth = 0;
    while (depth >= 0) {
        if (left[depth] <= 0) {
            depth--;
            continue;
        }
        struct weir_resp_value value;
        int rc = weir_resp_next(resp, &value);
        if (rc <= 0)
            return rc;
        left[depth]--;
        if (!strchr("*%~>|", value.type))
            continue;
        if (++depth == WEIR_RESP_DEPTH)
            return WEIR_EFORMAT;
        left[depth] = value.integer;
    }
    return 1;
}

int weir_resp_reply(struct weir_resp *resp, struct weir_resp_value *value) {
    for (;;) {
        int rc = weir_resp_next(resp, value);
        if (rc <= 0 || (value->type != '>' && value->type != '|'))
            return rc;
        rc = pass_over(resp, value->integer);
        if (rc <= 0)
            return rc;
    }
}
