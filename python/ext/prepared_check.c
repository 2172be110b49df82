/*
 * The fixed data of a prepared check: the start of each part's key, and its label in the
 * statistics. prepared_type.c has its Python type.
 */
#include "prepared_check.h"

#include "errors.h"
#include "key.h"
#include "label.h"
#include "limit.h"
#include "table.h"
#include "weir/stats.h"

int core_prepared_before(struct core_prepared *self, struct core_key *key,
                         const struct core_part *part, bool marked) {
    return (marked && core_key_table(key, self->table) < 0) ||
                   core_key_join(key, part->limit->prefix, NULL, 0) < 0 ||
                   core_key_append(key, "/", 1) < 0
               ? -1
               : core_key_append(key, PyBytes_AS_STRING(self->prefix),
                                 (size_t)PyBytes_GET_SIZE(self->prefix));
}

/* Prepares the parts in libweir, for the table (marked) or for any other store. */
int core_prepared_prepare(struct core_prepared *self, bool marked,
                          struct weir_prepared **prepared) {
    struct weir_part parts[WEIR_CHECKS_MAX];
    size_t start[WEIR_CHECKS_MAX + 1];
    struct core_key key;
    core_key_init(&key);
    int rc = 0;
    for (Py_ssize_t i = 0; i < self->count && rc == 0; i++) {
        start[i] = key.len;
        rc = core_prepared_before(self, &key, &self->part[i], marked);
        start[i + 1] = key.len;
    }
    for (Py_ssize_t i = 0; i < self->count && rc == 0; i++) {
        struct core_part *part = &self->part[i];
        if (marked)
            part->label = core_label(self->table, part->limit);
        parts[i] = (struct weir_part){
            .limit = &part->limit->limit,
            .before = {key.data + start[i], start[i + 1] - start[i]},
            .after = {PyBytes_AS_STRING(part->after), (size_t)PyBytes_GET_SIZE(part->after)},
            .cost = part->cost,
            .label = marked && self->labels >> i & 1 ? part->label : 0,
            .role = part->role,
        };
    }
    if (rc == 0) {
        struct weir_error error;
        rc = weir_prepare(parts, (size_t)self->count, prepared, &error);
        if (rc < 0)
            core_raise(self->state, rc, &error);
    }
    core_key_free(&key);
    return rc < 0 ? -1 : 0;
}

/*
 * As weir.flask registers it, for commands. A part whose scope depends on the request has no one
 * key.
 */
static void register_part(struct core_prepared *self, const struct core_part *part) {
    struct core_key key;
    core_key_init(&key);
    if (!part->scope_of && core_prepared_before(self, &key, part, true) == 0)
        (void)weir_stats_register(self->table->table, &part->limit->limit, key.data, key.len,
                                  PyBytes_AS_STRING(part->after),
                                  (size_t)PyBytes_GET_SIZE(part->after));
    PyErr_Clear();
    core_key_free(&key);
}

void core_prepared_relabel(struct core_prepared *self) {
    const struct core_table *table = self->table;
    /* Calls without the GIL may use the labels. */
    if (self->renewals == table->renewals || !table->table || table->users > 0)
        return;
    bool all = true;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        struct core_part *part = &self->part[i];
        part->label = core_label(self->table, part->limit);
        all = all && (part->label > 0 || core_limit_is_own(part->limit));
        if (self->labels >> i & 1)
            weir_prepared_label(self->labelled, (size_t)i, part->label);
        register_part(self, part);
    }
    if (all)
        self->renewals = table->renewals;
}
