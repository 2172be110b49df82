#ifndef WEIR_MUST_H
#define WEIR_MUST_H

#include <stdio.h>
#include <stdlib.h>

/* Aborts the run if the condition is false. It must be true for every input. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
