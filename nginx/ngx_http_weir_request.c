
/*
 * A request: one decision over all limits of its location, in the preaccess
 * phase.  As in limit_req, a request is decided once, whatever internal
 * redirects and subrequests follow, and one with an empty key is not counted.
 */

#include "ngx_http_weir_request.h"

#include <weir/rules.h>
#include <weir/stats.h>

#include "ngx_http_weir_ctx.h"
#include "ngx_http_weir_headers.h"
#include "ngx_http_weir_key.h"
#include "ngx_http_weir_table.h"

static ngx_int_t ngx_http_weir_match_rules(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                           ngx_http_weir_ctx_t *ctx);
static ngx_int_t ngx_http_weir_follow_rule(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                           ngx_http_weir_ctx_t *ctx,
                                           struct weir_decision *decision);
static ngx_int_t ngx_http_weir_decide(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      ngx_http_weir_ctx_t *ctx);
static ngx_int_t ngx_http_weir_reject(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      ngx_http_weir_ctx_t *ctx);
static void ngx_http_weir_delay(ngx_http_request_t *r);

ngx_int_t ngx_http_weir_handler(ngx_http_request_t *r) {
    ngx_int_t rc;
    ngx_time_t *tp;
    ngx_http_weir_ctx_t *ctx;
    ngx_http_weir_loc_conf_t *wlcf;
    ngx_http_weir_main_conf_t *wmcf;

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

    wmcf = ngx_http_get_module_main_conf(r, ngx_http_weir_module);

    if (wmcf->wcf->table) {
        ngx_weir_check_lost(r->connection->log, wmcf->wcf, ctx->now);
    }

    if (wlcf->rules && !ctx->matched) {
        rc = ngx_http_weir_match_rules(r, wlcf, ctx);
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

static ngx_int_t ngx_http_weir_match_rules(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
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
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "cannot look up the rules: %s",
                      weir_strerror(rc));
        return NGX_OK;
    }

    return ngx_http_weir_follow_rule(r, wlcf, ctx, &decision);
}

/* the client and the cost of a zone's limits; the key may be empty */

static ngx_int_t ngx_http_weir_ask_zone(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                        ngx_http_weir_zone_t *zone, struct weir_bytes *client,
                                        int64_t *cost) {
    if (ngx_http_weir_client(r, zone, wlcf->ipv6_prefix, client) != NGX_OK) {
        return NGX_ERROR;
    }

    *cost = client->len && zone->cost ? ngx_http_weir_cost(r, zone) : 1;

    return *cost < 0 ? NGX_ERROR : NGX_OK;
}

/* NGX_DECLINED: all keys are empty */

