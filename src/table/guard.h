/* The mapped tables of this process, for the handler of weir_table_guard(). */
#ifndef WEIR_GUARD_H
#define WEIR_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weir/weir.h"

/* One mapped table, in an array: a signal handler may be reading it. */
struct weir_mapping {
    _Atomic uintptr_t begin, end; /* 0: unused */
    _Atomic int lost; /* the file was cut short, and empty pages took the place of some */
};

/* Returns NULL if the array is full; the table is then not guarded. */
struct weir_mapping *weir_mapping_add(void *base, size_t bytes);
/* Unmaps it, too, unless it is lost. mapping may be NULL. */
void weir_mapping_remove(struct weir_mapping *mapping, void *base, size_t bytes);

#endif
