
/* A request: decide, reject, delay. */

#ifndef _NGX_HTTP_WEIR_REQUEST_H_INCLUDED_
#define _NGX_HTTP_WEIR_REQUEST_H_INCLUDED_

#include "ngx_http_weir.h"

ngx_int_t ngx_http_weir_handler(ngx_http_request_t *r);

#endif /* _NGX_HTTP_WEIR_REQUEST_H_INCLUDED_ */
