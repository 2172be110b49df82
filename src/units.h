/* The units of time of limits: their names and lengths. */
#ifndef WEIR_UNITS_H
#define WEIR_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The number of units, WEIR_SECOND to WEIR_YEAR. */
#define WEIR_UNITS 6

/* "second", …; NULL if there is no such unit. Static storage. */
const char *weir_unit_name(int unit);

/* The length of a unit: a month is 30 days, a year 360 days. 0 if there is no such unit. */
int64_t weir_unit_seconds(int unit);

/* Whether a text is this name or its plural, in any case. */
bool weir_unit_is_named(const char *text, size_t len, const char *name);

/* The unit with this name; -1 if there is none. */
int weir_unit_find(const char *text, size_t len);

#endif
