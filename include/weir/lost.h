/*
 * Tables that lose their file while they are open: somebody removed it or cut it short.
 *
 *     weir_table_guard();                     once, at start
 *     if (weir_table_lost(table) != 0)        once a second
 *         weir_table_reopen(table, uri, now_ns, &error);
 */
#ifndef WEIR_LOST_H
#define WEIR_LOST_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Whether the file of an open shm:// or file:// table was lost since: 0; WEIR_ENOENT: its name was removed, so
 * processes that open it now count in another table; WEIR_EFORMAT: it was cut short, and calls on it fail or, without
 * weir_table_guard(), may end the process by SIGBUS. One system call; once a second is often enough. Errors: WEIR_EINVAL.
 */
WEIR_API int weir_table_lost(struct weir_table *table);

/*
 * Opens a lost table again by its URI and moves it into the same handle. Counts start at zero. Labels, the catalogue and rules go along, unless the table was cut short. Nobody else may be using the
 * handle meanwhile. Returns 0, also if nothing is lost. On an error the handle is as it was. Errors: as
 * weir_table_open(); WEIR_EFORMAT also for a file that was cut short and is still there: remove it first.
 */
WEIR_API int weir_table_reopen(struct weir_table *table, const char *uri, int64_t now_ns,
                               struct weir_error *error);

/*
 * Installs a handler of SIGBUS for the whole process, once. A call that reads a part of a table which was cut off its
 * file then fails with WEIR_EFORMAT instead of ending the process, and so do later ones. Signals about anything
 * else go to the handler that was there before. A handler that the program installs afterwards comes first, so it has to
 * pass on what it does not know. Call it at any time, in any thread. Errors: WEIR_ESYSTEM.
 */
WEIR_API int weir_table_guard(void);

#ifdef __cplusplus
}
#endif

#endif
