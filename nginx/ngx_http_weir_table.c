
/* The directive weir_table, and a table whose file is lost while it is open. */

#include "ngx_http_weir_table.h"

#include <weir/lost.h>

#include "ngx_http_weir_args.h"
#include "ngx_http_weir_conf.h"

/* joins the arguments to a URI: shm://NAME?keys=N&rules=N */

static char *ngx_weir_join_uri(ngx_conf_t *cf, ngx_str_t *uri) {
    u_char *p;
    size_t len;
    ngx_str_t *value;
    ngx_uint_t i, mark;

    value = cf->args->elts;
    len = 1;

    for (i = 1; i < cf->args->nelts; i++) {
        len += value[i].len + 1;
    }

    p = ngx_pnalloc(cf->pool, len);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    uri->data = p;
    p = ngx_cpymem(p, value[1].data, value[1].len);
    mark = ngx_strlchr(value[1].data, value[1].data + value[1].len, '?') != NULL;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strlchr(value[i].data, value[i].data + value[i].len, '=') == NULL) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        *p++ = mark ? '&' : '?';
        mark = 1;
        p = ngx_cpymem(p, value[i].data, value[i].len);
    }

    *p = '\0';
    uri->len = p - uri->data;

    return NGX_CONF_OK;
}

/* weir_table shm://name [keys=N] [hits=N] [rules=N] [group=NAME]; */

char *ngx_weir_table(ngx_conf_t *cf, ngx_command_t *cmd, void *conf) {
    char *rv;
    ngx_str_t *value;
    ngx_weir_conf_t *wcf;

    wcf = (ngx_weir_conf_t *)ngx_get_conf(cf->cycle->conf_ctx, ngx_weir_module);

    if (wcf->uri.len) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strncmp(value[1].data, "memory://", 9) == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\": each worker would count by itself, "
                           "use shm://NAME or file:///PATH",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    rv = ngx_weir_join_uri(cf, &wcf->uri);

    if (rv == NGX_CONF_OK) {
        ngx_http_weir_place(cf, &wcf->place);
    }

    return rv;
}

/*
 * Once a second: each worker reopens a table whose file was removed or truncated, so that
 * applications and nginx share one table again.
 */

void ngx_weir_check_lost(ngx_log_t *log, ngx_weir_conf_t *wcf, int64_t now) {
    int rc;
    struct weir_error error;

    if (now >= wcf->checked && now - wcf->checked < 1000000000) {
        return;
    }

    wcf->checked = now;

    if (weir_table_lost(wcf->table) == 0) {
        return;
    }

    ngx_memzero(&error, sizeof(struct weir_error));

    rc = weir_table_reopen(wcf->table, (char *)wcf->uri.data, now, &error);

    if (rc == 0) {
        ngx_http_weir_relabel((ngx_cycle_t *)ngx_cycle, wcf->table);
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "the table was removed or truncated while in use: all counts start at "
                      "zero in a new table");

    } else if (!wcf->lost) {
        ngx_log_error(
            NGX_LOG_ERR, log, 0,
            "the table was removed or truncated while in use, and there is no new one yet: "
            "%s",
            error.message[0] ? error.message : weir_strerror(rc));
    }

    wcf->lost = rc != 0;
}
