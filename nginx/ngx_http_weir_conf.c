
/*
 * Directives, and the checks that are prepared of them.
 *
 * Zones may be used before they are defined, as in limit_req.  So a level's
 * limits become a prepared check only after the whole configuration is read
 * and the table is open.
 */

#include "ngx_http_weir.h"

/* of a zone while its directive is read */

typedef struct {
    ngx_str_t limits;
    ngx_str_t scope;
    ngx_str_t prefix;
    ngx_int_t strategy; /* NGX_CONF_UNSET: not said */
    int64_t burst;      /* -1: not said */
    int64_t max_delay;  /* in nanoseconds; -1: not said */
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

/* "name=rest" */

static ngx_int_t ngx_http_weir_arg(ngx_str_t *value, char *name, ngx_str_t *rest) {
    size_t len;

    len = ngx_strlen(name);

    if (value->len < len || ngx_strncmp(value->data, name, len) != 0) {
        return 0;
    }

    rest->data = value->data + len;
    rest->len = value->len - len;

    return 1;
}

static char *ngx_http_weir_zone_name(ngx_conf_t *cf, ngx_str_t *name, ngx_http_weir_zone_t **zone) {
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

static char *ngx_http_weir_zone_arg(ngx_conf_t *cf, ngx_str_t *value,
                                    ngx_http_weir_zone_args_t *args, ngx_http_weir_zone_t **zone,
                                    ngx_str_t *cost) {
    ngx_int_t n;
    ngx_str_t rest;

    if (ngx_http_weir_arg(value, "zone=", &rest)) {
        return ngx_http_weir_zone_name(cf, &rest, zone);
    }

    if (ngx_http_weir_arg(value, "strategy=", &rest)) {
        n = weir_strategy_parse((char *)rest.data, rest.len);
        if (n < 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "unknown strategy \"%V\"", &rest);
            return NGX_CONF_ERROR;
        }

        args->strategy = n;
        return NGX_CONF_OK;
    }

    if (ngx_http_weir_arg(value, "burst=", &rest)) {
        args->burst = ngx_atoi(rest.data, rest.len);
        if (args->burst == NGX_ERROR) {
            goto invalid;
        }

        return NGX_CONF_OK;
    }

    if (ngx_http_weir_arg(value, "max_delay=", &rest)) {
        n = ngx_parse_time(&rest, 0);
        if (n == NGX_ERROR || n > WEIR_PERIOD_MAX_NS / 1000000) {
            goto invalid;
        }

        args->max_delay = (int64_t)n * 1000000;
        return NGX_CONF_OK;
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
 * A leaky bucket's delay is at most its period, but "1/second" may have to queue
 * 20 requests: "20 per 20 seconds" leak at the same pace.
 */

static ngx_int_t ngx_http_weir_widen(struct weir_limit *limit, int64_t max_delay) {
    int64_t times, amount, multiples;

    if (max_delay > limit->period_ns) {
        times = (max_delay - 1) / limit->period_ns + 1;

        if (__builtin_mul_overflow(limit->amount, times, &amount) ||
            __builtin_mul_overflow(limit->multiples, times, &multiples) ||
            weir_limit_init(limit, amount, multiples, limit->unit, NULL) != 0) {
            return NGX_ERROR;
        }

        limit->strategy = WEIR_LEAKY_BUCKET;
    }

    limit->max_delay_ns = max_delay;

    return NGX_OK;
}

static ngx_int_t ngx_http_weir_set_rate(struct weir_limit *limit, ngx_http_weir_zone_args_t *args) {
    int64_t max_delay;

    if (args->strategy != NGX_CONF_UNSET) {
        limit->strategy = (int32_t)args->strategy;

    } else if (args->max_delay != -1) {
        limit->strategy = WEIR_LEAKY_BUCKET;

    } else if (args->burst > 0) {
        limit->strategy = WEIR_TOKEN_BUCKET;
    }

    if (limit->strategy != WEIR_LEAKY_BUCKET) {
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

    /* so many requests may wait: as limit_req counts them */

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
                               "limit, and max_delay= is for a leaky bucket",
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
 * A zone's own scope is nginx:NAME, which is no name of a Flask endpoint.
 */

static char *ngx_http_weir_set_key(ngx_conf_t *cf, ngx_http_weir_zone_t *zone,
                                   ngx_http_weir_zone_args_t *args, ngx_str_t *key,
                                   ngx_str_t *cost) {
    u_char *p;
    ngx_str_t scope;
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

static ngx_http_weir_set_t *ngx_http_weir_get_set(ngx_conf_t *cf, ngx_http_weir_loc_conf_t *wlcf) {
    ngx_http_weir_set_t *set, **slot;
    ngx_http_weir_main_conf_t *wmcf;

    if (wlcf->set != NGX_CONF_UNSET_PTR) {
        return wlcf->set;
    }

    wmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_weir_module);

    set = ngx_pcalloc(cf->pool, sizeof(ngx_http_weir_set_t));
    slot = ngx_array_push(&wmcf->sets);

    if (set == NULL || slot == NULL ||
        ngx_array_init(&set->uses, cf->pool, 2, sizeof(ngx_http_weir_use_t)) != NGX_OK) {
        return NULL;
    }

    ngx_http_weir_place(cf, &set->place);

    *slot = set;
    wlcf->set = set;

    return set;
}

/* weir_limit zone=name [zone=name ...] [nodelay | delay | delay=n] [peek]; */

char *ngx_http_weir_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    ngx_http_weir_loc_conf_t *wlcf = conf;

    char *rv;
    ngx_int_t tolerated;
    ngx_str_t *value, rest;
    ngx_uint_t i, j, first, nodelay, peek;
    ngx_http_weir_set_t *set;
    ngx_http_weir_use_t *use;
    ngx_http_weir_zone_t *zone;

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        if (wlcf->set != NGX_CONF_UNSET_PTR) {
            return "off: there are limits at this level";
        }

        wlcf->set = NULL;
        return NGX_CONF_OK;
    }

    if (wlcf->set == NULL) {
        return "after \"weir_limit off\" at the same level";
    }

    set = ngx_http_weir_get_set(cf, wlcf);
    if (set == NULL) {
        return NGX_CONF_ERROR;
    }

    first = set->uses.nelts;
    nodelay = 0;
    peek = 0;
    tolerated = 0;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_weir_arg(&value[i], "zone=", &rest)) {

            rv = ngx_http_weir_zone_name(cf, &rest, &zone);
            if (rv != NGX_CONF_OK) {
                return rv;
            }

            use = set->uses.elts;

            for (j = 0; j < set->uses.nelts; j++) {
                if (use[j].zone == zone) {
                    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "zone \"%V\" is duplicate", &rest);
                    return NGX_CONF_ERROR;
                }
            }

            use = ngx_array_push(&set->uses);
            if (use == NULL) {
                return NGX_CONF_ERROR;
            }

            use->zone = zone;
            continue;
        }

        if (ngx_strcmp(value[i].data, "nodelay") == 0) {
            nodelay = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "delay") == 0) {
            continue;
        }

        if (ngx_strcmp(value[i].data, "peek") == 0) {
            peek = 1;
            continue;
        }

        if (ngx_http_weir_arg(&value[i], "delay=", &rest)) {
            tolerated = ngx_atoi(rest.data, rest.len);
            if (tolerated >= 0) {
                continue;
            }
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"%s", &value[i],
                           ngx_http_weir_arg(&value[i], "burst=", &rest)
                               ? ", it belongs to \"weir_limit_zone\""
                               : "");
        return NGX_CONF_ERROR;
    }

    if (set->uses.nelts == first) {
        return "must have \"zone=NAME\" parameter";
    }

    use = set->uses.elts;

    for (i = first; i < set->uses.nelts; i++) {
        use[i].tolerated = tolerated;
        use[i].nodelay = nodelay;
        use[i].peek = peek;
    }

    return NGX_CONF_OK;
}

