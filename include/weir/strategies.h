/*
 * The strategies: one row each. Everything else that depends on strategies is generated from these
 * rows: enum weir_strategy, weir_strategy_name(), the names of counters on remote stores, the
 * script for Redis, Python's weir._core.STRATEGIES, error texts, `weir check`, the tables of the
 * manual.
 *
 *     X(CONSTANT, symbol, "name", "tag", packed as, shape, takes, "what it does")
 *
 * CONSTANT   WEIR_CONSTANT in enum weir_strategy. Numbers are stored in tables: append new rows at
 *            the end.
 * symbol     the files src/strategy/<symbol>.c, with weir_<symbol>_step(), weir_<symbol>_refund()
 *            and weir_<symbol>_numbers(), and src/strategy/<symbol>.lua. Without one of them,
 *            libweir does not build.
 * name       what users write
 * tag        two letters, in the names of counters on remote stores
 * packed as  WORDS: the words of struct weir_state; LOG: a log of hits
 * shape      how it is bounded and drawn; see enum weir_shape
 * takes      the options of a limit that it uses; see enum weir_takes. 0: none
 * what …     a sentence. {requests}: "10 requests"; {period}: "1 minute"; {most}: the most requests
 *            that can fall within one period; {tokens}: "20 tokens"; {every}: the time between two
 *            requests; {wait}: the longest delay; {calendar}: "day", "2 weeks"; {zone}:
 *            "Europe/Berlin". A sentence with {most} is omitted if {most} is not more than
 *            {requests}.
 */
#ifndef WEIR_STRATEGIES_H
#define WEIR_STRATEGIES_H

/* clang-format off */
#define WEIR_STRATEGY_ROWS(X)                                                                      \
    X(FIXED_WINDOW, fixed_window, "fixed-window", "fw", WORDS, OPENED, 0,                          \
      "{requests} in a window of {period}. A window opens with the first request after the "       \
      "end of the previous one. Where two windows meet, {most} may fall within {period}.")         \
    X(MOVING_WINDOW, moving_window, "moving-window", "mw", LOG, MOVING, 0,                         \
      "Never more than {requests} in any interval of {period}.")                                   \
    X(SLIDING_WINDOW_COUNTER, sliding_window_counter, "sliding-window-counter",                    \
      "sw", WORDS, WEIGHED, 0,                                                                     \
      "{requests} within {period}, estimated from the counts of two windows of the clock. "        \
      "During the current window, the weight of the previous one falls from 1 to 0.")              \
    X(TOKEN_BUCKET, token_bucket, "token-bucket", "tb", WORDS, BUCKET, WEIR_TAKES_BURST,           \
      "A bucket of {tokens}. Each request takes one token, and one token is added every "          \
      "{every}.")                                                                                  \
    X(LEAKY_BUCKET, leaky_bucket, "leaky-bucket", "lb", WORDS, QUEUE, WEIR_TAKES_MAX_DELAY,        \
      "Requests are spaced {every} apart. A request that has to wait for at most {wait} is "       \
      "admitted with that delay; any other is denied.")                                            \
    X(CALENDAR_WINDOW, calendar_window, "calendar-window", "cw", WORDS, ALIGNED, WEIR_TAKES_ZONE,  \
      "{requests} in each {calendar} of the calendar in {zone}. Where two of them meet, "          \
      "{most} may fall within {period}.")
/* clang-format on */

enum weir_strategy {
#define WEIR_STRATEGY_ENUM(constant, symbol, name, tag, packing, shape, takes, words)              \
    WEIR_##constant,
    WEIR_STRATEGY_ROWS(WEIR_STRATEGY_ENUM)
#undef WEIR_STRATEGY_ENUM
};

/*
 * Options of a limit. If a limit has one and names no strategy, it gets the first strategy that
 * takes it. Limits that differ in a burst or zone have different counters.
 */
enum weir_takes {
    WEIR_TAKES_BURST = 1,     /* weir_limit.burst: the most requests at once */
    WEIR_TAKES_MAX_DELAY = 2, /* weir_limit.max_delay_ns: admitted requests may have to wait */
    WEIR_TAKES_ZONE = 4,      /* weir_limit.zone: windows of the calendar; "week" is a unit, too */
};

/*
 * The most requests that a strategy of amount N and period P admits in a half-open interval of
 * length T.
 */
enum weir_shape {
    WEIR_SHAPE_OPENED,  /* windows that start with a hit: N - 1 + N ceil(T / P) */
    WEIR_SHAPE_MOVING,  /* every interval of P: N ceil(T / P) */
    WEIR_SHAPE_WEIGHED, /* two weighted windows of the clock: at most N (ceil(T / P) + 1) */
    WEIR_SHAPE_BUCKET,  /* a burst b at once, then the rate: ceil(b + N T / P) - 1 */
    WEIR_SHAPE_QUEUE,   /* evenly spaced at the rate; the delay is bounded */
    WEIR_SHAPE_ALIGNED, /* windows of the clock or the calendar: N (ceil(T / P) + 1) */
};

#endif
