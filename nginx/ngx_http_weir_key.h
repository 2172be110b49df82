
/* The client and the cost of a request. */

#ifndef _NGX_HTTP_WEIR_KEY_H_INCLUDED_
#define _NGX_HTTP_WEIR_KEY_H_INCLUDED_

#include "ngx_http_weir.h"

ngx_int_t ngx_http_weir_is_address(ngx_str_t *value);
ngx_int_t ngx_http_weir_address(ngx_http_request_t *r, ngx_uint_t prefix, ngx_str_t *name);
ngx_int_t ngx_http_weir_client(ngx_http_request_t *r, ngx_http_weir_zone_t *zone, ngx_uint_t prefix,
                               struct weir_bytes *client);
int64_t ngx_http_weir_cost(ngx_http_request_t *r, ngx_http_weir_zone_t *zone);

#endif /* _NGX_HTTP_WEIR_KEY_H_INCLUDED_ */