char *ngx_http_weir_rules(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    ngx_http_weir_loc_conf_t *wlcf = conf;

    char *rv;
    ngx_http_weir_main_conf_t *wmcf;

    rv = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rv == NGX_CONF_OK && wlcf->rules) {
        wmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_weir_module);

        if (wmcf->rules.line == 0) {
            ngx_http_weir_place(cf, &wmcf->rules);
        }
    }

    return rv;
}

static ngx_int_t ngx_http_weir_need_table(ngx_conf_t *cf, char *directive,
                                          ngx_http_weir_place_t *place) {
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"%s\" needs a table, as in \"weir_table shm://NAME;\" "
                  "in %V:%ui",
                  directive, &place->file, place->line);
    return NGX_ERROR;
}

/* after all of http{}: what was named is there */

ngx_int_t ngx_http_weir_check_conf(ngx_conf_t *cf) {
    ngx_uint_t i, j;
    ngx_http_weir_set_t **sets;
    ngx_http_weir_use_t *use;
    ngx_http_weir_zone_t **zones;
    ngx_http_weir_main_conf_t *wmcf;

    wmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_weir_module);

    wmcf->wcf = (ngx_weir_conf_t *)ngx_get_conf(cf->cycle->conf_ctx, ngx_weir_module);
    zones = wmcf->zones.elts;

    for (i = 0; i < wmcf->zones.nelts; i++) {
        if (zones[i]->rates.nelts == 0) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown zone \"%V\", no \"weir_limit_zone\" defines "
                          "it, in %V:%ui",
                          &zones[i]->name, &zones[i]->place.file, zones[i]->place.line);
            return NGX_ERROR;
        }
    }

    sets = wmcf->sets.elts;

    for (i = 0; i < wmcf->sets.nelts; i++) {
        use = sets[i]->uses.elts;

        for (j = 0; j < sets[i]->uses.nelts; j++) {
            sets[i]->n += use[j].zone->rates.nelts;
        }

        if (sets[i]->n > WEIR_CHECKS_MAX) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "%ui limits in one decision, there may be %d, "
                          "in %V:%ui",
                          sets[i]->n, WEIR_CHECKS_MAX, &sets[i]->place.file, sets[i]->place.line);
            return NGX_ERROR;
        }

        if (wmcf->wcf->uri.len == 0) {
            return ngx_http_weir_need_table(cf, "weir_limit", &sets[i]->place);
        }
    }

    if (wmcf->rules.line && wmcf->wcf->uri.len == 0) {
        return ngx_http_weir_need_table(cf, "weir_rules", &wmcf->rules);
    }

    return NGX_OK;
}

