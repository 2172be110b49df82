/*
 * Any bytes as a limit string: parsing reads nothing after the end and does not crash. An accepted
 * limit is valid and is the same after printing and parsing. An error has a printable message with
 * a column.
 */
#include <stdint.h>
#include <stdio.h>

#include "guarded.h"
#include "must.h"
#include "weir/weir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_limit(const struct weir_limit *limit) {
    struct weir_error error;
    struct weir_limit again;
    char text[96];

    MUST(weir_limit_validate(limit, &error) == 0);
    int length = weir_limit_print(limit, text, sizeof text);
    MUST(length > 0 && (size_t)length < sizeof text);
    MUST(weir_limit_parse(text, (size_t)length, &again, &error) == 0);
    MUST(memcmp(&again, limit, sizeof again) == 0);
}

static void check_error(const struct weir_error *error, int rc, size_t size) {
    MUST(rc == WEIR_ESYNTAX || rc == WEIR_ETOOMANY);
    MUST(error->code == rc);
    MUST(error->column >= 1 && (size_t)error->column <= size + 1);
    MUST(memchr(error->message, '\0', sizeof error->message));
    MUST(error->message[0]);
    for (const char *byte = error->message; *byte; byte++)
        MUST(*byte >= ' ' && *byte < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct weir_error error;
    struct weir_limit one, limits[WEIR_CHECKS_MAX];
    size_t count = WEIR_CHECKS_MAX;
    struct guarded text = guarded_copy(data, size);

    int rc = weir_limit_parse_many(text.bytes, text.len, limits, &count, &error);
    if (rc == 0) {
        MUST(count >= 1 && count <= WEIR_CHECKS_MAX);
        for (size_t i = 0; i < count; i++)
            check_limit(&limits[i]);
    } else {
        check_error(&error, rc, size);
    }

    int single = weir_limit_parse(text.bytes, text.len, &one, &error);
    MUST((single == 0) == (rc == 0 && count == 1));
    if (single < 0)
        check_error(&error, single, size);
    guarded_free(&text);
    return 0;
}
