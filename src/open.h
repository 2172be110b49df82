/* Opening tables. */
#ifndef WEIR_OPEN_H
#define WEIR_OPEN_H

#include <stdint.h>

/* How long an opener waits for a flock() that another process holds; tests shorten it. */
extern int64_t weir_open_wait_ns;

#endif
