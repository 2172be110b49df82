
/*
 * ngx_http_weir_module: declarations that its files share.
 *
 *   ngx_weir_module.c        weir_table: opens the table before the workers start
 *   ngx_http_weir_module.c   directives, configuration, the context of a request
 *   ngx_http_weir_zone.c     weir_limit_zone
 *   ngx_http_weir_conf.c     weir_limit, weir_rules, prepared checks
 *   ngx_http_weir_key.c      the client of a request, in the form of weir.flask
 *   ngx_http_weir_request.c  a request: decide, reject, delay
 *   ngx_http_weir_headers.c  response headers and variables
 */

#ifndef _NGX_HTTP_WEIR_H_INCLUDED_
#define _NGX_HTTP_WEIR_H_INCLUDED_

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <weir/weir.h>
#include <weir/lost.h>
#include <weir/stats.h>
#include <weir/rules.h>

#define NGX_HTTP_WEIR_NONE 0
#define NGX_HTTP_WEIR_PASSED 1
#define NGX_HTTP_WEIR_DELAYED 2
#define NGX_HTTP_WEIR_REJECTED 3
#define NGX_HTTP_WEIR_DELAYED_DRY_RUN 4
#define NGX_HTTP_WEIR_REJECTED_DRY_RUN 5
#define NGX_HTTP_WEIR_BLOCKED 6
#define NGX_HTTP_WEIR_ALLOWED 7
#define NGX_HTTP_WEIR_ERROR 8

#define NGX_HTTP_WEIR_HEADERS_OFF 0
#define NGX_HTTP_WEIR_HEADERS_LEGACY 1
#define NGX_HTTP_WEIR_HEADERS_DRAFT 2

#define NGX_HTTP_WEIR_LIMIT_TEXT 96 /* weir_limit_print() */

/* the longest text of an IPv6 network and its prefix length */
#define NGX_HTTP_WEIR_ADDR_TEXT (NGX_INET6_ADDRSTRLEN + 4)

/* a line of the configuration */

typedef struct {
    ngx_str_t file;
    ngx_uint_t line;
} ngx_http_weir_place_t;

typedef struct {
    ngx_str_t uri; /* NUL-terminated; empty: none */
    ngx_http_weir_place_t place;
    struct weir_table *table;
    int64_t checked; /* when the file of the table was last checked */
    ngx_uint_t lost; /* its file is lost, and there is no new one yet */
} ngx_weir_conf_t;

typedef struct {
    struct weir_limit limit;
    u_char text[NGX_HTTP_WEIR_LIMIT_TEXT];
    size_t len; /* of text */
} ngx_http_weir_rate_t;

typedef struct {
    ngx_str_t name;
    ngx_http_weir_place_t place; /* of its first use */
    ngx_http_complex_value_t key;
    ngx_http_complex_value_t *cost;
    ngx_str_t before;     /* of a key: what precedes the client */
    ngx_str_t after;      /* of a key: what follows the client */
    ngx_array_t rates;    /* ngx_http_weir_rate_t; none: undefined */
    unsigned address : 1; /* the key is the client's address */
} ngx_http_weir_zone_t;

/* a zone in a "weir_limit" */

typedef struct {
    ngx_http_weir_zone_t *zone;
    ngx_uint_t tolerated; /* requests that pass before any is delayed */
    unsigned nodelay : 1;
    unsigned peek : 1;
} ngx_http_weir_use_t;

/* one limit of a decision */

typedef struct {
    ngx_http_weir_use_t *use;
    ngx_http_weir_rate_t *rate;
    int64_t tolerated; /* in nanoseconds */
} ngx_http_weir_part_t;

/* the limits of a level of the configuration; inner levels may inherit them */

typedef struct {
    ngx_array_t uses; /* ngx_http_weir_use_t */
    ngx_http_weir_place_t place;
    ngx_uint_t n; /* parts */
    ngx_http_weir_part_t *parts;
    struct weir_prepared *live;
    struct weir_prepared *dry; /* without labels: ngx_http_weir_record() counts */
    unsigned costs : 1;        /* some zone has a cost= */
} ngx_http_weir_set_t;

typedef struct {
    ngx_array_t zones; /* ngx_http_weir_zone_t * */
    ngx_array_t sets;  /* ngx_http_weir_set_t * */
    ngx_weir_conf_t *wcf;
    ngx_http_weir_place_t rules; /* of the first "weir_rules on" */
} ngx_http_weir_main_conf_t;

typedef struct {
    ngx_http_weir_set_t *set;
    ngx_uint_t limit_log_level;
    ngx_uint_t delay_log_level;
    ngx_uint_t status_code;
    ngx_uint_t headers;
    ngx_uint_t ipv6_prefix;
    ngx_flag_t dry_run;
    ngx_flag_t rules;
} ngx_http_weir_loc_conf_t;

/* of a main request: its decision */

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

ngx_http_weir_ctx_t *ngx_http_weir_get_ctx(ngx_http_request_t *r);
ngx_http_weir_ctx_t *ngx_http_weir_make_ctx(ngx_http_request_t *r);
ngx_int_t ngx_http_weir_handler(ngx_http_request_t *r);

void ngx_http_weir_place(ngx_conf_t *cf, ngx_http_weir_place_t *place);
char *ngx_weir_table(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_weir_check_lost(ngx_log_t *log, ngx_weir_conf_t *wcf, int64_t now);
ngx_int_t ngx_http_weir_arg(ngx_str_t *value, char *name, ngx_str_t *rest);
char *ngx_http_weir_zone_name(ngx_conf_t *cf, ngx_str_t *name, ngx_http_weir_zone_t **zone);
char *ngx_http_weir_limit_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_weir_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_weir_rules(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_weir_check_conf(ngx_conf_t *cf);
ngx_int_t ngx_http_weir_prepare(ngx_cycle_t *cycle, struct weir_table *table);
void ngx_http_weir_relabel(ngx_cycle_t *cycle, struct weir_table *table);

ngx_int_t ngx_http_weir_is_address(ngx_str_t *value);
ngx_int_t ngx_http_weir_address(ngx_http_request_t *r, ngx_uint_t prefix, ngx_str_t *name);
ngx_int_t ngx_http_weir_client(ngx_http_request_t *r, ngx_http_weir_zone_t *zone, ngx_uint_t prefix,
                               struct weir_bytes *client);
int64_t ngx_http_weir_cost(ngx_http_request_t *r, ngx_http_weir_zone_t *zone);

int64_t ngx_http_weir_wait(ngx_http_weir_ctx_t *ctx);
ngx_int_t ngx_http_weir_add_variables(ngx_conf_t *cf);
void ngx_http_weir_add_filter(void);

extern ngx_module_t ngx_weir_module;
extern ngx_module_t ngx_http_weir_module;

#endif /* _NGX_HTTP_WEIR_H_INCLUDED_ */
