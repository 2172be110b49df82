
/*
 * A request: one decision over all limits of its location, before anything is
 * done for it.  As in limit_req, a request is decided once, whatever internal
 * redirects and subrequests follow, and one with an empty key is not counted.
 */

#include "ngx_http_weir.h"

static ngx_int_t ngx_http_weir_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_weir_evaluate(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                        ngx_http_weir_ctx_t *ctx);
static ngx_int_t ngx_http_weir_decide(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      ngx_http_weir_ctx_t *ctx);
static ngx_int_t ngx_http_weir_reject(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      ngx_http_weir_ctx_t *ctx);
static void ngx_http_weir_delay(ngx_http_request_t *r);
static void ngx_http_weir_cleanup(void *data);

static ngx_int_t ngx_http_weir_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_weir_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_weir_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_weir_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child);
static ngx_int_t ngx_http_weir_init(ngx_conf_t *cf);

static ngx_conf_enum_t ngx_http_weir_log_levels[] = {{ngx_string("info"), NGX_LOG_INFO},
                                                     {ngx_string("notice"), NGX_LOG_NOTICE},
                                                     {ngx_string("warn"), NGX_LOG_WARN},
                                                     {ngx_string("error"), NGX_LOG_ERR},
                                                     {ngx_null_string, 0}};

static ngx_conf_enum_t ngx_http_weir_headers[] = {
    {ngx_string("off"), NGX_HTTP_WEIR_HEADERS_OFF},
    {ngx_string("x-ratelimit"), NGX_HTTP_WEIR_HEADERS_LEGACY},
    {ngx_string("draft-11"), NGX_HTTP_WEIR_HEADERS_DRAFT},
    {ngx_null_string, 0}};

static ngx_conf_num_bounds_t ngx_http_weir_status_bounds = {ngx_conf_check_num_bounds, 400, 599};

static ngx_conf_num_bounds_t ngx_http_weir_prefix_bounds = {ngx_conf_check_num_bounds, 0, 128};