static ngx_int_t ngx_http_weir_gather(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      struct weir_request *request, struct weir_bytes *clients,
                                      int64_t *costs) {
    int64_t cost;
    uint32_t parts;
    ngx_uint_t i, j, n;
    struct weir_bytes client;
    ngx_http_weir_set_t *set;
    ngx_http_weir_use_t *use;

    set = wlcf->set;
    use = set->uses.elts;
    n = 0;
    parts = 0;

    for (i = 0; i < set->uses.nelts; i++) {

        if (ngx_http_weir_ask_zone(r, wlcf, use[i].zone, &client, &cost) != NGX_OK) {
            return NGX_ERROR;
        }

        for (j = 0; j < use[i].zone->rates.nelts; j++) {
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

/* counts a dry run: its denials as shadow */

static void ngx_http_weir_record(ngx_http_request_t *r, struct weir_table *table,
                                 ngx_http_weir_set_t *set, struct weir_request *request,
                                 struct weir_verdict *verdicts, ngx_uint_t denied) {
    int i, n;
    char *buf;
    size_t need;
    uint8_t part[WEIR_CHECKS_MAX];
    struct weir_check checks[WEIR_CHECKS_MAX];
    struct weir_verdict part_verdicts[WEIR_CHECKS_MAX];

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
        part_verdicts[i] = verdicts[part[i]];
    }

    (void)weir_stats_record(table, checks, n, request->now_ns, part_verdicts, denied);
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

/* holds the request back for `delay` ms */

static ngx_int_t ngx_http_weir_start_delay(ngx_http_request_t *r, ngx_msec_t delay) {

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

/* lets an allowed request pass, at once or later */

static ngx_int_t ngx_http_weir_pass(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                    ngx_http_weir_ctx_t *ctx, struct weir_verdict *verdicts) {
    ngx_msec_t delay;
    ngx_uint_t longest;
    ngx_http_weir_part_t *part;

    ctx->status = NGX_HTTP_WEIR_PASSED;
    ctx->headers = wlcf->dry_run ? NGX_HTTP_WEIR_HEADERS_OFF : wlcf->headers;

    longest = 0;
    delay = ngx_http_weir_delay_of(ctx->set, ctx->took_part, verdicts, &longest);

    if (!delay) {
        return NGX_DECLINED;
    }

    part = &ctx->set->parts[longest];

    ngx_log_error(wlcf->delay_log_level, r->connection->log, 0,
                  "delaying request%s, %M ms, by limit \"%*s\" of zone \"%V\"",
                  wlcf->dry_run ? ", dry run" : "", delay, part->rate->len, part->rate->text,
                  &part->use->zone->name);

    if (wlcf->dry_run) {
        ctx->status = NGX_HTTP_WEIR_DELAYED_DRY_RUN;
        return NGX_DECLINED;
    }

    ctx->status = NGX_HTTP_WEIR_DELAYED;

    return ngx_http_weir_start_delay(r, delay);
}

/* applies a rule about the client */

static ngx_int_t ngx_http_weir_follow_rule(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                           ngx_http_weir_ctx_t *ctx,
                                           struct weir_decision *decision) {
    if (decision->allowed) {
        ctx->status = NGX_HTTP_WEIR_ALLOWED;
        return NGX_DECLINED;
    }

    ctx->status = NGX_HTTP_WEIR_BLOCKED;

    return ngx_http_weir_reject(r, wlcf, ctx);
}

static ngx_int_t ngx_http_weir_decide(ngx_http_request_t *r, ngx_http_weir_loc_conf_t *wlcf,
                                      ngx_http_weir_ctx_t *ctx) {
    int rc;
    int64_t costs[WEIR_CHECKS_MAX];
    struct weir_bytes clients[WEIR_CHECKS_MAX];
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_request request;
    struct weir_decision decision;
    struct weir_prepared *check;
    ngx_http_weir_main_conf_t *wmcf;

    check = wlcf->dry_run ? wlcf->set->dry : wlcf->set->live;

    ngx_memzero(&request, sizeof(struct weir_request));

    rc = ngx_http_weir_gather(r, wlcf, &request, clients, costs);
    if (rc != NGX_OK) {
        return rc == NGX_DECLINED ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    request.now_ns = ctx->now;

    wmcf = ngx_http_get_module_main_conf(r, ngx_http_weir_module);

    rc = weir_decide_prepared(wmcf->wcf->table, check, &request, verdicts, &decision);
    if (rc != 0) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "cannot decide the limits, so the request passes: %s", weir_strerror(rc));
        ctx->status = NGX_HTTP_WEIR_ERROR;
        return NGX_DECLINED;
    }

    ctx->verdict = verdicts[decision.deciding];

    if (decision.rule != WEIR_RULE_NONE) {
        return ngx_http_weir_follow_rule(r, wlcf, ctx, &decision);
    }

    ctx->set = wlcf->set;
    ctx->took_part = request.parts;
    ctx->deciding = decision.deciding;
    ctx->status = wlcf->dry_run ? NGX_HTTP_WEIR_REJECTED_DRY_RUN : NGX_HTTP_WEIR_REJECTED;

    if (wlcf->dry_run) {
        ngx_http_weir_record(r, wmcf->wcf->table, ctx->set, &request, verdicts, !decision.allowed);
    }

    return decision.allowed ? ngx_http_weir_pass(r, wlcf, ctx, verdicts)
                            : ngx_http_weir_reject(r, wlcf, ctx);
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
