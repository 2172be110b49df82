/* The one table of strategies. A sixth is one more file, one more row here and one more enum value. */
#include "strategy/strategy.h"

#include <string.h>

const struct weir_strategy_ops *const weir_strategies[WEIR_STRATEGIES] = {
    [WEIR_FIXED_WINDOW] = &weir_fixed_window,
    [WEIR_MOVING_WINDOW] = &weir_moving_window,
    [WEIR_SLIDING_WINDOW_COUNTER] = &weir_sliding_window_counter,
    [WEIR_TOKEN_BUCKET] = &weir_token_bucket,
    [WEIR_LEAKY_BUCKET] = &weir_leaky_bucket,
};

const char *weir_strategy_name(int strategy) {
    return strategy >= 0 && strategy < WEIR_STRATEGIES ? weir_strategies[strategy]->name : NULL;
}

int weir_strategy_parse(const char *name, size_t len) {
    for (int i = 0; i < WEIR_STRATEGIES; i++)
        if (strlen(weir_strategies[i]->name) == len && !memcmp(weir_strategies[i]->name, name, len))
            return i;
    return WEIR_EINVAL;
}
