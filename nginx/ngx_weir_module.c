
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

#include "ngx_http_weir_conf.h"
#include "ngx_http_weir_table.h"

#include <weir/lost.h>

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
