
/* The directive weir_table, and a table whose file is lost while it is open. */

#ifndef _NGX_HTTP_WEIR_TABLE_H_INCLUDED_
#define _NGX_HTTP_WEIR_TABLE_H_INCLUDED_

#include "ngx_http_weir.h"

char *ngx_weir_table(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_weir_check_lost(ngx_log_t *log, ngx_weir_conf_t *wcf, int64_t now);

#endif /* _NGX_HTTP_WEIR_TABLE_H_INCLUDED_ */
