
/* The context of a request: its decision. */

#ifndef _NGX_HTTP_WEIR_CTX_H_INCLUDED_
#define _NGX_HTTP_WEIR_CTX_H_INCLUDED_

#include "ngx_http_weir.h"

/* of a main request */

typedef struct {
    ngx_http_weir_set_t *set;    /* NULL: no limit decided */
    uint32_t took_part;          /* bit i: part i */
    uint32_t deciding;           /* index of a part */
    int64_t now;                 /* in nanoseconds since the epoch */
    struct weir_verdict verdict; /* of the deciding part */
    ngx_uint_t headers;
    unsigned status : 4;
    unsigned matched : 1; /* the rules were matched */
} ngx_http_weir_ctx_t;

/* NULL: none */

ngx_http_weir_ctx_t *ngx_http_weir_get_ctx(ngx_http_request_t *r);
ngx_http_weir_ctx_t *ngx_http_weir_make_ctx(ngx_http_request_t *r);

#endif /* _NGX_HTTP_WEIR_CTX_H_INCLUDED_ */
