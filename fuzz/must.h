#ifndef WEIR_MUST_H
#define WEIR_MUST_H

#include <stdio.h>
#include <stdlib.h>

/* What must hold, whatever the input: else the run ends here. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
