/*
 * Open tables whose file was removed or truncated.
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
 * Whether the file of an open shm:// or file:// table is still there. Returns 0 if it is;
 * WEIR_ENOENT if it was removed, so that processes which open the table now use another one;
 * WEIR_EFORMAT if it was truncated: calls on the table then fail or, without weir_table_guard(),
 * can end the process by SIGBUS. Makes one system call; once a second is often enough.
 * Errors: WEIR_EINVAL.
 */
WEIR_API int weir_table_lost(struct weir_table *table);

/*
 * Opens a lost table again by its URI, in the same handle. Counts start at zero. Labels, the limit
 * registry and rules are copied, unless the table was truncated. A truncated file is removed first,
 * unless a program has written other data into it. No other thread may use the handle during the
 * call. Returns 0, also if nothing is lost. After an error the handle is unchanged.
 * Errors: as weir_table_open(); WEIR_EFORMAT also if the truncated file cannot be removed.
 */
WEIR_API int weir_table_reopen(struct weir_table *table, const char *uri, int64_t now_ns,
                               struct weir_error *error);

/*
 * Installs a handler of SIGBUS for the whole process, once. If a call reads a part of a table that
 * was cut off the file, this call and later ones then fail with WEIR_EFORMAT, instead of ending the
 * process. Signals with other causes are passed to the previous handler. A handler that the program
 * installs later is called first, so it must pass on the signals that it does not handle. May be
 * called at any time, in any thread.
 * Errors: WEIR_ESYSTEM.
 */
WEIR_API int weir_table_guard(void);

#ifdef __cplusplus
}
#endif

#endif
