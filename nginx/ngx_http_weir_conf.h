
/* The directives weir_limit and weir_rules, and prepared checks. */

#ifndef _NGX_HTTP_WEIR_CONF_H_INCLUDED_
#define _NGX_HTTP_WEIR_CONF_H_INCLUDED_

#include "ngx_http_weir.h"

char *ngx_http_weir_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_weir_rules(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_weir_check_conf(ngx_conf_t *cf);
ngx_int_t ngx_http_weir_prepare(ngx_cycle_t *cycle, struct weir_table *table);
void ngx_http_weir_relabel(ngx_cycle_t *cycle, struct weir_table *table);

#endif /* _NGX_HTTP_WEIR_CONF_H_INCLUDED_ */
