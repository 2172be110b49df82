/*
 * RedisCommand.exchange(): send a command and read its answer over a plain socket, within one
 * deadline.
 *
 * One call without the GIL: check that no input is pending, send, wait, receive. All waits share
 * one deadline on the monotonic clock, even if data arrives in pieces or signals interrupt a wait.
 * Signal handlers run between waits and may raise. The socket may be blocking or not; that is not
 * changed.
 *
 * ConnectionAbortedError: the connection ended before the whole command was sent, so that the
 * server cannot have executed it. ConnectionResetError: it ended after that, so that the server may
 * have executed it.
 */
#include "redis_io.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "redis_command.h"
#include "values.h"
#include "weir/redis.h"

#define FIRST_READ 2048 /* bytes; the answer to 32 limits has some 1,100 */
#define NS_PER_S INT64_C(1000000000)

enum outcome { RECEIVED, TIMED_OUT, INTERRUPTED, UNUSABLE, CLOSED, FAILED };

struct exchange {
    int fd;
    const char *out;
    size_t out_len;
    size_t sent;
    bool polled; /* pending input was checked for */
    bool endless;
    int64_t end_ns;
    char *in;
    size_t in_len;
    size_t room;
    int error;
};

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static enum outcome failed(struct exchange *exchange) {
    exchange->error = errno;
    if (errno == EINTR)
        return INTERRUPTED;
    return errno == ECONNRESET || errno == EPIPE ? CLOSED : FAILED;
}

/* RECEIVED: the socket is ready. */
static enum outcome wait_for(struct exchange *exchange, short events) {
    struct pollfd fd = {.fd = exchange->fd, .events = events};
    struct timespec left = {0};
    int64_t left_ns = exchange->endless ? 0 : exchange->end_ns - monotonic_ns();
    if (left_ns < 0)
        return TIMED_OUT;
    left.tv_sec = (time_t)(left_ns / NS_PER_S);
    left.tv_nsec = (long)(left_ns % NS_PER_S);
#if defined(__linux__)
    int ready = ppoll(&fd, 1, exchange->endless ? NULL : &left, NULL);
#else
    /* In milliseconds, rounded up: macOS has no ppoll(). */
    int left_ms = (int)left.tv_sec * 1000 + (int)((left.tv_nsec + 999999) / 1000000);
    int ready = poll(&fd, 1, exchange->endless ? -1 : left_ms);
#endif
    return ready > 0 ? RECEIVED : ready == 0 ? TIMED_OUT : failed(exchange);
}

static bool would_block(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* Continues until more of the reply has arrived. Called without the GIL. */
static enum outcome go_on(struct exchange *exchange) {
    enum outcome outcome;
    char byte;
    if (!exchange->polled) {
        if (recv(exchange->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || !would_block())
            return UNUSABLE;
        exchange->polled = true;
    }
    while (exchange->sent < exchange->out_len) {
        ssize_t sent = send(exchange->fd, exchange->out + exchange->sent,
                            exchange->out_len - exchange->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0)
            exchange->sent += (size_t)sent;
        else if (!would_block()) {
            outcome = failed(exchange);
            return outcome == CLOSED ? UNUSABLE : outcome;
        } else if ((outcome = wait_for(exchange, POLLOUT)) != RECEIVED)
            return outcome;
    }
    for (;;) {
        if ((outcome = wait_for(exchange, POLLIN)) != RECEIVED)
            return outcome;
        ssize_t len = recv(exchange->fd, exchange->in + exchange->in_len,
                           exchange->room - exchange->in_len, MSG_DONTWAIT);
        if (len == 0)
            return CLOSED;
        if (len > 0) {
            exchange->in_len += (size_t)len;
            return RECEIVED;
        }
        if (!would_block())
            return failed(exchange);
    }
}

static PyObject *raise_outcome(const struct exchange *exchange, enum outcome outcome) {
    switch (outcome) {
    case TIMED_OUT:
        PyErr_SetString(PyExc_TimeoutError, "no answer in time");
        break;
    case UNUSABLE:
        PyErr_SetString(PyExc_ConnectionAbortedError, "the server closed the connection");
        break;
    case CLOSED:
        PyErr_SetString(PyExc_ConnectionResetError, "the server closed the connection");
        break;
    default:
        errno = exchange->error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return NULL;
}

/* Enlarges the buffer for a long reply. weir_redis_read() bounds its length. */
static int grow(struct exchange *exchange, char *first) {
    if (exchange->in_len < exchange->room)
        return 0;
    char *in = PyMem_RawRealloc(exchange->in == first ? NULL : exchange->in, exchange->room * 4);
    if (!in) {
        PyErr_NoMemory();
        return -1;
    }
    if (exchange->in == first)
        memcpy(in, first, exchange->in_len);
    exchange->in = in;
    exchange->room *= 4;
    return 0;
}

static PyObject *exchange_command(PyObject *command, struct exchange *exchange) {
    char first[FIRST_READ];
    PyObject *answer = NULL;
    exchange->in = first;
    exchange->room = sizeof first;
    do {
        enum outcome outcome;
        if (grow(exchange, first) < 0)
            break;
        Py_BEGIN_ALLOW_THREADS;
        outcome = go_on(exchange);
        Py_END_ALLOW_THREADS;
        if (outcome == INTERRUPTED) {
            if (PyErr_CheckSignals() < 0)
                break;
            answer = Py_NewRef(Py_None);
        } else if (outcome == RECEIVED)
            answer = redis_command_answer(command, exchange->in, exchange->in_len);
        else
            raise_outcome(exchange, outcome);
        if (answer != Py_None)
            break;
        Py_CLEAR(answer);
    } while (true);
    if (exchange->in != first)
        PyMem_RawFree(exchange->in);
    return answer;
}

PyObject *redis_command_exchange(PyObject *command, PyObject *const *args, Py_ssize_t nargs) {
    struct exchange exchange = {0};
    Py_buffer out;
    if (nargs < 2 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "exchange() takes 2 or 3 arguments (%zd given)", nargs);
        return NULL;
    }
    exchange.fd = PyObject_AsFileDescriptor(args[0]);
    if (exchange.fd < 0)
        return NULL;
    exchange.endless = args[1] == Py_None;
    if (!exchange.endless) {
        double seconds = core_number(args[1], "seconds");
        if (seconds == -1.0 && PyErr_Occurred())
            return NULL;
        if (!(seconds >= 0.0)) /* negative or NaN: no time is left */
            seconds = 0.0;
        exchange.end_ns =
            monotonic_ns() + (int64_t)((seconds < 1e9 ? seconds : 1e9) * (double)NS_PER_S);
    }
    if (PyObject_GetBuffer(nargs > 2 && args[2] != Py_None ? args[2] : command, &out,
                           PyBUF_SIMPLE) < 0)
        return NULL;
    exchange.out = out.buf;
    exchange.out_len = (size_t)out.len;
    PyObject *answer = exchange_command(command, &exchange);
    PyBuffer_Release(&out);
    return answer;
}
