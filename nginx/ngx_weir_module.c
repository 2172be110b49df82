
/*
 * The table.  The master opens it once; workers inherit the mapping by fork().
 *
 * The master usually runs as root.  It opens the table with the user and the
 * groups of the workers, so that an application of the same user can share it,
 * and so that "group=" requires the workers to be members of the group.
 *
 * A reload or a binary upgrade opens the table again by its name, so counters
 * are kept.  If the table cannot be opened, the new configuration fails and
 * nginx keeps the old one.
 */

#include "ngx_http_weir.h"

#include <sys/prctl.h>

static void *ngx_weir_create_conf(ngx_cycle_t *cycle);
static char *ngx_weir_init_conf(ngx_cycle_t *cycle, void *conf);

static ngx_command_t ngx_weir_commands[] = {

    {ngx_string("weir_table"), NGX_MAIN_CONF | NGX_DIRECT_CONF | NGX_CONF_1MORE, ngx_weir_table, 0,
     0, NULL},

    ngx_null_command};

static ngx_core_module_t ngx_weir_module_ctx = {ngx_string("weir"), ngx_weir_create_conf,
                                                ngx_weir_init_conf};

ngx_module_t ngx_weir_module = {NGX_MODULE_V1,
                                &ngx_weir_module_ctx, /* module context */
                                ngx_weir_commands,    /* module directives */
                                NGX_CORE_MODULE,      /* module type */
                                NULL,                 /* init master */
                                NULL,                 /* init module */
                                NULL,                 /* init process */
                                NULL,                 /* init thread */
                                NULL,                 /* exit thread */
                                NULL,                 /* exit process */
                                NULL,                 /* exit master */
                                NGX_MODULE_V1_PADDING};

void ngx_http_weir_place(ngx_conf_t *cf, ngx_http_weir_place_t *place) {
    if (cf->conf_file) {
        place->file = cf->conf_file->file.name;
        place->line = cf->conf_file->line;
    }
}

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

static void *ngx_weir_create_conf(ngx_cycle_t *cycle) {
    return ngx_pcalloc(cycle->pool, sizeof(ngx_weir_conf_t));
}

static void ngx_weir_close(void *data) {
    ngx_weir_conf_t *wcf = data;

    weir_table_close(wcf->table);
    wcf->table = NULL;
}

/* opens the table with the ids of the workers, then becomes root again */

static int ngx_weir_open_as_worker(ngx_cycle_t *cycle, ngx_weir_conf_t *wcf,
                                   struct weir_error *error) {
    int rc, n, dumpable;
    gid_t gid, *groups;
    ngx_core_conf_t *ccf;

    ccf = (ngx_core_conf_t *)ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    if (geteuid() != 0 || ccf->user == 0 || ccf->user == (ngx_uid_t)NGX_CONF_UNSET_UINT) {
        return weir_table_open((char *)wcf->uri.data, &wcf->table, error);
    }

    dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    gid = getegid();

    n = getgroups(0, NULL);
    groups = ngx_alloc((n > 0 ? n : 1) * sizeof(gid_t), cycle->log);

    if (n < 0 || groups == NULL || getgroups(n, groups) != n) {
        ngx_free(groups);
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno, "getgroups() failed");
        return WEIR_ESYSTEM;
    }

    rc = WEIR_ESYSTEM;

    if (initgroups(ccf->username, ccf->group) == -1 || setegid(ccf->group) == -1 ||
        seteuid(ccf->user) == -1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "cannot become the user \"%s\" to open the table", ccf->username);

    } else {
        rc = weir_table_open((char *)wcf->uri.data, &wcf->table, error);
    }

    if (seteuid(0) == -1 || setegid(gid) == -1 || setgroups(n, groups) == -1) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno, "cannot become root again");
        rc = WEIR_ESYSTEM;
    }

    if (dumpable == 1) {
        (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    }

    ngx_free(groups);

    return rc;
}

static char *ngx_weir_init_conf(ngx_cycle_t *cycle, void *conf) {
    ngx_weir_conf_t *wcf = conf;

    int rc;
    struct weir_error error;
    ngx_pool_cleanup_t *cln;

    if (wcf->uri.len == 0 || ngx_process == NGX_PROCESS_SIGNALLER) {
        return NGX_CONF_OK;
    }

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&error, sizeof(struct weir_error));

    if (weir_table_guard() != 0) {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "no handler of SIGBUS: a table that is cut short ends a worker");
    }

    rc = ngx_weir_open_as_worker(cycle, wcf, &error);

    if (rc != 0) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "weir_table \"%V\": %s in %V:%ui", &wcf->uri,
                      error.message[0] ? error.message : weir_strerror(rc), &wcf->place.file,
                      wcf->place.line);
        return NGX_CONF_ERROR;
    }

    cln->handler = ngx_weir_close;
    cln->data = wcf;

    if (ngx_http_weir_prepare(cycle, wcf->table) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
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
