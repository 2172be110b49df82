/*
 * Limits as text: "10 per minute; 100/hour" <-> struct weir_limit.
 *
 *     limits = limit { (";" | "," | "|") limit }
 *     limit  = count ("per" | "/") [multiples] unit ["burst" count]
 *     unit   = ("second" | "minute" | "hour" | "day" | "month" | "year") ["s"]
 *
 * Case is ignored; blanks are allowed between words and numbers. Every ASCII text that the Python
 * library `limits` accepts is accepted with the same meaning, with two exceptions: zero units ("5
 * per 0 hours", which `limits` reads as one hour) and counts above 2^63-1 are refused.
 *
 * A cursor reads the bytes once: it allocates and copies nothing, and reads nothing beyond the end.
 * All refusals use refuse(), which quotes the text around the error.
 */
#include "limit.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "ascii.h"
#include "error.h"

#define NS_PER_SECOND INT64_C(1000000000)

static int64_t multiples_max(int unit) {
    return WEIR_PERIOD_MAX_NS / NS_PER_SECOND / weir_unit_seconds(unit);
}

/* Of a limit whose multiples are in their range. */
static int64_t period_of(const struct weir_limit *limit) {
    return limit->multiples * weir_unit_seconds(limit->unit) * NS_PER_SECOND;
}

/* --------------------------------------------------------------------------------------- values */

/* Writes what the fault means. Returns 0 if there is none, else WEIR_EINVAL. */
static int explain(enum weir_limit_fault fault, const struct weir_limit *limit,
                   struct weir_error *error) {
    switch (fault) {
    case WEIR_LIMIT_VALID:
        return 0;
    case WEIR_LIMIT_AMOUNT:
        return weir_fail(error, WEIR_EINVAL, 0, "amount %" PRId64 " is negative", limit->amount);
    case WEIR_LIMIT_UNIT:
        return weir_fail(error, WEIR_EINVAL, 0, "unit %d is not one of the %d units", limit->unit,
                         WEIR_UNITS);
    case WEIR_LIMIT_MULTIPLES:
        return weir_fail(error, WEIR_EINVAL, 0,
                         "multiples %" PRId64 " is out of its range for a %s: 1 to %" PRId64,
                         limit->multiples, weir_unit_name(limit->unit), multiples_max(limit->unit));
    case WEIR_LIMIT_PERIOD:
        return weir_fail(
            error, WEIR_EINVAL, 0, "period_ns %" PRId64 " is not that of %" PRId64 " %s: %" PRId64,
            limit->period_ns, limit->multiples, weir_unit_name(limit->unit), period_of(limit));
    case WEIR_LIMIT_STRATEGY:
        return weir_fail(error, WEIR_EINVAL, 0, "strategy %" PRId32 " does not exist",
                         limit->strategy);
    case WEIR_LIMIT_BURST:
        return weir_fail(error, WEIR_EINVAL, 0, "burst %" PRId64 " is negative", limit->burst);
    case WEIR_LIMIT_BURST_NOT_TAKEN:
        return weir_strategy_refuse(limit->strategy, WEIR_TAKES_BURST, "burst", error);
    case WEIR_LIMIT_MAX_DELAY:
        return weir_fail(error, WEIR_EINVAL, 0,
                         "max_delay_ns %" PRId64 " is out of its range: 0 to the period, %" PRId64,
                         limit->max_delay_ns, limit->period_ns);
    case WEIR_LIMIT_ZONE_NOT_TAKEN:
        return weir_strategy_refuse(limit->strategy, WEIR_TAKES_ZONE, "a zone", error);
    case WEIR_LIMIT_ZONE:
        break;
    }
    return weir_zone_validate(limit->zone, error);
}

int weir_limit_init(struct weir_limit *limit, int64_t amount, int64_t multiples, int unit,
                    struct weir_error *error) {
    struct weir_limit fresh = {
        .amount = amount,
        .max_delay_ns = WEIR_MAX_DELAY_DEFAULT_NS,
        .multiples = multiples,
        .unit = unit,
        .strategy = WEIR_FIXED_WINDOW,
    };
    if (!limit)
        return weir_fail(error, WEIR_EINVAL, 0, "limit is NULL");
    enum weir_limit_fault fault = weir_limit_fault(&fresh);
    if (fault != WEIR_LIMIT_PERIOD) /* it has none yet */
        return explain(fault, &fresh, error);
    fresh.period_ns = period_of(&fresh);
    *limit = fresh;
    return 0;
}

int weir_limit_validate(const struct weir_limit *limit, struct weir_error *error) {
    if (!limit)
        return weir_fail(error, WEIR_EINVAL, 0, "limit is NULL");
    return explain(weir_limit_fault(limit), limit, error);
}

