// Every header, in one C++ program.
#include <weir/base.h>
#include <weir/board.h>
#include <weir/hiredis.h>
#include <weir/lost.h>
#include <weir/memcached.h>
#include <weir/meter.h>
#include <weir/redis.h>
#include <weir/rules.h>
#include <weir/state.h>
#include <weir/stats.h>
#include <weir/strategies.h>
#include <weir/table.h>
#include <weir/weir.h>

#include <cstdio>

// The earlier names, until 1.0.
static_assert(WEIR_BOARD_LABELS == WEIR_STATS_LABELS && WEIR_CHECK_LOOK == WEIR_CHECK_PEEK &&
                  WEIR_MEMCACHED_LOOK == WEIR_MEMCACHED_PEEK &&
                  sizeof(weir_heavy) == sizeof(weir_top_client) &&
                  sizeof(weir_described) == sizeof(weir_registered_limit),
              "aliases");

int main() {
    if (weir_board_label != weir_stats_label || weir_rules_judge != weir_rules_match ||
        weir_memcached_judge != weir_memcached_evaluate)
        return 1;
    weir_limit limit{};
    weir_verdict verdict{};
    weir_table *table = nullptr;
    weir_error error{};
    if (weir_limit_parse("1 per hour", 10, &limit, &error) < 0 ||
        weir_table_open("memory://?keys=64", &table, &error) < 0)
        return 1;
    weir_check check{};
    check.limit = &limit;
    check.key = "k";
    check.key_len = 1;
    check.cost = 1;
    for (int i = 0; i < 2; i++) {
        if (weir_decide(table, &check, 1, 1000000000, WEIR_HIT, &verdict, nullptr) < 0)
            return 1;
        std::printf("%d\n", verdict.allowed);
    }
    weir_table_close(table);
}
