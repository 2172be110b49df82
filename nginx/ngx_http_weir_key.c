
/*
 * The client of a request.  The client's part of a key has the form that
 * weir.flask writes, so both can share a counter:
 *
 *   192.0.2.1                       an IPv4 address, mapped IPv6 addresses too
 *   2001:db8:1:2::%2F64             an IPv6 network of weir_ipv6_prefix bits
 *   %2Fpath                         any other key, "/" and "%" escaped
 */

#include "ngx_http_weir_key.h"

/* whether a key is the client's address alone */

ngx_int_t ngx_http_weir_is_address(ngx_str_t *value) {
    ngx_uint_t i;

    static const ngx_str_t names[] = {
        ngx_string("$binary_remote_addr"), ngx_string("$remote_addr"),
        ngx_string("$weir_client"),        ngx_string("${binary_remote_addr}"),
        ngx_string("${remote_addr}"),      ngx_string("${weir_client}")};

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (value->len == names[i].len &&
            ngx_strncasecmp(value->data, names[i].data, value->len) == 0) {
            return 1;
        }
    }

    return 0;
}

#if (NGX_HAVE_INET6)

/* the network of an IPv6 address as text; a mapped IPv4 address is IPv4 */

static ngx_int_t ngx_http_weir_network(ngx_http_request_t *r, struct in6_addr *from,
                                       ngx_uint_t prefix, ngx_str_t *name) {
    char text[INET6_ADDRSTRLEN];
    u_char *p;
    ngx_uint_t i, bits;
    struct in6_addr addr;

    p = ngx_pnalloc(r->pool, NGX_HTTP_WEIR_ADDR_TEXT);
    if (p == NULL) {
        return NGX_ERROR;
    }

    name->data = p;

    if (IN6_IS_ADDR_V4MAPPED(from)) {
        name->len = ngx_sprintf(p, "%ud.%ud.%ud.%ud", from->s6_addr[12], from->s6_addr[13],
                                from->s6_addr[14], from->s6_addr[15]) -
                    p;
        return NGX_OK;
    }

    addr = *from;

    for (i = 0; i < 16; i++) {
        bits = prefix > i * 8 ? prefix - i * 8 : 0;

        if (bits < 8) {
            addr.s6_addr[i] &= (u_char)(0xff00 >> bits);
        }
    }

    /* not ngx_inet_ntop(): two zero words are shortened in one way only */

    if (inet_ntop(AF_INET6, &addr, text, sizeof(text)) == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(p, text, ngx_strlen(text));

    if (prefix < 128) {
        p = ngx_sprintf(p, "/%ui", prefix);
    }

    name->len = p - name->data;

    return NGX_OK;
}

#endif

/* the client by its address, in the form of weir.flask.util.get_remote_address() */

ngx_int_t ngx_http_weir_address(ngx_http_request_t *r, ngx_uint_t prefix, ngx_str_t *name) {
#if (NGX_HAVE_INET6)
    struct sockaddr_in6 *sin6;

    if (r->connection->sockaddr->sa_family == AF_INET6) {
        sin6 = (struct sockaddr_in6 *)r->connection->sockaddr;

        return ngx_http_weir_network(r, &sin6->sin6_addr, prefix, name);
    }
#endif

    *name = r->connection->addr_text;

    return NGX_OK;
}

/* whether a text needs no escapes; most do not */

static ngx_int_t ngx_http_weir_plain(ngx_str_t *text) {
    size_t i;

    if (text->len > 256) {
        return 0;
    }

    for (i = 0; i < text->len; i++) {
        if (text->data[i] == '/' || text->data[i] == '%' || text->data[i] > 127) {
            return 0;
        }
    }

    return 1;
}

/* an empty client is not counted */

ngx_int_t ngx_http_weir_client(ngx_http_request_t *r, ngx_http_weir_zone_t *zone, ngx_uint_t prefix,
                               struct weir_bytes *client) {
    u_char *p;
    ngx_int_t rc;
    ngx_str_t key;

    if (zone->address) {

        if (r->connection->sockaddr->sa_family == AF_INET) {
            client->bytes = r->connection->addr_text.data;
            client->len = r->connection->addr_text.len;
            return NGX_OK;
        }

        rc = ngx_http_weir_address(r, prefix, &key);

    } else {
        rc = ngx_http_complex_value(r, &zone->key, &key);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    client->bytes = key.data;
    client->len = key.len;

    if (ngx_http_weir_plain(&key)) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, WEIR_IDENTIFIER_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    client->bytes = p;
    client->len = weir_identifier(key.data, key.len, (char *)p);

    return NGX_OK;
}

/* what a client chose, for the log: printable ASCII, cut */

#define NGX_HTTP_WEIR_SHOWN_MAX 64

static void ngx_http_weir_show(ngx_str_t *text, u_char *shown, ngx_str_t *value) {
    size_t i;
    u_char *p;

    p = shown;

    for (i = 0; i < value->len && i < NGX_HTTP_WEIR_SHOWN_MAX; i++) {
        if (value->data[i] >= 0x20 && value->data[i] < 0x7f) {
            *p++ = value->data[i];

        } else {
            p = ngx_sprintf(p, "\\x%02Xi", (ngx_int_t)value->data[i]);
        }
    }

    if (i < value->len) {
        p = ngx_cpymem(p, "...", 3);
    }

    text->data = shown;
    text->len = p - shown;
}

/* the cost of a request: 1 if the value is empty or not a number */

int64_t ngx_http_weir_cost(ngx_http_request_t *r, ngx_http_weir_zone_t *zone) {
    size_t i;
    ngx_int_t n;
    ngx_str_t value, shown;
    u_char buffer[4 * NGX_HTTP_WEIR_SHOWN_MAX + 3];

    if (zone->cost == NULL) {
        return 1;
    }

    if (ngx_http_complex_value(r, zone->cost, &value) != NGX_OK) {
        return -1;
    }

    if (value.len == 0) {
        return 1;
    }

    n = ngx_atoi(value.data, value.len);

    if (n == NGX_ERROR) {

        /* too many digits: more than any limit allows */

        for (i = 0; i < value.len; i++) {
            if (value.data[i] < '0' || value.data[i] > '9') {
                break;
            }
        }

        if (i == value.len) {
            return INT64_MAX;
        }

        ngx_http_weir_show(&shown, buffer, &value);

        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "the cost \"%V\" of zone \"%V\" is not a number, so 1 is used", &shown,
                      &zone->name);
        return 1;
    }

    return n;
}