int weir_limit_window(const struct weir_limit *limit, int64_t now_ns, int64_t *start_ns,
                      int64_t *end_ns, int64_t *next_ns) {
    if (!start_ns || !end_ns || !next_ns || now_ns < 0 || now_ns > WEIR_NOW_MAX ||
        weir_limit_validate(limit, NULL) < 0 ||
        !weir_takes((uint32_t)limit->strategy, WEIR_TAKES_ZONE))
        return WEIR_EINVAL;
    struct weir_window window = weir_calendar_window(limit, now_ns);
    *start_ns = window.start_ns;
    *end_ns = window.end_ns;
    *next_ns = window.next_ns;
    return 0;
}

int weir_limit_print(const struct weir_limit *limit, char *buffer, size_t size) {
    if (!buffer)
        size = 0;
    if (!limit)
        return snprintf(buffer, size, "no limit");
    const char *unit = weir_unit_name(limit->unit);
    unit = unit ? unit : "?";
    if (limit->burst > 0)
        return snprintf(buffer, size, "%" PRId64 " per %" PRId64 " %s burst %" PRId64,
                        limit->amount, limit->multiples, unit, limit->burst);
    return snprintf(buffer, size, "%" PRId64 " per %" PRId64 " %s", limit->amount, limit->multiples,
                    unit);
}

/* --------------------------------------------------------------------------------------- cursor */

struct cursor {
    const char *text;
    size_t len;
    size_t at;    /* offset of the next byte */
    int strategy; /* of limits that do not name one */
    struct weir_error *error;
};

/* A word or number of the text. */
struct span {
    size_t at;
    size_t len;
};

static bool is_blank(char byte) {
    /* What Python's \s matches in ASCII: the usual six and the four information separators. */
    return byte == ' ' || (byte >= '\t' && byte <= '\r') || (byte >= 0x1c && byte <= 0x1f);
}

static bool is_digit(char byte) {
    return byte >= '0' && byte <= '9';
}

static bool is_letter(char byte) {
    return weir_lower(byte) >= 'a' && weir_lower(byte) <= 'z';
}

static bool is_separator(char byte) {
    return byte == ';' || byte == ',' || byte == '|';
}

static bool at_end(const struct cursor *cursor) {
    return cursor->at == cursor->len;
}

/* Whether there is a next byte and it has that class. */
static bool is_next(const struct cursor *cursor, bool (*is_class)(char byte)) {
    return !at_end(cursor) && is_class(cursor->text[cursor->at]);
}

static void skip_blanks(struct cursor *cursor) {
    while (is_next(cursor, is_blank))
        cursor->at++;
}

/* Takes the longest run of bytes of that class; it may be empty. */
static struct span take(struct cursor *cursor, bool (*is_class)(char byte)) {
    struct span span = {cursor->at, 0};
    while (is_next(cursor, is_class))
        cursor->at++;
    span.len = cursor->at - span.at;
    return span;
}

static bool starts_with(const struct cursor *cursor, size_t at, const char *word) {
    size_t len = strlen(word);
    if (len > cursor->len - at)
        return false;
    for (size_t i = 0; i < len; i++)
        if (weir_lower(cursor->text[at + i]) != word[i])
            return false;
    return true;
}

/* Takes `word` if it is next, whatever follows it. */
static bool take_word(struct cursor *cursor, const char *word) {
    if (!starts_with(cursor, cursor->at, word))
        return false;
    cursor->at += strlen(word);
    return true;
}

/* ------------------------------------------------------------------------------------- refusals */

#define EXCERPT_MAX 72 /* bytes of the text that a message quotes */
#define WORD_MAX 24    /* bytes of a wrong word that it quotes */

/*
 * Fails at byte `at`: "10 per fortnight": <what> at column 8. A long text is quoted around the
 * place.
 */
static int refuse_as(int code, const struct cursor *cursor, size_t at, const char *what) {
    size_t from = 0, to = cursor->len;
    if (to > EXCERPT_MAX) {
        from = at > EXCERPT_MAX / 2 ? at - EXCERPT_MAX / 2 : 0;
        to = cursor->len - from > EXCERPT_MAX ? from + EXCERPT_MAX : cursor->len;
    }
    char quoted[2 * EXCERPT_MAX];
    weir_quote(quoted, sizeof quoted, cursor->text + from, to - from);
    return weir_fail(cursor->error, code, (int)at + 1, "%s%s%s: %s at column %zu",
                     from > 0 ? "..." : "", quoted, to < cursor->len ? "..." : "", what, at + 1);
}

