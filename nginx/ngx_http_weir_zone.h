
/* The directive weir_limit_zone. */

#ifndef _NGX_HTTP_WEIR_ZONE_H_INCLUDED_
#define _NGX_HTTP_WEIR_ZONE_H_INCLUDED_

#include "ngx_http_weir.h"

char *ngx_http_weir_zone_name(ngx_conf_t *cf, ngx_str_t *name, ngx_http_weir_zone_t **zone);
char *ngx_http_weir_limit_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

#endif /* _NGX_HTTP_WEIR_ZONE_H_INCLUDED_ */
