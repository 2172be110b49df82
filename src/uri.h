/* A parsed table URI. */
#ifndef WEIR_URI_H
#define WEIR_URI_H

#include "table/table.h"

#define WEIR_PATH_MAX 4096
#define WEIR_GROUP_MAX 32 /* bytes of a group's name, as useradd allows */

struct weir_uri {
    enum weir_backing backing;
    char path[WEIR_PATH_MAX];       /* shm: /dev/shm/weir.NAME; file: as given; memory: empty */
    uint64_t keys;                  /* 0: not given */
    uint64_t hits;                  /* UINT64_MAX: not given */
    uint64_t rules;                 /* UINT64_MAX: not given */
    char group[WEIR_GROUP_MAX + 1]; /* empty: not given */
};

/* Errors: WEIR_ESYNTAX (message and column), WEIR_EINVAL (a number out of its range). */
int weir_uri_parse(const char *text, struct weir_uri *uri, struct weir_error *error);

#endif
