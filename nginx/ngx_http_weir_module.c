
/* The module: its directives, its configuration, and the context of a request. */

#include "ngx_http_weir_conf.h"
#include "ngx_http_weir_headers.h"
#include "ngx_http_weir_request.h"
#include "ngx_http_weir_table.h"
#include "ngx_http_weir_zone.h"

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
