/* The rows of include/weir/strategies.h as a table, with the functions of each strategy. */
#include "strategy/strategy.h"

#include <stdio.h>
#include <string.h>

#include "error.h"

#define ROW(constant, symbol, name_, tag_, packing_, shape_, takes_, words_)                       \
    static const struct weir_strategy_ops symbol = {                                               \
        .name = name_,                                                                             \
        .tag = tag_,                                                                               \
        .packing = WEIR_PACK_##packing_,                                                           \
        .shape = WEIR_SHAPE_##shape_,                                                              \
        .takes = takes_,                                                                           \
        .words = words_,                                                                           \
        .step = weir_##symbol##_step,                                                              \
        .refund = weir_##symbol##_refund,                                                          \
        .numbers = weir_##symbol##_numbers,                                                        \
    };                                                                                             \
    _Static_assert(sizeof name_ > 1 && sizeof tag_ == 3 && sizeof words_ > 1, "a row is whole");
WEIR_STRATEGY_ROWS(ROW)

#define PLACE(constant, symbol, name, tag, packing, shape, takes, words)                           \
    [WEIR_##constant] = &symbol,
const struct weir_strategy_ops *const weir_strategies[WEIR_STRATEGIES] = {
    WEIR_STRATEGY_ROWS(PLACE)};

const char *weir_strategy_name(int strategy) {
    return strategy >= 0 && strategy < WEIR_STRATEGIES ? weir_strategies[strategy]->name : NULL;
}

int weir_strategy_takes(int strategy, int option) {
    return weir_takes((uint32_t)strategy, (unsigned)option);
}

int weir_strategy_taking(int option) {
    for (int i = 0; i < WEIR_STRATEGIES; i++)
        if (weir_strategies[i]->takes & (unsigned)option)
            return i;
    return WEIR_EINVAL;
}

int weir_strategy_refuse(int strategy, unsigned option, const char *name,
                         struct weir_error *error) {
    char taking[128] = "";
    for (int i = 0; i < WEIR_STRATEGIES; i++)
        if (weir_strategies[i]->takes & option) {
            size_t len = strlen(taking);
            snprintf(taking + len, sizeof taking - len, "%s%s", len ? ", " : "",
                     weir_strategies[i]->name);
        }
    return weir_fail(error, WEIR_EINVAL, 0, "%s is for %s, not for %s", name, taking,
                     weir_strategy_name(strategy));
}

int weir_strategy_parse(const char *name, size_t len) {
    for (int i = 0; i < WEIR_STRATEGIES; i++)
        if (strlen(weir_strategies[i]->name) == len && !memcmp(weir_strategies[i]->name, name, len))
            return i;
    return WEIR_EINVAL;
}
