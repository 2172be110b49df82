/* The lock for changing rules. Readers take none (rules.h). */
#include <errno.h>

#include "platform.h"
#include "rules/rules.h"

int weir_rules_repair(struct weir_table *table) {
    return weir_mutex_init(table, &table->rules->mutex);
}

/* The copy of a dead writer needs no repair: the next writer overwrites it. */
int weir_rules_lock(struct weir_table *table) {
    pthread_mutex_t *mutex = &table->rules->mutex;
    int rc = weir_mutex_take(mutex);
    if (rc == EOWNERDEAD) {
        atomic_fetch_add(&table->header->recoveries, 1);
        rc = pthread_mutex_consistent(mutex);
    }
    return rc == 0 ? 0 : rc == EBUSY || rc == ETIMEDOUT ? WEIR_EBUSY : WEIR_ECORRUPT;
}

void weir_rules_unlock(struct weir_table *table) {
    pthread_mutex_unlock(&table->rules->mutex);
}
