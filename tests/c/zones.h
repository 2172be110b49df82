/* The time zones of tests/timelines.txt, for the times that occur in it. */
#ifndef WEIR_ZONES_H
#define WEIR_ZONES_H

#include <stdlib.h>
#include <string.h>

#include "weir/weir.h"

#define S INT64_C(1000000000)
#define H (3600 * S)
static const struct weir_zone_offset none[] = {{0, 0}}, india[] = {{0, 5 * H + H / 2}},
                                     berlin[] = {{0, H},
                                                 {1679792400 * S, 2 * H},
                                                 {1698541200 * S, H},
                                                 {1711846800 * S, 2 * H},
                                                 {1729990800 * S, H},
                                                 {1743296400 * S, 2 * H}},
                                     sao_paulo[] = {{0, -3 * H},
                                                    {1541300400 * S, -2 * H},
                                                    {1550368800 * S, -3 * H}};

static const struct weir_zone zones[] = {{"UTC", none, 1},
                                         {"+05:30", india, 1},
                                         {"Europe/Berlin", berlin, 6},
                                         {"America/Sao_Paulo", sao_paulo, 3}};

#undef S
#undef H

/*
 * The third part of a timeline's head: the zone of a calendar window, or the delay of a leaky
 * bucket.
 */
static inline void third_of_timeline(struct weir_limit *limit, const char *text) {
    struct weir_error error;
    limit->zone = NULL;
    limit->max_delay_ns = 0;
    if (limit->strategy != WEIR_CALENDAR_WINDOW) {
        limit->max_delay_ns = atoll(text);
        return;
    }
    for (size_t i = 0; i < sizeof zones / sizeof *zones; i++)
        if (!strcmp(zones[i].name, text))
            limit->zone = &zones[i];
    if (!limit->zone || weir_limit_validate(limit, &error) < 0)
        abort();
}

#endif
