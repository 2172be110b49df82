
/*
 * The directive weir_limit_zone: limits, and the key they count by.
 *
 * A zone may be used before it is defined, as in limit_req.
 */

#include "ngx_http_weir_zone.h"

#include "ngx_http_weir_args.h"
#include "ngx_http_weir_key.h"

/* the parameters of a zone's directive */

typedef struct {
    ngx_str_t limits;
    ngx_str_t scope;
    ngx_str_t prefix;
    ngx_int_t strategy; /* NGX_CONF_UNSET: not given */
    int64_t burst;      /* -1: not given */
    int64_t max_delay;  /* in nanoseconds; -1: not given */
} ngx_http_weir_zone_args_t;

static ngx_http_weir_zone_t *ngx_http_weir_get_zone(ngx_conf_t *cf, ngx_str_t *name);
static char *ngx_http_weir_zone_arg(ngx_conf_t *cf, ngx_str_t *value,
                                    ngx_http_weir_zone_args_t *args, ngx_http_weir_zone_t **zone,
                                    ngx_str_t *cost);
static char *ngx_http_weir_set_rates(ngx_conf_t *cf, ngx_http_weir_zone_t *zone,
                                     ngx_http_weir_zone_args_t *args);
static char *ngx_http_weir_set_key(ngx_conf_t *cf, ngx_http_weir_zone_t *zone,
                                   ngx_http_weir_zone_args_t *args, ngx_str_t *key,
                                   ngx_str_t *cost);

/*
 * weir_limit_zone key zone=name "limits" [strategy=name] [burst=number]
 *                 [cost=value] [max_delay=time] [scope=name] [prefix=name];
 */

char *ngx_http_weir_limit_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    char *rv;
    ngx_str_t *value, cost;
    ngx_uint_t i;
    ngx_http_weir_zone_t *zone;
    ngx_http_weir_zone_args_t args;

    ngx_memzero(&args, sizeof(ngx_http_weir_zone_args_t));
    args.strategy = NGX_CONF_UNSET;
    args.burst = -1;
    args.max_delay = -1;

    zone = NULL;
    ngx_str_null(&cost);

    value = cf->args->elts;

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_http_weir_zone_arg(cf, &value[i], &args, &zone, &cost);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (zone == NULL) {
        return "must have \"zone=NAME\" parameter";
    }

    if (args.limits.len == 0) {
        return "must have limits, as in \"10/minute; 1000/day\"";
    }

    if (zone->rates.nelts) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "zone \"%V\" is defined twice", &zone->name);
        return NGX_CONF_ERROR;
    }

    rv = ngx_http_weir_set_rates(cf, zone, &args);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_weir_set_key(cf, zone, &args, &value[1], &cost);
}

static ngx_http_weir_zone_t *ngx_http_weir_get_zone(ngx_conf_t *cf, ngx_str_t *name) {
    ngx_uint_t i;
    ngx_http_weir_zone_t *zone, **zones, **slot;
    ngx_http_weir_main_conf_t *wmcf;

    wmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_weir_module);

    zones = wmcf->zones.elts;

    for (i = 0; i < wmcf->zones.nelts; i++) {
        if (zones[i]->name.len == name->len &&
            ngx_memcmp(zones[i]->name.data, name->data, name->len) == 0) {
            return zones[i];
        }
    }

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_http_weir_zone_t));
    slot = ngx_array_push(&wmcf->zones);

    if (zone == NULL || slot == NULL) {
        return NULL;
    }

    zone->name = *name;
    ngx_http_weir_place(cf, &zone->place);
    *slot = zone;

    return zone;
}

char *ngx_http_weir_zone_name(ngx_conf_t *cf, ngx_str_t *name, ngx_http_weir_zone_t **zone) {
    if (name->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "a zone must have a name");
        return NGX_CONF_ERROR;
    }

    if (ngx_strlchr(name->data, name->data + name->len, ':')) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\": a zone has no size, all zones "
                           "share the table: \"weir_table shm://NAME keys=N\"",
                           name);
        return NGX_CONF_ERROR;
    }

    *zone = ngx_http_weir_get_zone(cf, name);

    return *zone == NULL ? NGX_CONF_ERROR : NGX_CONF_OK;
}