static int refuse(const struct cursor *cursor, size_t at, const char *what) {
    return refuse_as(WEIR_ESYNTAX, cursor, at, what);
}

/* As refuse(), with the wrong word after `what`. */
static int refuse_word(const struct cursor *cursor, struct span word, const char *what) {
    char quoted[WEIR_QUOTE_SIZE(WORD_MAX)], text[160 + sizeof quoted];
    weir_quote(quoted, sizeof quoted, cursor->text + word.at,
               word.len < WORD_MAX ? word.len : WORD_MAX);
    snprintf(text, sizeof text, "%s %s%s", what, quoted, word.len > WORD_MAX ? "..." : "");
    return refuse(cursor, word.at, text);
}

static bool is_rest_of_word(char byte) {
    return !is_blank(byte) && !is_separator(byte);
}

/* Refuses the text at the cursor, where `expected` is expected. */
static int refuse_here(struct cursor *cursor, const char *expected) {
    char what[128];
    struct cursor ahead = *cursor;
    struct span word = take(&ahead, is_rest_of_word);
    if (word.len == 0) {
        snprintf(what, sizeof what, "%s is missing", expected);
        return refuse(cursor, cursor->at, what);
    }
    unsigned char byte = (unsigned char)cursor->text[cursor->at];
    if (byte == 0)
        return refuse(cursor, cursor->at, "a NUL byte");
    if (byte > 0x7f)
        return refuse(cursor, cursor->at, "a byte that is not ASCII");
    snprintf(what, sizeof what, "%s expected, not", expected);
    return refuse_word(cursor, word, what);
}

/* -------------------------------------------------------------------------------------- grammar */

/* Reads `digits`, at least one. */
static int read_number(const struct cursor *cursor, struct span digits, const char *too_large,
                       int64_t *number) {
    int64_t value = 0;
    for (size_t i = 0; i < digits.len; i++) {
        int digit = cursor->text[digits.at + i] - '0';
        if (value > (INT64_MAX - digit) / 10)
            return refuse(cursor, digits.at, too_large);
        value = value * 10 + digit;
    }
    *number = value;
    return 0;
}

/* Reads a count, which has only digits. */
static int read_count(struct cursor *cursor, const char *name, int64_t *count) {
    struct span digits = take(cursor, is_digit);
    if (digits.len == 0) {
        if (at_end(cursor) || cursor->text[cursor->at] != '-')
            return refuse_here(cursor, name);
        return refuse(cursor, cursor->at, "a count cannot be negative");
    }
    if (!at_end(cursor) && cursor->text[cursor->at] == '.')
        return refuse(cursor, cursor->at, "a count is a whole number, without \".\"");
    return read_number(cursor, digits, "count larger than 9223372036854775807", count);
}

static int read_unit(struct cursor *cursor, int *unit, int64_t *units_each) {
    struct span word = take(cursor, is_letter);
    *units_each = 1;
    if (word.len == 0)
        return refuse_here(cursor, "a unit");
    bool calendar = weir_takes((uint32_t)cursor->strategy, WEIR_TAKES_ZONE);
    if (calendar && weir_unit_is_named(cursor->text + word.at, word.len, "week")) {
        *unit = WEIR_DAY;
        *units_each = 7;
        return 0;
    }
    *unit = weir_unit_find(cursor->text + word.at, word.len);
    return *unit < 0 ? refuse_word(cursor, word, "unknown unit") : 0;
}

/* [multiples] unit */
static int read_period(struct cursor *cursor, int64_t *multiples, int *unit) {
    struct span digits = take(cursor, is_digit);
    *multiples = 1;
    if (digits.len > 0) {
        if (!at_end(cursor) && cursor->text[cursor->at] == '.')
            return refuse(cursor, cursor->at, "a period is whole units, without \".\"");
        int rc = read_number(cursor, digits, "period longer than 100 years of 360 days", multiples);
        if (rc < 0)
            return rc;
        if (*multiples == 0)
            return refuse(cursor, digits.at, "a period of zero units");
    } else if (!at_end(cursor) && cursor->text[cursor->at] == '-') {
        return refuse(cursor, cursor->at, "a period cannot be negative");
    }
    skip_blanks(cursor);
    struct span start = {cursor->at, 0};
    int64_t units_each;
    int rc = read_unit(cursor, unit, &units_each);
    if (rc == 0 && *multiples > multiples_max(*unit) / units_each)
        rc = refuse(cursor, digits.len > 0 ? digits.at : start.at,
                    "period longer than 100 years of 360 days");
    else if (rc == 0)
        *multiples *= units_each;
    return rc;
}

