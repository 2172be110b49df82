
/*
 * ngx_http_weir_module: the types that its files share.
 *
 *   ngx_weir_module.c        opens the table before the workers start
 *   ngx_http_weir_module.c   directives and configuration
 *   ngx_http_weir_request.c  a request: decide, reject, delay
 *   ngx_http_weir_headers.c  response headers and variables
 *   ngx_http_weir_table.c    weir_table, and a table whose file is lost
 *   ngx_http_weir_conf.c     weir_limit, weir_rules, prepared checks
 *   ngx_http_weir_zone.c     weir_limit_zone
 *   ngx_http_weir_key.c      the client of a request, in the form of weir.flask
 *   ngx_http_weir_ctx.c      the context of a request
 *   ngx_http_weir_args.c     the arguments of directives
 *
 * Calls go down in this list; script/layering checks it.
 */

#ifndef _NGX_HTTP_WEIR_H_INCLUDED_
#define _NGX_HTTP_WEIR_H_INCLUDED_

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <weir/weir.h>

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

/* The address of a module's variable is the key to its configuration and contexts. */

extern ngx_module_t ngx_weir_module;
extern ngx_module_t ngx_http_weir_module;

#endif /* _NGX_HTTP_WEIR_H_INCLUDED_ */
