/* A decision that charges nothing corrects states that are ahead of a clock that stepped back. */
#include "support.h"

#include "strategy/strategy.h"

static void test_a_denied_decision_corrects_states_after_a_clock_step_back(void **state) {
    (void)state;
    for (int strategy = 0; strategy < WEIR_STRATEGIES; strategy++) {
        struct weir_table *table = open_table("memory://?keys=64");
        struct weir_limit limit = limit_of(strategy, 3, MINUTE), closed = limit_of(0, 0, MINUTE);
        struct weir_check both[] = {{.limit = &limit, .key = "a", .key_len = 1, .cost = 1},
                                    {.limit = &closed, .key = "a", .key_len = 1, .cost = 1}};
        struct weir_verdict verdicts[2];
        for (int i = 0; i < 3; i++)
            hit(table, &limit, "a", NOW + 60 * MINUTE);
        /*
         * An hour back: the other limit denies, and the state is corrected to at most one period
         * ahead.
         */
        assert_int_equal(weir_decide(table, both, 2, NOW, WEIR_HIT, verdicts, NULL), 0);
        assert_false(verdicts[1].allowed);
        assert_true(verdicts[0].reset_at_ns <= NOW + 2 * MINUTE);
        assert_true(hit(table, &limit, "a", NOW + 2 * MINUTE));
        weir_table_close(table);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_denied_decision_corrects_states_after_a_clock_step_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