/* ["burst" count] */
static int read_burst(struct cursor *cursor, int64_t *burst) {
    *burst = 0;
    if (!take_word(cursor, "burst"))
        return 0;
    skip_blanks(cursor);
    size_t at = cursor->at;
    int rc = read_count(cursor, "a count after \"burst\"", burst);
    if (rc == 0 && *burst == 0)
        rc = refuse(cursor, at, "a burst of zero");
    return rc;
}

/* One limit with the blanks around it; stops at a separator or the end. */
static int read_limit(struct cursor *cursor, struct weir_limit *limit) {
    int64_t amount = 0, multiples = 0, burst = 0;
    int unit = 0;

    skip_blanks(cursor);
    if (at_end(cursor) || is_next(cursor, is_separator))
        return refuse(cursor, cursor->at, "empty limit");
    int rc = read_count(cursor, "a count", &amount);
    if (rc < 0)
        return rc;
    skip_blanks(cursor);
    if (!take_word(cursor, "/") && !take_word(cursor, "per"))
        return refuse_here(cursor, "\"per\" or \"/\"");
    skip_blanks(cursor);
    rc = read_period(cursor, &multiples, &unit);
    if (rc < 0)
        return rc;
    skip_blanks(cursor);
    rc = read_burst(cursor, &burst);
    if (rc < 0)
        return rc;
    skip_blanks(cursor);
    /* `limits` accepts a ":" before a separator, so some settings have one. */
    if (cursor->len - cursor->at > 1 && cursor->text[cursor->at] == ':' &&
        is_separator(cursor->text[cursor->at + 1]))
        cursor->at++;
    if (!at_end(cursor) && !is_next(cursor, is_separator))
        return refuse_here(cursor, "the end or another limit after \";\"");

    rc = weir_limit_init(limit, amount, multiples, unit, cursor->error);
    if (rc == 0) {
        limit->strategy = cursor->strategy;
        limit->burst = burst;
    }
    if (rc == 0 && burst > 0 && !weir_takes((uint32_t)cursor->strategy, WEIR_TAKES_BURST))
        limit->strategy = weir_strategy_taking(WEIR_TAKES_BURST);
    return rc;
}

/*
 * Reads all limits of a text; `too_many` is the message if there are more than the array has room
 * for.
 */
static int read_limits(const char *text, size_t len, int strategy, struct weir_limit *limits,
                       size_t room, const char *too_many, size_t *count, struct weir_error *error) {
    struct cursor cursor = {
        .text = text ? text : "", .len = len, .strategy = strategy, .error = error};

    *count = 0;
    if (len > WEIR_TEXT_MAX)
        return refuse(&cursor, WEIR_TEXT_MAX, "text longer than 4096 bytes");
    for (;;) {
        struct weir_limit limit;
        size_t at = cursor.at;
        int rc = read_limit(&cursor, &limit);
        if (rc < 0)
            return rc;
        if (*count == room)
            return refuse_as(WEIR_ETOOMANY, &cursor, at, too_many);
        limits[(*count)++] = limit;
        if (at_end(&cursor))
            return 0;
        cursor.at++; /* the separator */
    }
}

int weir_limit_parse(const char *text, size_t len, struct weir_limit *limit,
                     struct weir_error *error) {
    size_t count;
    if (!limit || (!text && len > 0))
        return weir_fail(error, WEIR_EINVAL, 0, "%s is NULL", limit ? "text" : "limit");
    return read_limits(text, len, WEIR_FIXED_WINDOW, limit, 1, "more than one limit", &count,
                       error);
}

int weir_limit_parse_many(const char *text, size_t len, struct weir_limit *limits, size_t *count,
                          struct weir_error *error) {
    return weir_limit_parse_as(text, len, WEIR_FIXED_WINDOW, limits, count, error);
}

int weir_limit_parse_as(const char *text, size_t len, int strategy, struct weir_limit *limits,
                        size_t *count, struct weir_error *error) {
    if (!weir_strategy_name(strategy))
        return weir_fail(error, WEIR_EINVAL, 0, "strategy %d does not exist", strategy);
    if (!limits || !count || (!text && len > 0))
        return weir_fail(error, WEIR_EINVAL, 0, "%s is NULL",
                         !limits  ? "limits"
                         : !count ? "count"
                                  : "text");
    char too_many[48];
    size_t room = *count < WEIR_CHECKS_MAX ? *count : WEIR_CHECKS_MAX;
    snprintf(too_many, sizeof too_many, room == 1 ? "more than one limit" : "more than %zu limits",
             room);
    return read_limits(text, len, strategy, limits, room, too_many, count, error);
}
