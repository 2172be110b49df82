/*
 * Prepared checks: the object, and the keys of a request.
 *
 *     | count, masks | part 0 | part 1 | ... | before 0, after 0, before 1, ... |  one allocation
 *
 * Parts are validated once, here. A decision validates only the values of its request.
 */
#include "prepared.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "checks.h"
#include "error.h"

static int part_error(struct weir_error *error, size_t i, const char *what) {
    return weir_fail(error, WEIR_EINVAL, 0, "part %zu: %s", i, what);
}

static int check_part(const struct weir_part *part, size_t i, struct weir_error *error) {
    struct weir_error why = {.message = ""};
    if (!part->limit)
        return part_error(error, i, "limit is NULL");
    if (weir_limit_validate(part->limit, &why) < 0)
        return weir_fail(error, WEIR_EINVAL, 0, "part %zu: limit: %.200s", i, why.message);
    if (!weir_bytes_sound(&part->before))
        return part_error(error, i, "before is NULL or longer than WEIR_KEY_MAX");
    if (!weir_bytes_sound(&part->after) || part->before.len + part->after.len > WEIR_KEY_MAX)
        return part_error(error, i, "after is NULL, or before and after exceed WEIR_KEY_MAX");
    if (part->cost < 0)
        return part_error(error, i, "cost is negative");
    if (!weir_is_label(part->label))
        return part_error(error, i, "label is not one of weir_stats_label()");
    if ((uint32_t)part->role > WEIR_ROLE_SHADOW)
        return part_error(error, i, "role is not one of enum weir_role");
    return 0;
}

static char *copy_bytes(char *to, const struct weir_bytes *bytes) {
    if (bytes->len > 0)
        memcpy(to, bytes->bytes, bytes->len);
    return to + bytes->len;
}

static struct weir_prepared *join(const struct weir_part *parts, size_t n, size_t text_len) {
    struct weir_prepared *prepared;
    size_t head = sizeof *prepared + n * sizeof prepared->part[0];
    prepared = malloc(head + text_len);
    if (!prepared)
        return NULL;
    *prepared = (struct weir_prepared){.count = (uint32_t)n, .all = UINT32_MAX >> (32 - n)};
    char *text = (char *)prepared + head;
    static _Atomic uint64_t owners = 1;
    uint64_t owner = atomic_fetch_add_explicit(&owners, n, memory_order_relaxed);
    for (size_t i = 0; i < n; i++) {
        struct weir_prepared_part *part = &prepared->part[i];
        *part = (struct weir_prepared_part){
            .limit = *parts[i].limit,
            .before = text,
            .before_len = (uint32_t)parts[i].before.len,
            .after_len = (uint32_t)parts[i].after.len,
            .owner = owner + i,
            .cost = parts[i].cost,
            .label = parts[i].label,
            .role = parts[i].role,
        };
        text = copy_bytes(text, &parts[i].before);
        part->after = text;
        text = copy_bytes(text, &parts[i].after);
        prepared->shadow |= (uint32_t)(part->role == WEIR_ROLE_SHADOW) << i;
        prepared->deferred |= (uint32_t)(part->role == WEIR_ROLE_DEFERRED) << i;
    }
    return prepared;
}

int weir_prepare(const struct weir_part *parts, size_t n, struct weir_prepared **prepared,
                 struct weir_error *error) {
    size_t text_len = 0;
    if (!parts || !prepared || n == 0)
        return weir_fail(error, WEIR_EINVAL, 0, "a check needs parts, and a place for the result");
    if (n > WEIR_CHECKS_MAX)
        return weir_fail(error, WEIR_ETOOMANY, 0, "%zu parts; at most %d are allowed", n,
                         WEIR_CHECKS_MAX);
    for (size_t i = 0; i < n; i++) {
        int rc = check_part(&parts[i], i, error);
        if (rc < 0)
            return rc;
        text_len += parts[i].before.len + parts[i].after.len;
    }
    *prepared = join(parts, n, text_len);
    return *prepared ? 0
                     : weir_fail(error, WEIR_ENOMEM, 0, "no memory for a check of %zu parts", n);
}

void weir_prepared_free(struct weir_prepared *prepared) {
    free(prepared);
}

void weir_prepared_label(struct weir_prepared *prepared, size_t i, int32_t label) {
    if (prepared && i < prepared->count && label >= 0 && label <= WEIR_STATS_LABELS)
        prepared->part[i].label = label;
}

size_t weir_prepared_count(const struct weir_prepared *prepared) {
    return prepared ? prepared->count : 0;
}

void weir_prepared_key(const struct weir_prepared *prepared, uint32_t i,
                       const struct weir_part_values *values, char *key) {
    const struct weir_prepared_part *part = &prepared->part[i];
    key = copy_bytes(key, &(struct weir_bytes){part->before, part->before_len});
    key = copy_bytes(key, &values->client);
    copy_bytes(key, &values->after);
}

int weir_prepared_checks(const struct weir_prepared *prepared, const struct weir_request *request,
                         int shadow, char *buffer, size_t size, struct weir_check *checks,
                         uint8_t *part, size_t *need) {
    struct weir_part_values values[WEIR_CHECKS_MAX];
    size_t total = 0;
    int n = 0;
    if (!prepared || !request || !checks || (!buffer && size > 0) ||
        (request->parts & ~prepared->all))
        return WEIR_EINVAL;
    uint32_t mask = request->parts ? request->parts : prepared->all;
    mask &= shadow ? prepared->shadow : ~prepared->shadow;
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        if (!weir_prepared_values(prepared, request, i, &values[i]))
            return WEIR_EINVAL;
        total += values[i].key_len;
    }
    if (need)
        *need = total;
    if (total > size)
        return WEIR_ENOSPC;
    for (uint32_t rest = mask; rest; rest &= rest - 1, n++) {
        uint32_t i = (uint32_t)__builtin_ctz(rest);
        const struct weir_prepared_part *from = &prepared->part[i];
        bool peeks = from->role == WEIR_ROLE_PEEKED || from->role == WEIR_ROLE_DEFERRED;
        if (values[i].key_len > 0)
            weir_prepared_key(prepared, i, &values[i], buffer);
        checks[n] = (struct weir_check){.limit = &from->limit,
                                        .key = buffer,
                                        .key_len = values[i].key_len,
                                        .cost = values[i].cost,
                                        .client = values[i].client.bytes,
                                        .client_len = values[i].client.len,
                                        .label = from->label,
                                        .flags = peeks ? WEIR_CHECK_PEEK : 0};
        buffer += values[i].key_len;
        if (part)
            part[n] = (uint8_t)i;
    }
    return n;
}
