/*
 * Calendar windows in a time zone: days, months, years, or several of them; weeks, which start on
 * Monday; hours, minutes and seconds.
 *
 *     local time   | Mon 00:00          | Tue 00:00         | Wed 00:00
 *     UTC, +1 h   23:00                23:00               22:00  the clock went forward: 23 hours
 *
 * Windows are numbered in local time by the day, week, month or year that they start with. In UTC,
 * a window starts at the first moment when local time has reached its midnight. If the clock skips
 * a midnight, the window starts at the jump; if a midnight occurs twice, it starts at the first. No
 * moment is in two windows.
 *
 * It is integer arithmetic on the zone's list of offsets. Cost: three bisections and some
 * divisions.
 */
#include "calendar.h"

#include <stdbool.h>
#include <string.h>

#include "error.h"

#define DAY_NS INT64_C(86400000000000)
#define MONDAY (-3)                 /* the day before 1970-01-01 that was one */
#define LATEST_NS (104000 * DAY_NS) /* no window that contains WEIR_NOW_MAX ends later */

static const struct weir_zone_offset no_offset = {0, 0};
static const struct weir_zone utc = {"UTC", &no_offset, 1};

static bool is_name_byte(char byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || (byte && strchr("+-_:/", byte));
}

int weir_zone_validate(const struct weir_zone *zone, struct weir_error *error) {
    if (!zone)
        return 0;
    size_t len = zone->name ? strnlen(zone->name, WEIR_ZONE_NAME_MAX + 1) : 0;
    for (size_t i = 0; i < len; i++)
        if (!is_name_byte(zone->name[i]))
            len = 0;
    if (len == 0 || len > WEIR_ZONE_NAME_MAX)
        return weir_fail(error, WEIR_EINVAL, 0,
                         "a zone's name has 1 to %d letters, digits or + - _ : /",
                         WEIR_ZONE_NAME_MAX);
    if (!zone->offset || zone->offsets < 1 || zone->offsets > WEIR_ZONE_OFFSETS_MAX)
        return weir_fail(error, WEIR_EINVAL, 0, "zone %s has no offsets, or too many", zone->name);
    for (size_t i = 0; i < zone->offsets; i++)
        if (zone->offset[i].offset_ns <= -DAY_NS || zone->offset[i].offset_ns >= DAY_NS ||
            zone->offset[i].from_ns < -WEIR_NOW_MAX ||
            (i > 0 && zone->offset[i].from_ns <= zone->offset[i - 1].from_ns))
            return weir_fail(error, WEIR_EINVAL, 0,
                             "zone %s: an offset of a day or more, or out of order", zone->name);
    return 0;
}

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

/* The index of the last offset that began at now_ns or before; 0 before the first. */
static size_t place_at(const struct weir_zone *zone, int64_t now_ns) {
    size_t low = 0, high = zone->offsets;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (zone->offset[middle].from_ns <= now_ns)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The first moment at which the zone's local time is local_ns or later. */
static int64_t first_moment(const struct weir_zone *zone, int64_t local_ns) {
    size_t i = place_at(zone, local_ns - DAY_NS); /* it is not earlier than that */
    for (;; i++) {
        const struct weir_zone_offset *offset = &zone->offset[i];
        int64_t moment_ns = local_ns - offset->offset_ns;
        if (i > 0 && moment_ns < offset->from_ns)
            moment_ns = offset->from_ns; /* skipped */
        if (i + 1 == zone->offsets || moment_ns < offset[1].from_ns)
            return moment_ns;
    }
}

/*
 * Days since 1970-01-01 to months since the year 0, and back. Years begin in March, so that
 * the leap day is the last one: 400 years have 146097 days.
 */
static int64_t month_of_day(int64_t day) {
    day += 719468; /* since 0000-03-01 */
    int64_t era = floor_div(day, 146097), rest = day - era * 146097;
    int64_t year = (rest - rest / 1460 + rest / 36524 - rest / 146096) / 365;
    int64_t day_of_year = rest - (365 * year + year / 4 - year / 100);
    return (era * 400 + year) * 12 + (5 * day_of_year + 2) / 153 + 2;
}

static int64_t first_day_of_month(int64_t month) {
    int64_t shifted = month - 2, year = floor_div(shifted, 12), in_year = shifted - year * 12;
    int64_t era = floor_div(year, 400), rest = year - era * 400;
    return era * 146097 + rest * 365 + rest / 4 - rest / 100 + (153 * in_year + 2) / 5 - 719468;
}

/* The number of the window that a local time is in. */
static int64_t number_at(const struct weir_limit *limit, int64_t local_ns) {
    int64_t day = floor_div(local_ns, DAY_NS), n = limit->multiples;
    switch (limit->unit) {
    case WEIR_DAY:
        return n % 7 == 0 ? floor_div(day - MONDAY, n) : floor_div(day, n);
    case WEIR_MONTH:
        return floor_div(month_of_day(day), n);
    case WEIR_YEAR:
        return floor_div(floor_div(month_of_day(day), 12), n);
    default:
        return floor_div(local_ns, limit->period_ns);
    }
}

/* The local time at which a window starts. */
static int64_t start_of(const struct weir_limit *limit, int64_t number) {
    __extension__ __int128 first = (__int128)number * limit->multiples, local_ns;
    switch (limit->unit) {
    case WEIR_DAY:
        local_ns = (first + (limit->multiples % 7 == 0 ? MONDAY : 0)) * DAY_NS;
        break;
    case WEIR_MONTH:
        local_ns = (__int128)first_day_of_month((int64_t)first) * DAY_NS;
        break;
    case WEIR_YEAR:
        local_ns = (__int128)first_day_of_month((int64_t)first * 12) * DAY_NS;
        break;
    default:
        local_ns = (__int128)number * limit->period_ns;
    }
    return local_ns > LATEST_NS ? LATEST_NS : (int64_t)local_ns;
}

struct weir_window weir_calendar_window(const struct weir_limit *limit, int64_t now_ns) {
    const struct weir_zone *zone = limit->zone ? limit->zone : &utc;
    int64_t local_ns = now_ns + zone->offset[place_at(zone, now_ns)].offset_ns;
    int64_t number = number_at(limit, local_ns), start[3];
    for (;; number++) {
        for (int i = 0; i < 3; i++)
            start[i] = first_moment(zone, start_of(limit, number + i));
        /*
         * A clock that goes back over midnight: the window has begun, though local time is before
         * it.
         */
        if (start[1] > now_ns)
            break;
    }
    if (start[2] == start[1]) /* a day that a zone left out altogether */
        start[2] = first_moment(zone, start_of(limit, number + 3));
    return (struct weir_window){start[0] < 0 ? 0 : start[0], start[1], start[2]};
}

uint64_t weir_calendar_mark(const struct weir_limit *limit) {
    uint64_t mark = UINT64_C(0xCBF29CE484222325) ^ (uint64_t)limit->unit;
    for (const char *at = limit->zone ? limit->zone->name : "UTC"; *at; at++)
        mark = (mark ^ (unsigned char)*at) * UINT64_C(0x100000001B3);
    return mark;
}
