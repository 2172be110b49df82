
/*
 * Response headers, as weir.flask writes them, and variables for the log.
 */

#include "ngx_http_weir_headers.h"

#include "ngx_http_weir_key.h"

#define NGX_HTTP_WEIR_REMAINING 0
#define NGX_HTTP_WEIR_RETRY_AFTER 1
#define NGX_HTTP_WEIR_LIMIT 2

/* the largest Integer of Structured Fields */
#define NGX_HTTP_WEIR_INTEGER INT64_C(999999999999999)

#define ngx_http_weir_integer(n) ngx_min(n, NGX_HTTP_WEIR_INTEGER)

static ngx_int_t ngx_http_weir_header_filter(ngx_http_request_t *r);

static ngx_http_output_header_filter_pt ngx_http_next_header_filter;

static ngx_str_t ngx_http_weir_status[] = {
    ngx_null_string,        ngx_string("PASSED"),          ngx_string("DELAYED"),
    ngx_string("REJECTED"), ngx_string("DELAYED_DRY_RUN"), ngx_string("REJECTED_DRY_RUN"),
    ngx_string("REJECTED"), /* by a rule */
    ngx_string("PASSED"),   /* by a rule */
    ngx_string("ERROR")};

static ngx_int_t ngx_http_weir_refused(ngx_http_weir_ctx_t *ctx) {
    return ctx->status == NGX_HTTP_WEIR_REJECTED || ctx->status == NGX_HTTP_WEIR_BLOCKED;
}

/* the first whole second after the limit resets, since the epoch */

static int64_t ngx_http_weir_reset(ngx_http_weir_ctx_t *ctx) {
    return ctx->verdict.reset_at_ns / 1000000000 + 1;
}

/*
 * Seconds until the same request can pass. If it passed or never can: until
 * the limit resets. -1 if there is no such moment.
 */

int64_t ngx_http_weir_wait(ngx_http_weir_ctx_t *ctx) {
    int64_t wait;

    wait = ctx->verdict.retry_after_ns;

    if (!ctx->verdict.allowed && wait != WEIR_NEVER) {
        return wait / 1000000000 + (wait % 1000000000 != 0);
    }

    if (ctx->status == NGX_HTTP_WEIR_BLOCKED) {
        return -1;
    }

    wait = ngx_http_weir_reset(ctx) - ctx->now / 1000000000 - (ctx->now % 1000000000 != 0);

    return ngx_max(wait, 0);
}

/* whether the response has the header already, from the upstream */

static ngx_int_t ngx_http_weir_has_header(ngx_http_request_t *r, ngx_str_t *name) {
    ngx_uint_t i;
    ngx_list_part_t *part;
    ngx_table_elt_t *header;

    part = &r->headers_out.headers.part;
    header = part->elts;

    for (i = 0; /* void */; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return 0;
            }

            part = part->next;
            header = part->elts;
            i = 0;
        }

        if (header[i].hash != 0 && header[i].key.len == name->len &&
            ngx_strncasecmp(header[i].key.data, name->data, name->len) == 0) {
            return 1;
        }
    }
}

static ngx_int_t ngx_http_weir_add_header(ngx_http_request_t *r, ngx_str_t *name,
                                          ngx_str_t *value) {
    ngx_table_elt_t *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key = *name;
    h->value = *value;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}

static ngx_int_t ngx_http_weir_add_number(ngx_http_request_t *r, ngx_str_t *name, int64_t n) {
    ngx_str_t value;

    value.data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, "%L", n) - value.data;

    return ngx_http_weir_add_header(r, name, &value);
}

