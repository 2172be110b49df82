
/*
 * The context of a request: its decision.
 *
 * An internal redirect clears the contexts of a request, but not its pool, so the context is a
 * cleanup of the pool, too.
 */

#include "ngx_http_weir_ctx.h"

/* does nothing: the handler identifies the context among the cleanups */

static void ngx_http_weir_cleanup(void *data) {
}

ngx_http_weir_ctx_t *ngx_http_weir_get_ctx(ngx_http_request_t *r) {
    ngx_pool_cleanup_t *cln;
    ngx_http_weir_ctx_t *ctx;

    r = r->main;

    ctx = ngx_http_get_module_ctx(r, ngx_http_weir_module);

    if (ctx == NULL && (r->internal || r->filter_finalize)) {
        for (cln = r->pool->cleanup; cln; cln = cln->next) {
            if (cln->handler == ngx_http_weir_cleanup) {
                ctx = cln->data;
                ngx_http_set_ctx(r, ctx, ngx_http_weir_module);
                break;
            }
        }
    }

    return ctx;
}

ngx_http_weir_ctx_t *ngx_http_weir_make_ctx(ngx_http_request_t *r) {
    ngx_pool_cleanup_t *cln;
    ngx_http_weir_ctx_t *ctx;

    r = r->main;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_weir_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_http_weir_ctx_t));

    cln->handler = ngx_http_weir_cleanup;
    ngx_http_set_ctx(r, ctx, ngx_http_weir_module);

    return ctx;
}
