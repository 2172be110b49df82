
/* The arguments of directives, and where a directive stands. */

#include "ngx_http_weir_args.h"

void ngx_http_weir_place(ngx_conf_t *cf, ngx_http_weir_place_t *place) {
    if (cf->conf_file) {
        place->file = cf->conf_file->file.name;
        place->line = cf->conf_file->line;
    }
}

/* "name=rest" */

ngx_int_t ngx_http_weir_arg(ngx_str_t *value, char *name, ngx_str_t *rest) {
    size_t len;

    len = ngx_strlen(name);

    if (value->len < len || ngx_strncmp(value->data, name, len) != 0) {
        return 0;
    }

    rest->data = value->data + len;
    rest->len = value->len - len;

    return 1;
}