static ngx_int_t ngx_http_weir_add_legacy(ngx_http_request_t *r, ngx_http_weir_ctx_t *ctx) {
    static ngx_str_t limit = ngx_string("X-RateLimit-Limit");
    static ngx_str_t remaining = ngx_string("X-RateLimit-Remaining");
    static ngx_str_t reset = ngx_string("X-RateLimit-Reset");

    if (ngx_http_weir_has_header(r, &limit)) {
        return NGX_OK;
    }

    if (ngx_http_weir_add_number(r, &limit, ctx->verdict.limit) != NGX_OK ||
        ngx_http_weir_add_number(r, &remaining, ctx->verdict.remaining) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_weir_add_number(r, &reset, ngx_http_weir_reset(ctx));
}

/* how many earlier parts of the decision have the same limit */

static ngx_uint_t ngx_http_weir_same_before(ngx_http_weir_ctx_t *ctx, ngx_uint_t n) {
    ngx_uint_t i, same;
    ngx_http_weir_rate_t *rate, *other;

    rate = ctx->set->parts[n].rate;
    same = 0;

    for (i = 0; i < n; i++) {
        other = ctx->set->parts[i].rate;

        if ((ctx->took_part & ((uint32_t)1 << i)) && other->len == rate->len &&
            ngx_memcmp(other->text, rate->text, rate->len) == 0) {
            same++;
        }
    }

    return same;
}

/* a limit's name in RateLimit-Policy, as a string of Structured Fields */

static u_char *ngx_http_weir_policy_name(u_char *p, ngx_http_weir_ctx_t *ctx, ngx_uint_t n) {
    ngx_uint_t same;
    ngx_http_weir_rate_t *rate;

    if ((ctx->took_part & (ctx->took_part - 1)) == 0) {
        return ngx_cpymem(p, "\"default\"", sizeof("\"default\"") - 1);
    }

    rate = ctx->set->parts[n].rate;
    same = ngx_http_weir_same_before(ctx, n);

    if (same == 0) {
        return ngx_sprintf(p, "\"%*s\"", rate->len, rate->text);
    }

    return ngx_sprintf(p, "\"%*s #%ui\"", rate->len, rate->text, same + 1);
}

/* name, q and w of each limit that took part */

static u_char *ngx_http_weir_policies(u_char *p, ngx_http_weir_ctx_t *ctx) {
    u_char *start;
    ngx_uint_t i;
    struct weir_limit *limit;

    start = p;

    for (i = 0; i < ctx->set->n; i++) {
        if (!(ctx->took_part & ((uint32_t)1 << i))) {
            continue;
        }

        if (p != start) {
            *p++ = ',';
            *p++ = ' ';
        }

        limit = &ctx->set->parts[i].rate->limit;

        p = ngx_http_weir_policy_name(p, ctx, i);
        p = ngx_sprintf(p, ";q=%L;w=%L", ngx_http_weir_integer(limit->amount),
                        limit->period_ns / 1000000000);
    }

    return p;
}

static ngx_int_t ngx_http_weir_add_draft(ngx_http_request_t *r, ngx_http_weir_ctx_t *ctx) {
    u_char *p;
    int64_t wait;
    ngx_str_t value;

    static ngx_str_t policy = ngx_string("RateLimit-Policy");
    static ngx_str_t ratelimit = ngx_string("RateLimit");

    if (ngx_http_weir_has_header(r, &policy)) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool,
                    (ctx->set->n + 1) * (NGX_HTTP_WEIR_LIMIT_TEXT + 3 * NGX_INT64_LEN + 16));
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    p = ngx_http_weir_policies(p, ctx);
    value.len = p - value.data;

    if (ngx_http_weir_add_header(r, &policy, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    wait = ctx->verdict.retry_after_ns;

    if (ctx->verdict.allowed || wait == WEIR_NEVER) {
        wait = ngx_max(ctx->verdict.reset_at_ns - ctx->now, 0);
    }

    value.data = p;

    p = ngx_http_weir_policy_name(p, ctx, ctx->deciding);
    p = ngx_sprintf(p, ";r=%L;t=%L", ngx_http_weir_integer(ctx->verdict.remaining),
                    wait / 1000000000 + (wait % 1000000000 != 0));

    value.len = p - value.data;

    return ngx_http_weir_add_header(r, &ratelimit, &value);
}

static ngx_int_t ngx_http_weir_header_filter(ngx_http_request_t *r) {
    int64_t wait;
    ngx_int_t rc;
    ngx_http_weir_ctx_t *ctx;

    static ngx_str_t retry_after = ngx_string("Retry-After");

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_weir_get_ctx(r);

    if (ctx == NULL || (ctx->headers == NGX_HTTP_WEIR_HEADERS_OFF && !ngx_http_weir_refused(ctx))) {
        return ngx_http_next_header_filter(r);
    }

    rc = NGX_OK;

    if (ctx->set && ctx->headers == NGX_HTTP_WEIR_HEADERS_LEGACY) {
        rc = ngx_http_weir_add_legacy(r, ctx);

    } else if (ctx->set && ctx->headers == NGX_HTTP_WEIR_HEADERS_DRAFT) {
        rc = ngx_http_weir_add_draft(r, ctx);
    }

    if (rc == NGX_OK &&
        (ngx_http_weir_refused(ctx) || ctx->headers == NGX_HTTP_WEIR_HEADERS_LEGACY) &&
        !ngx_http_weir_has_header(r, &retry_after)) {
        wait = ngx_http_weir_wait(ctx);

        if (wait >= 0) {
            rc = ngx_http_weir_add_number(r, &retry_after, wait);
        }
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}

void ngx_http_weir_add_filter(void) {
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_weir_header_filter;
}

static ngx_int_t ngx_http_weir_status_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                                               uintptr_t data) {
    ngx_http_weir_ctx_t *ctx;

    ctx = ngx_http_weir_get_ctx(r);

    if (ctx == NULL || ctx->status == NGX_HTTP_WEIR_NONE) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = ngx_http_weir_status[ctx->status].len;
    v->data = ngx_http_weir_status[ctx->status].data;

    return NGX_OK;
}

static ngx_int_t ngx_http_weir_number_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                                               uintptr_t data) {
    int64_t n;
    ngx_http_weir_ctx_t *ctx;

    ctx = ngx_http_weir_get_ctx(r);

    if (ctx == NULL || (ctx->set == NULL && (data != NGX_HTTP_WEIR_RETRY_AFTER ||
                                             ctx->status != NGX_HTTP_WEIR_BLOCKED))) {
        v->not_found = 1;
        return NGX_OK;
    }

    switch (data) {

    case NGX_HTTP_WEIR_REMAINING:
        n = ctx->verdict.remaining;
        break;

    case NGX_HTTP_WEIR_LIMIT:
        n = ctx->verdict.limit;
        break;

    default: /* NGX_HTTP_WEIR_RETRY_AFTER */
        n = ctx->verdict.allowed ? 0 : ngx_http_weir_wait(ctx);
    }

    if (n < 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    v->len = ngx_sprintf(v->data, "%L", n) - v->data;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}

static ngx_int_t ngx_http_weir_client_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
                                               uintptr_t data) {
    ngx_str_t name;
    ngx_http_weir_loc_conf_t *wlcf;

    wlcf = ngx_http_get_module_loc_conf(r, ngx_http_weir_module);

    if (ngx_http_weir_address(r, wlcf->ipv6_prefix, &name) != NGX_OK) {
        return NGX_ERROR;
    }

    v->len = name.len;
    v->data = name.data;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}

static ngx_http_variable_t ngx_http_weir_vars[] = {

    {ngx_string("weir_status"), NULL, ngx_http_weir_status_variable, 0, NGX_HTTP_VAR_NOCACHEABLE,
     0},

    {ngx_string("weir_remaining"), NULL, ngx_http_weir_number_variable, NGX_HTTP_WEIR_REMAINING,
     NGX_HTTP_VAR_NOCACHEABLE, 0},

    {ngx_string("weir_retry_after"), NULL, ngx_http_weir_number_variable, NGX_HTTP_WEIR_RETRY_AFTER,
     NGX_HTTP_VAR_NOCACHEABLE, 0},

    {ngx_string("weir_limit"), NULL, ngx_http_weir_number_variable, NGX_HTTP_WEIR_LIMIT,
     NGX_HTTP_VAR_NOCACHEABLE, 0},

    {ngx_string("weir_client"), NULL, ngx_http_weir_client_variable, 0, NGX_HTTP_VAR_NOCACHEABLE,
     0},

    ngx_http_null_variable};

ngx_int_t ngx_http_weir_add_variables(ngx_conf_t *cf) {
    ngx_http_variable_t *var, *v;

    for (v = ngx_http_weir_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}