/* strategy=, burst= and max_delay=; NGX_DECLINED: another parameter */

static ngx_int_t ngx_http_weir_strategy_arg(ngx_conf_t *cf, ngx_str_t *value,
                                            ngx_http_weir_zone_args_t *args) {
    ngx_int_t n;
    ngx_str_t rest;

    if (ngx_http_weir_arg(value, "strategy=", &rest)) {
        n = weir_strategy_parse((char *)rest.data, rest.len);
        if (n < 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "unknown strategy \"%V\"", &rest);
            return NGX_ABORT;
        }

        args->strategy = n;
        return NGX_OK;
    }

    if (ngx_http_weir_arg(value, "burst=", &rest)) {
        args->burst = ngx_atoi(rest.data, rest.len);
        if (args->burst == NGX_ERROR) {
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    if (ngx_http_weir_arg(value, "max_delay=", &rest)) {
        n = ngx_parse_time(&rest, 0);
        if (n == NGX_ERROR || n > WEIR_PERIOD_MAX_NS / 1000000) {
            return NGX_ERROR;
        }

        args->max_delay = (int64_t)n * 1000000;
        return NGX_OK;
    }

    return NGX_DECLINED;
}

static char *ngx_http_weir_zone_arg(ngx_conf_t *cf, ngx_str_t *value,
                                    ngx_http_weir_zone_args_t *args, ngx_http_weir_zone_t **zone,
                                    ngx_str_t *cost) {
    ngx_int_t rc;
    ngx_str_t rest;

    if (ngx_http_weir_arg(value, "zone=", &rest)) {
        return ngx_http_weir_zone_name(cf, &rest, zone);
    }

    rc = ngx_http_weir_strategy_arg(cf, value, args);

    if (rc == NGX_OK) {
        return NGX_CONF_OK;
    }

    if (rc == NGX_ABORT) { /* logged */
        return NGX_CONF_ERROR;
    }

    if (rc == NGX_ERROR) {
        goto invalid;
    }

    if (ngx_http_weir_arg(value, "cost=", cost) ||
        ngx_http_weir_arg(value, "prefix=", &args->prefix) ||
        ngx_http_weir_arg(value, "scope=", &args->scope)) {
        if (ngx_strchr(value->data, '=')[1] == '\0') {
            goto invalid;
        }

        return NGX_CONF_OK;
    }

    if (args->limits.len || ngx_strlchr(value->data, value->data + value->len, '=')) {
        goto invalid;
    }

    args->limits = *value;

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"", value);

    return NGX_CONF_ERROR;
}

/*
 * The delay of a leaky bucket is at most its period.  To let "1/second" queue 20
 * requests, the limit becomes "20 per 20 seconds", which has the same rate.
 */

static ngx_int_t ngx_http_weir_widen(struct weir_limit *limit, int64_t max_delay) {
    int64_t times, amount, multiples;
    int32_t strategy;

    strategy = limit->strategy;

    if (max_delay > limit->period_ns) {
        times = (max_delay - 1) / limit->period_ns + 1;

        if (__builtin_mul_overflow(limit->amount, times, &amount) ||
            __builtin_mul_overflow(limit->multiples, times, &multiples) ||
            weir_limit_init(limit, amount, multiples, limit->unit, NULL) != 0) {
            return NGX_ERROR;
        }

        limit->strategy = strategy;
    }

    limit->max_delay_ns = max_delay;

    return NGX_OK;
}

static ngx_int_t ngx_http_weir_set_rate(struct weir_limit *limit, ngx_http_weir_zone_args_t *args) {
    int64_t max_delay;

    if (args->strategy != NGX_CONF_UNSET) {
        limit->strategy = (int32_t)args->strategy;

    } else if (args->max_delay != -1) {
        limit->strategy = weir_strategy_taking(WEIR_TAKES_MAX_DELAY);

    } else if (args->burst > 0) {
        limit->strategy = weir_strategy_taking(WEIR_TAKES_BURST);
    }

    if (!weir_strategy_takes(limit->strategy, WEIR_TAKES_MAX_DELAY)) {
        if (args->burst > 0) {
            limit->burst = args->burst;
        }

        return args->max_delay == -1 ? NGX_OK : NGX_ERROR;
    }

    if (args->max_delay != -1) {
        return ngx_http_weir_widen(limit, args->max_delay);
    }

    if (args->burst == -1 || limit->amount == 0) {
        return NGX_OK;
    }

    /* burst: the number of requests that may wait, as in limit_req */

    if (__builtin_mul_overflow(args->burst, limit->period_ns, &max_delay)) {
        return NGX_ERROR;
    }

    return ngx_http_weir_widen(limit, max_delay / limit->amount);
}

