/*
 * An HTTP server of several threads that limits each client's address.
 *
 *     cc server.c $(pkg-config --cflags --libs weir libmicrohttpd) -o server
 *     ./server 8080 "5 per minute"
 *     curl -i http://127.0.0.1:8080/
 *
 * The table and the prepared check serve all threads. With shm://NAME, other processes share the
 * counts, for example nginx or a Flask application.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <microhttpd.h>
#include <weir/weir.h>

#define THREADS 4

struct server {
    struct weir_table *table;
    struct weir_prepared *prepared;
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * The client's address; for IPv6 its /64 network, since one client usually has all addresses of it.
 */
static size_t client_of(struct MHD_Connection *connection, char text[INET6_ADDRSTRLEN]) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    text[0] = '\0';
    if (info && info->client_addr->sa_family == AF_INET) {
        struct sockaddr_in address;
        memcpy(&address, info->client_addr, sizeof address);
        inet_ntop(AF_INET, &address.sin_addr, text, INET6_ADDRSTRLEN);
    } else if (info && info->client_addr->sa_family == AF_INET6) {
        struct sockaddr_in6 address;
        memcpy(&address, info->client_addr, sizeof address);
        memset(&address.sin6_addr.s6_addr[8], 0, 8);
        inet_ntop(AF_INET6, &address.sin6_addr, text, INET6_ADDRSTRLEN);
    }
    return strlen(text);
}

static enum MHD_Result say(struct MHD_Connection *connection, unsigned status, const char *body,
                           long long retry_after) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(body), (void *)body, MHD_RESPMEM_MUST_COPY);
    char seconds[24];
    if (!response)
        return MHD_NO;
    if (retry_after > 0) {
        snprintf(seconds, sizeof seconds, "%lld", retry_after);
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **context) {
    const struct server *server = data;
    static int seen;
    char client[INET6_ADDRSTRLEN];
    struct weir_verdict verdicts[WEIR_CHECKS_MAX];
    struct weir_decision decision;
    (void)url, (void)method, (void)version, (void)upload;
    if (*context != &seen) { /* the first of several calls for one request */
        *context = &seen;
        return MHD_YES;
    }
    *upload_size = 0;
    struct weir_request request = {.now_ns = now_ns()};
    request.client.len = client_of(connection, client);
    request.client.bytes = client;
    int rc = weir_decide_prepared(server->table, server->prepared, &request, verdicts, &decision);
    if (rc < 0) {
        fprintf(stderr, "the request passes: %s\n", weir_strerror(rc));
        return say(connection, MHD_HTTP_OK, "hello\n", 0);
    }
    if (decision.allowed)
        return say(connection, MHD_HTTP_OK, "hello\n", 0);
    int64_t wait = verdicts[decision.deciding].retry_after_ns;
    return say(connection, MHD_HTTP_TOO_MANY_REQUESTS, "slow down\n",
               wait == WEIR_NEVER ? 0 : wait / 1000000000 + (wait % 1000000000 != 0));
}

static int prepare(struct server *server, const char *text, const char *uri) {
    struct weir_limit limits[WEIR_CHECKS_MAX];
    struct weir_part parts[WEIR_CHECKS_MAX] = {{0}};
    struct weir_error error;
    size_t n = WEIR_CHECKS_MAX;
    int rc = weir_limit_parse_many(text, strlen(text), limits, &n, &error);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        parts[i].limit = &limits[i];
        parts[i].before = (struct weir_bytes){"server/", 7};
        parts[i].cost = 1;
    }
    if (rc == 0)
        rc = weir_prepare(parts, n, &server->prepared, &error);
    if (rc == 0)
        rc = weir_table_open(uri, &server->table, &error);
    if (rc < 0)
        fprintf(stderr, "%s\n", error.message);
    return rc;
}

int main(int argc, char **argv) {
    struct server server = {NULL, NULL};
    sigset_t set;
    int signal_number;
    if (argc < 3 || argc > 4) {
        fputs("usage: server PORT LIMITS [TABLE]\n", stderr);
        return 2;
    }
    if (prepare(&server, argv[2], argc == 4 ? argv[3] : "memory://") < 0)
        return 1;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO, (uint16_t)strtoul(argv[1], NULL, 10), NULL,
        NULL, answer, &server, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_END);
    if (!daemon) {
        perror("cannot listen");
        return 1;
    }
    sigwait(&set, &signal_number);
    MHD_stop_daemon(daemon);
    weir_table_close(server.table);
    weir_prepared_free(server.prepared);
    return 0;
}
