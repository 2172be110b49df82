
/*
 * The directives weir_limit and weir_rules.
 *
 * The limits of a level become a prepared check when the whole configuration
 * has been read and the table is open, because zones may be defined later.
 */

#include "ngx_http_weir_conf.h"

#include <weir/stats.h>

#include "ngx_http_weir_args.h"
#include "ngx_http_weir_zone.h"

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

/* adds a zone to a level's limits */

static char *ngx_http_weir_use_zone(ngx_conf_t *cf, ngx_http_weir_set_t *set, ngx_str_t *name) {
    char *rv;
    ngx_uint_t i;
    ngx_http_weir_use_t *use;
    ngx_http_weir_zone_t *zone;

    rv = ngx_http_weir_zone_name(cf, name, &zone);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    use = set->uses.elts;

    for (i = 0; i < set->uses.nelts; i++) {
        if (use[i].zone == zone) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "zone \"%V\" is duplicate", name);
            return NGX_CONF_ERROR;
        }
    }

    use = ngx_array_push(&set->uses);
    if (use == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(use, sizeof(ngx_http_weir_use_t));
    use->zone = zone;

    return NGX_CONF_OK;
}

/* one parameter of weir_limit; *options holds for all its zones */

static char *ngx_http_weir_limit_arg(ngx_conf_t *cf, ngx_str_t *value, ngx_http_weir_set_t *set,
                                     ngx_http_weir_use_t *options) {
    ngx_int_t n;
    ngx_str_t rest;

    if (ngx_http_weir_arg(value, "zone=", &rest)) {
        return ngx_http_weir_use_zone(cf, set, &rest);
    }

    if (ngx_strcmp(value->data, "nodelay") == 0) {
        options->nodelay = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "delay") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "peek") == 0) {
        options->peek = 1;
        return NGX_CONF_OK;
    }

    if (ngx_http_weir_arg(value, "delay=", &rest)) {
        n = ngx_atoi(rest.data, rest.len);
        if (n >= 0) {
            options->tolerated = n;
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"%s", value,
        ngx_http_weir_arg(value, "burst=", &rest) ? ", it belongs to \"weir_limit_zone\"" : "");
    return NGX_CONF_ERROR;
}

static char *ngx_http_weir_limit_off(ngx_http_weir_loc_conf_t *wlcf) {
    if (wlcf->set != NGX_CONF_UNSET_PTR) {
        return "off: there are limits at this level";
    }

    wlcf->set = NULL;

    return NGX_CONF_OK;
}

/* weir_limit zone=name [zone=name ...] [nodelay | delay | delay=n] [peek]; */

char *ngx_http_weir_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    ngx_http_weir_loc_conf_t *wlcf = conf;

    char *rv;
    ngx_str_t *value;
    ngx_uint_t i, first;
    ngx_http_weir_set_t *set;
    ngx_http_weir_use_t *use, options;

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        return ngx_http_weir_limit_off(wlcf);
    }

    if (wlcf->set == NULL) {
        return "after \"weir_limit off\" at the same level";
    }

    set = ngx_http_weir_get_set(cf, wlcf);
    if (set == NULL) {
        return NGX_CONF_ERROR;
    }

    first = set->uses.nelts;
    ngx_memzero(&options, sizeof(ngx_http_weir_use_t));

    for (i = 1; i < cf->args->nelts; i++) {
        rv = ngx_http_weir_limit_arg(cf, &value[i], set, &options);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (set->uses.nelts == first) {
        return "must have \"zone=NAME\" parameter";
    }

    use = set->uses.elts;

    for (i = first; i < set->uses.nelts; i++) {
        options.zone = use[i].zone;
        use[i] = options;
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

/* after all of http{} was read: every zone must be defined, and a table given */

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

/* fills in the parts of a level's check, and registers their limits */

static void ngx_http_weir_set_parts(struct weir_table *table, ngx_http_weir_set_t *set,
                                    struct weir_part *parts) {
    size_t n;
    ngx_uint_t i, j;
    ngx_http_weir_use_t *use;
    ngx_http_weir_part_t *part;
    ngx_http_weir_rate_t *rate;
    ngx_http_weir_zone_t *zone;

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

            /* if the registry is full, "weir show" does not list this limit */

            (void)weir_stats_register(table, &rate[j].limit, zone->before.data, zone->before.len,
                                      zone->after.data, zone->after.len);
        }
    }
}

static ngx_int_t ngx_http_weir_prepare_set(ngx_cycle_t *cycle, struct weir_table *table,
                                           ngx_http_weir_set_t *set) {
    int label;
    ngx_int_t rc;
    ngx_uint_t i;
    struct weir_part parts[WEIR_CHECKS_MAX];
    struct weir_error error;
    ngx_pool_cleanup_t *cln;
    ngx_http_weir_rate_t *rate;

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    set->parts = ngx_pcalloc(cycle->pool, set->n * sizeof(ngx_http_weir_part_t));

    if (cln == NULL || set->parts == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_weir_free_set;
    cln->data = set;

    ngx_memzero(parts, sizeof(parts));
    ngx_http_weir_set_parts(table, set, parts);

    rc = weir_prepare(parts, set->n, &set->dry, &error);

    if (rc == 0) {
        for (i = 0; i < set->n; i++) {
            rate = set->parts[i].rate;
            label = weir_stats_label(table, (char *)rate->text, rate->len);
            parts[i].label = ngx_max(label, 0);
        }

        rc = weir_prepare(parts, set->n, &set->live, &error);
    }

    if (rc != 0) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "weir_limit: %s in %V:%ui", error.message,
                      &set->place.file, set->place.line);
        return NGX_ERROR;
    }

    return NGX_OK;
}

/* after a lost table was replaced: registers labels and limits in the new one */

void ngx_http_weir_relabel(ngx_cycle_t *cycle, struct weir_table *table) {
    int label;
    ngx_uint_t i, j;
    struct weir_part parts[WEIR_CHECKS_MAX];
    ngx_http_weir_rate_t *rate;
    ngx_http_weir_set_t **sets;
    ngx_http_weir_main_conf_t *wmcf;

    wmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_weir_module);

    if (wmcf == NULL) {
        return;
    }

    sets = wmcf->sets.elts;

    for (i = 0; i < wmcf->sets.nelts; i++) {
        ngx_memzero(parts, sizeof(parts));
        ngx_http_weir_set_parts(table, sets[i], parts);

        for (j = 0; j < sets[i]->n; j++) {
            rate = sets[i]->parts[j].rate;
            label = weir_stats_label(table, (char *)rate->text, rate->len);
            weir_prepared_label(sets[i]->live, j, ngx_max(label, 0));
        }
    }
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
