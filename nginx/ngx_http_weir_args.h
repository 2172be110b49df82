
/* The arguments of directives, and where a directive stands. */

#ifndef _NGX_HTTP_WEIR_ARGS_H_INCLUDED_
#define _NGX_HTTP_WEIR_ARGS_H_INCLUDED_

#include "ngx_http_weir.h"

void ngx_http_weir_place(ngx_conf_t *cf, ngx_http_weir_place_t *place);

/* 1 if the value begins with the name; *rest: what follows */

ngx_int_t ngx_http_weir_arg(ngx_str_t *value, char *name, ngx_str_t *rest);

#endif /* _NGX_HTTP_WEIR_ARGS_H_INCLUDED_ */
