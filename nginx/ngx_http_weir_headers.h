
/* Response headers and variables. */

#ifndef _NGX_HTTP_WEIR_HEADERS_H_INCLUDED_
#define _NGX_HTTP_WEIR_HEADERS_H_INCLUDED_

#include "ngx_http_weir_ctx.h"

/* how many seconds a client has to wait */

int64_t ngx_http_weir_wait(ngx_http_weir_ctx_t *ctx);
ngx_int_t ngx_http_weir_add_variables(ngx_conf_t *cf);
void ngx_http_weir_add_filter(void);

#endif /* _NGX_HTTP_WEIR_HEADERS_H_INCLUDED_ */