static char *ngx_http_weir_set_rates(ngx_conf_t *cf, ngx_http_weir_zone_t *zone,
                                     ngx_http_weir_zone_args_t *args) {
    size_t n, i;
    struct weir_error error;
    struct weir_limit limits[WEIR_CHECKS_MAX];
    ngx_http_weir_rate_t *rate;

    n = WEIR_CHECKS_MAX;

    if (weir_limit_parse_many((char *)args->limits.data, args->limits.len, limits, &n, &error) !=
        0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s", error.message);
        return NGX_CONF_ERROR;
    }

    if (ngx_array_init(&zone->rates, cf->pool, n, sizeof(ngx_http_weir_rate_t)) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 0; i < n; i++) {

        if (ngx_http_weir_set_rate(&limits[i], args) != NGX_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\": burst= must be in the range of its "
                               "limit, and max_delay= is for a strategy that delays",
                               &args->limits);
            return NGX_CONF_ERROR;
        }

        if (weir_limit_validate(&limits[i], &error) != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": %s", &args->limits, error.message);
            return NGX_CONF_ERROR;
        }

        rate = ngx_array_push(&zone->rates);
        rate->limit = limits[i];
        rate->len = weir_limit_print(&limits[i], (char *)rate->text, NGX_HTTP_WEIR_LIMIT_TEXT);
    }

    return NGX_CONF_OK;
}

/*
 * A key is LIMITER/[prefix/]client/scope, each part as weir.flask writes it.
 * The default scope is nginx:NAME, which cannot be the name of a Flask endpoint.
 */

static char *ngx_http_weir_set_scope(ngx_conf_t *cf, ngx_http_weir_zone_t *zone,
                                     ngx_http_weir_zone_args_t *args) {
    u_char *p;
    ngx_str_t scope;

    scope = args->scope;

    if (scope.len == 0) {
        scope.len = sizeof("nginx:") - 1 + zone->name.len;
        scope.data = ngx_pnalloc(cf->pool, scope.len);
        if (scope.data == NULL) {
            return NGX_CONF_ERROR;
        }

        p = ngx_cpymem(scope.data, "nginx:", sizeof("nginx:") - 1);
        ngx_memcpy(p, zone->name.data, zone->name.len);
    }

    p = ngx_pnalloc(cf->pool, sizeof("LIMITER//") + 2 * WEIR_IDENTIFIER_MAX + 1);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->before.data = p;
    p = ngx_cpymem(p, "LIMITER/", sizeof("LIMITER/") - 1);

    if (args->prefix.len) {
        p += weir_identifier(args->prefix.data, args->prefix.len, (char *)p);
        *p++ = '/';
    }

    zone->before.len = p - zone->before.data;

    zone->after.data = p;
    *p++ = '/';
    p += weir_identifier(scope.data, scope.len, (char *)p);
    zone->after.len = p - zone->after.data;

    return NGX_CONF_OK;
}

static char *ngx_http_weir_set_key(ngx_conf_t *cf, ngx_http_weir_zone_t *zone,
                                   ngx_http_weir_zone_args_t *args, ngx_str_t *key,
                                   ngx_str_t *cost) {
    ngx_http_compile_complex_value_t ccv;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = key;
    ccv.complex_value = &zone->key;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    zone->address = ngx_http_weir_is_address(key);

    if (cost->len) {
        zone->cost = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
        if (zone->cost == NULL) {
            return NGX_CONF_ERROR;
        }

        ccv.value = cost;
        ccv.complex_value = zone->cost;

        if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_weir_set_scope(cf, zone, args);
}