static void ngx_http_weir_free_set(void *data) {
    ngx_http_weir_set_t *set = data;

    weir_prepared_free(set->live);
    weir_prepared_free(set->dry);
}

static ngx_int_t ngx_http_weir_prepare_set(ngx_cycle_t *cycle, struct weir_table *table,
                                           ngx_http_weir_set_t *set) {
    size_t n;
    ngx_uint_t i, j;
    struct weir_part parts[WEIR_CHECKS_MAX];
    struct weir_error error;
    ngx_pool_cleanup_t *cln;
    ngx_http_weir_use_t *use;
    ngx_http_weir_part_t *part;
    ngx_http_weir_rate_t *rate;
    ngx_http_weir_zone_t *zone;

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    set->parts = ngx_pcalloc(cycle->pool, set->n * sizeof(ngx_http_weir_part_t));

    if (cln == NULL || set->parts == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_weir_free_set;
    cln->data = set;

    ngx_memzero(parts, sizeof(parts));

    n = 0;
    use = set->uses.elts;

    for (i = 0; i < set->uses.nelts; i++) {
        zone = use[i].zone;
        rate = zone->rates.elts;

        if (zone->cost) {
            set->costs = 1;
        }

        for (j = 0; j < zone->rates.nelts; j++) {
            part = &set->parts[n];
            part->use = &use[i];
            part->rate = &rate[j];

            if (rate[j].limit.amount) {
                part->tolerated = (int64_t)((double)rate[j].limit.period_ns / rate[j].limit.amount *
                                            use[i].tolerated);
            }

            parts[n].limit = &rate[j].limit;
            parts[n].before.bytes = zone->before.data;
            parts[n].before.len = zone->before.len;
            parts[n].after.bytes = zone->after.data;
            parts[n].after.len = zone->after.len;
            parts[n].cost = 1;
            parts[n].role = use[i].peek ? WEIR_ROLE_PEEKED : WEIR_ROLE_CHARGED;
            n++;

            /* a full list of limits keeps "weir top" from knowing this one */

            (void)weir_stats_register(table, &rate[j].limit, zone->before.data, zone->before.len,
                                      zone->after.data, zone->after.len);
        }
    }

    if (weir_prepare(parts, n, &set->dry, &error) != 0) {
        goto failed;
    }

    for (i = 0; i < n; i++) {
        rate = set->parts[i].rate;
        parts[i].label = weir_stats_label(table, (char *)rate->text, rate->len);
        if (parts[i].label < 0) {
            parts[i].label = 0;
        }
    }

    if (weir_prepare(parts, n, &set->live, &error) != 0) {
        goto failed;
    }

    return NGX_OK;

failed:

    ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "weir_limit: %s in %V:%ui", error.message,
                  &set->place.file, set->place.line);

    return NGX_ERROR;
}

ngx_int_t ngx_http_weir_prepare(ngx_cycle_t *cycle, struct weir_table *table) {
    ngx_uint_t i;
    ngx_http_weir_set_t **sets;
    ngx_http_weir_main_conf_t *wmcf;

    wmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_weir_module);

    if (wmcf == NULL) {
        return NGX_OK;
    }

    sets = wmcf->sets.elts;

    for (i = 0; i < wmcf->sets.nelts; i++) {
        if (ngx_http_weir_prepare_set(cycle, table, sets[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