static ngx_command_t ngx_http_weir_commands[] = {

    {ngx_string("weir_table"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, ngx_weir_table, 0, 0, NULL},

    {ngx_string("weir_limit_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_2MORE, ngx_http_weir_limit_zone,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},

    {ngx_string("weir_limit"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_1MORE,
     ngx_http_weir_limit, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},

    {ngx_string("weir_limit_status"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_conf_set_num_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(ngx_http_weir_loc_conf_t, status_code), &ngx_http_weir_status_bounds},

    {ngx_string("weir_limit_log_level"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_conf_set_enum_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(ngx_http_weir_loc_conf_t, limit_log_level), &ngx_http_weir_log_levels},

    {ngx_string("weir_limit_dry_run"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_FLAG,
     ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET, offsetof(ngx_http_weir_loc_conf_t, dry_run),
     NULL},

    {ngx_string("weir_headers"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_conf_set_enum_slot, NGX_HTTP_LOC_CONF_OFFSET, offsetof(ngx_http_weir_loc_conf_t, headers),
     &ngx_http_weir_headers},

    {ngx_string("weir_ipv6_prefix"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1,
     ngx_conf_set_num_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(ngx_http_weir_loc_conf_t, ipv6_prefix), &ngx_http_weir_prefix_bounds},

    {ngx_string("weir_rules"),
     NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_FLAG,
     ngx_http_weir_rules, NGX_HTTP_LOC_CONF_OFFSET, offsetof(ngx_http_weir_loc_conf_t, rules),
     NULL},

    ngx_null_command};

static ngx_http_module_t ngx_http_weir_module_ctx = {
    ngx_http_weir_preconfiguration, /* preconfiguration */
    ngx_http_weir_init,             /* postconfiguration */

    ngx_http_weir_create_main_conf, /* create main configuration */
    NULL,                           /* init main configuration */

    NULL, /* create server configuration */
    NULL, /* merge server configuration */

    ngx_http_weir_create_loc_conf, /* create location configuration */
    ngx_http_weir_merge_loc_conf   /* merge location configuration */
};

ngx_module_t ngx_http_weir_module = {NGX_MODULE_V1,
                                     &ngx_http_weir_module_ctx, /* module context */
                                     ngx_http_weir_commands,    /* module directives */
                                     NGX_HTTP_MODULE,           /* module type */
                                     NULL,                      /* init master */
                                     NULL,                      /* init module */
                                     NULL,                      /* init process */
                                     NULL,                      /* init thread */
                                     NULL,                      /* exit thread */
                                     NULL,                      /* exit process */
                                     NULL,                      /* exit master */
                                     NGX_MODULE_V1_PADDING};

/* an internal redirect clears the contexts, but not the pool */

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

static ngx_http_weir_ctx_t *ngx_http_weir_make_ctx(ngx_http_request_t *r) {
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

/* there is nothing to do: it marks the context */

static void ngx_http_weir_cleanup(void *data) {
}

static ngx_int_t ngx_http_weir_handler(ngx_http_request_t *r) {
    ngx_int_t rc;
    ngx_time_t *tp;
    ngx_http_weir_ctx_t *ctx;
    ngx_http_weir_loc_conf_t *wlcf;

    wlcf = ngx_http_get_module_loc_conf(r, ngx_http_weir_module);

    if (wlcf->set == NULL && !wlcf->rules) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_weir_get_ctx(r);

    if (ctx == NULL) {
        ctx = ngx_http_weir_make_ctx(r);
        if (ctx == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ctx->status != NGX_HTTP_WEIR_NONE) {
        return NGX_DECLINED;
    }

    tp = ngx_timeofday();
    ctx->now = ((int64_t)tp->sec * 1000 + tp->msec) * 1000000;

    if (wlcf->rules && !ctx->matched) {
        rc = ngx_http_weir_evaluate(r, wlcf, ctx);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (wlcf->set == NULL) {
        return NGX_DECLINED;
    }

    return ngx_http_weir_decide(r, wlcf, ctx);
}

/* the rules about the client's address, before any limit */

static ngx_int_t ngx_http_weir_evaluate(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                        ngx_http_weir_ctx_t *ctx) {
    int rc;
    struct weir_check check;
    struct weir_decision decision;
    ngx_http_weir_main_conf_t *wmcf;

    static const struct weir_limit any = {.amount = 1,
                                          .period_ns = 1000000000,
                                          .multiples = 1,
                                          .unit = WEIR_SECOND,
                                          .strategy = WEIR_FIXED_WINDOW};

    ctx->matched = 1;

    wmcf = ngx_http_get_module_main_conf(r, ngx_http_weir_module);

    ngx_memzero(&check, sizeof(struct weir_check));

    check.limit = &any;
    check.key = r->connection->addr_text.data;
    check.key_len = r->connection->addr_text.len;
    check.client = check.key;
    check.client_len = check.key_len;
    check.cost = 1;

    rc = weir_rules_match(wmcf->wcf->table, &check, 1, ctx->now, &ctx->verdict, &decision);
    if (rc == 0) {
        return NGX_OK;
    }

    if (rc < 0) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "the rules cannot be asked: %s",
                      weir_strerror(rc));
        return NGX_OK;
    }

    if (decision.allowed) {
        ctx->status = NGX_HTTP_WEIR_ALLOWED;
        return NGX_DECLINED;
    }

    ctx->status = NGX_HTTP_WEIR_BLOCKED;

    return ngx_http_weir_reject(r, wlcf, ctx);
}

/* who asks each zone; how many parts of the decision have somebody */

static ngx_int_t ngx_http_weir_gather(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      struct weir_request *request, struct weir_bytes *clients,
                                      int64_t *costs) {
    int64_t cost;
    uint32_t parts;
    ngx_uint_t i, j, n;
    struct weir_bytes client;
    ngx_http_weir_set_t *set;
    ngx_http_weir_use_t *use;
    ngx_http_weir_zone_t *zone;

    set = wlcf->set;
    use = set->uses.elts;
    n = 0;
    parts = 0;

    for (i = 0; i < set->uses.nelts; i++) {
        zone = use[i].zone;

        if (ngx_http_weir_client(r, zone, wlcf->ipv6_prefix, &client) != NGX_OK) {
            return NGX_ERROR;
        }

        cost = 1;

        if (client.len && zone->cost) {
            cost = ngx_http_weir_cost(r, zone);
            if (cost < 0) {
                return NGX_ERROR;
            }
        }

        for (j = 0; j < zone->rates.nelts; j++) {
            clients[n] = client;
            costs[n] = cost;

            if (client.len) {
                parts |= (uint32_t)1 << n;
            }

            n++;
        }
    }

    request->parts = parts;
    request->mode = WEIR_HIT;
    request->clients = clients;

    if (set->costs) {
        request->costs = costs;
    }

    return parts ? NGX_OK : NGX_DECLINED;
}

/* a dry run is counted as what it is */

static void ngx_http_weir_note(ngx_http_request_t *r, struct weir_table *table,
                               ngx_http_weir_set_t *set, struct weir_request *request,
                               struct weir_verdict *verdicts, ngx_uint_t denied) {
    int i, n;
    char *buf;
    size_t need;
    uint8_t part[WEIR_CHECKS_MAX];
    struct weir_check checks[WEIR_CHECKS_MAX];
    struct weir_verdict said[WEIR_CHECKS_MAX];

    need = 0;

    n = weir_prepared_checks(set->live, request, 0, NULL, 0, checks, part, &need);

    if (n == WEIR_ENOSPC) {
        buf = ngx_pnalloc(r->pool, need);
        if (buf == NULL) {
            return;
        }

        n = weir_prepared_checks(set->live, request, 0, buf, need, checks, part, &need);
    }

    if (n <= 0) {
        return;
    }

    for (i = 0; i < n; i++) {
        said[i] = verdicts[part[i]];
    }

    (void)weir_stats_record(table, checks, n, request->now_ns, said, denied);
}

static ngx_msec_t ngx_http_weir_delay_of(ngx_http_weir_set_t *set, uint32_t parts,
                                         struct weir_verdict *verdicts, ngx_uint_t *longest) {
    int64_t delay, most;
    ngx_uint_t i;
    ngx_http_weir_part_t *part;

    most = 0;

    for (i = 0; i < set->n; i++) {
        part = &set->parts[i];

        if (!(parts & ((uint32_t)1 << i)) || part->use->nodelay) {
            continue;
        }

        delay = verdicts[i].delay_ns - part->tolerated;

        if (delay > most) {
            most = delay;
            *longest = i;
        }
    }

    return (ngx_msec_t)((most + 999999) / 1000000);
}

static ngx_int_t ngx_http_weir_decide(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      ngx_http_weir_ctx_t *ctx) {
    int rc;
    int64_t costs[WEIR_CHECKS_MAX];
    ngx_msec_t delay;
    ngx_uint_t longest;
    struct weir_bytes clients[WEIR_CHECKS_MAX];
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_request request;
    struct weir_decision decision;
    ngx_http_weir_set_t *set;
    ngx_http_weir_part_t *part;
    ngx_http_weir_main_conf_t *wmcf;

    set = wlcf->set;

    ngx_memzero(&request, sizeof(struct weir_request));

    rc = ngx_http_weir_gather(r, wlcf, &request, clients, costs);

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc == NGX_DECLINED) {
        return NGX_DECLINED;
    }

    request.now_ns = ctx->now;

    wmcf = ngx_http_get_module_main_conf(r, ngx_http_weir_module);

    rc = weir_decide_prepared(wmcf->wcf->table, wlcf->dry_run ? set->dry : set->live, &request,
                              verdicts, &decision);

    if (rc != 0) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "the limits cannot be asked, the request passes: %s", weir_strerror(rc));
        ctx->status = NGX_HTTP_WEIR_ERROR;
        return NGX_DECLINED;
    }

    ctx->set = set;
    ctx->took_part = request.parts;
    ctx->deciding = decision.deciding;
    ctx->verdict = verdicts[decision.deciding];

    if (decision.rule != WEIR_RULE_NONE) {
        ctx->set = NULL;

        if (decision.allowed) {
            ctx->status = NGX_HTTP_WEIR_ALLOWED;
            return NGX_DECLINED;
        }

        ctx->status = NGX_HTTP_WEIR_BLOCKED;
        return ngx_http_weir_reject(r, wlcf, ctx);
    }

    if (wlcf->dry_run) {
        ngx_http_weir_note(r, wmcf->wcf->table, set, &request, verdicts, !decision.allowed);
    }

    if (!decision.allowed) {
        ctx->status = wlcf->dry_run ? NGX_HTTP_WEIR_REJECTED_DRY_RUN : NGX_HTTP_WEIR_REJECTED;
        return ngx_http_weir_reject(r, wlcf, ctx);
    }

    ctx->status = NGX_HTTP_WEIR_PASSED;
    ctx->headers = wlcf->dry_run ? NGX_HTTP_WEIR_HEADERS_OFF : wlcf->headers;

    longest = 0;
    delay = ngx_http_weir_delay_of(set, request.parts, verdicts, &longest);

    if (!delay) {
        return NGX_DECLINED;
    }

    part = &set->parts[longest];

    ngx_log_error(wlcf->delay_log_level, r->connection->log, 0,
                  "delaying request%s, %M ms, by limit \"%*s\" of zone \"%V\"",
                  wlcf->dry_run ? ", dry run" : "", delay, part->rate->len, part->rate->text,
                  &part->use->zone->name);

    if (wlcf->dry_run) {
        ctx->status = NGX_HTTP_WEIR_DELAYED_DRY_RUN;
        return NGX_DECLINED;
    }

    ctx->status = NGX_HTTP_WEIR_DELAYED;

    if (r->connection->read->ready) {
        ngx_post_event(r->connection->read, &ngx_posted_events);

    } else if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_weir_delay;

    r->connection->write->delayed = 1;
    ngx_add_timer(r->connection->write, delay);

    return NGX_AGAIN;
}

static ngx_int_t ngx_http_weir_reject(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      ngx_http_weir_ctx_t *ctx) {
    ngx_http_weir_part_t *part;

    if (ctx->status == NGX_HTTP_WEIR_BLOCKED) {
        ngx_log_error(wlcf->limit_log_level, r->connection->log, 0,
                      "refusing request of a blocked client");

    } else {
        part = &ctx->set->parts[ctx->deciding];

        ngx_log_error(wlcf->limit_log_level, r->connection->log, 0,
                      "limiting requests%s, by limit \"%*s\" of zone \"%V\", "
                      "retry after %L s",
                      ctx->status == NGX_HTTP_WEIR_REJECTED ? "" : ", dry run", part->rate->len,
                      part->rate->text, &part->use->zone->name, ngx_http_weir_wait(ctx));
    }

    if (ctx->status == NGX_HTTP_WEIR_REJECTED_DRY_RUN) {
        return NGX_DECLINED;
    }

    ctx->headers = wlcf->headers;

    return wlcf->status_code;
}

static void ngx_http_weir_delay(ngx_http_request_t *r) {
    ngx_event_t *wev;

    wev = r->connection->write;

    if (wev->delayed) {

        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        }

        return;
    }

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);
}

static ngx_int_t ngx_http_weir_preconfiguration(ngx_conf_t *cf) {
    return ngx_http_weir_add_variables(cf);
}

static void *ngx_http_weir_create_main_conf(ngx_conf_t *cf) {
    ngx_http_weir_main_conf_t *wmcf;

    wmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_weir_main_conf_t));
    if (wmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&wmcf->zones, cf->pool, 4, sizeof(ngx_http_weir_zone_t *)) != NGX_OK ||
        ngx_array_init(&wmcf->sets, cf->pool, 4, sizeof(ngx_http_weir_set_t *)) != NGX_OK) {
        return NULL;
    }

    return wmcf;
}

static void *ngx_http_weir_create_loc_conf(ngx_conf_t *cf) {
    ngx_http_weir_loc_conf_t *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_http_weir_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->set = NGX_CONF_UNSET_PTR;
    conf->limit_log_level = NGX_CONF_UNSET_UINT;
    conf->status_code = NGX_CONF_UNSET_UINT;
    conf->headers = NGX_CONF_UNSET_UINT;
    conf->ipv6_prefix = NGX_CONF_UNSET_UINT;
    conf->dry_run = NGX_CONF_UNSET;
    conf->rules = NGX_CONF_UNSET;

    return conf;
}

static char *ngx_http_weir_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child) {
    ngx_http_weir_loc_conf_t *prev = parent;
    ngx_http_weir_loc_conf_t *conf = child;

    ngx_conf_merge_ptr_value(conf->set, prev->set, NULL);

    ngx_conf_merge_uint_value(conf->limit_log_level, prev->limit_log_level, NGX_LOG_ERR);

    conf->delay_log_level =
        (conf->limit_log_level == NGX_LOG_INFO) ? NGX_LOG_INFO : conf->limit_log_level + 1;

    ngx_conf_merge_uint_value(conf->status_code, prev->status_code, NGX_HTTP_TOO_MANY_REQUESTS);

    ngx_conf_merge_uint_value(conf->headers, prev->headers, NGX_HTTP_WEIR_HEADERS_OFF);

    ngx_conf_merge_uint_value(conf->ipv6_prefix, prev->ipv6_prefix, 64);

    ngx_conf_merge_value(conf->dry_run, prev->dry_run, 0);

    ngx_conf_merge_value(conf->rules, prev->rules, 0);

    return NGX_CONF_OK;
}

static ngx_int_t ngx_http_weir_init(ngx_conf_t *cf) {
    ngx_http_handler_pt *h;
    ngx_http_core_main_conf_t *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_weir_handler;

    ngx_http_weir_add_filter();

    return ngx_http_weir_check_conf(cf);
}
