/* The units of time of limits. */
#include "units.h"

#include <string.h>

#include "ascii.h"
#include "weir/weir.h"

static const struct unit {
    const char *name;
    int64_t seconds;
} units[WEIR_UNITS] = {
    [WEIR_SECOND] = {"second", 1},
    [WEIR_MINUTE] = {"minute", 60},
    [WEIR_HOUR] = {"hour", 3600},
    [WEIR_DAY] = {"day", 86400},
    [WEIR_MONTH] = {"month", INT64_C(30) * 86400},
    [WEIR_YEAR] = {"year", INT64_C(360) * 86400},
};

_Static_assert(WEIR_UNITS == WEIR_YEAR + 1, "a row for each unit");

const char *weir_unit_name(int unit) {
    return unit >= 0 && unit < WEIR_UNITS ? units[unit].name : NULL;
}

int64_t weir_unit_seconds(int unit) {
    return unit >= 0 && unit < WEIR_UNITS ? units[unit].seconds : 0;
}

bool weir_unit_is_named(const char *text, size_t len, const char *name) {
    size_t name_len = strlen(name);
    if (len == name_len + 1 && weir_lower(text[name_len]) == 's')
        len--;
    if (len != name_len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (weir_lower(text[i]) != name[i])
            return false;
    return true;
}

int weir_unit_find(const char *text, size_t len) {
    for (int unit = 0; unit < WEIR_UNITS; unit++)
        if (weir_unit_is_named(text, len, units[unit].name))
            return unit;
    return -1;
}
