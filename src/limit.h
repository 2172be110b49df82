/* Functions about limits that weir.h does not have. */
#ifndef WEIR_LIMIT_INTERNAL_H
#define WEIR_LIMIT_INTERNAL_H

/* "second", …; NULL if there is no such unit. Static storage. */
const char *weir_limit_unit_name(int unit);

#endif
