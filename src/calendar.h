/* Calendar windows in a time zone: src/calendar.c. */
#ifndef WEIR_CALENDAR_H
#define WEIR_CALENDAR_H

#include "weir/weir.h"

/* A window from start_ns to end_ns, exclusive, and the end of the next one. */
struct weir_window {
    int64_t start_ns;
    int64_t end_ns;
    int64_t next_ns;
};

/* The window of a calendar-window limit at now_ns. Any unit, multiples and zone that are valid. */
struct weir_window weir_calendar_window(const struct weir_limit *limit, int64_t now_ns);

/* A number that distinguishes counters of one zone and unit from others. */
uint64_t weir_calendar_mark(const struct weir_limit *limit);

/* 0 or WEIR_EINVAL; zone may be NULL: UTC. */
int weir_zone_validate(const struct weir_zone *zone, struct weir_error *error);

#endif
