/* The objects that the request hooks of weir.flask read: what is held of a request, and the plan of its endpoint. */
#ifndef WEIR_EXT_FLASK_REQUEST_H
#define WEIR_EXT_FLASK_REQUEST_H

#include "prepared_check.h"

/* What one limiter holds of one request. */
struct core_flask_request {
    PyObject ob_base;
    PyObject *plan;
    struct core_evaluation *evaluation; /* of the last check; NULL: none */
    PyObject *pending; /* list of evaluations that the response decides about; or NULL */
    PyObject *cache;   /* the request's own; NULL at first */
    char defaults_counted;
    double wake; /* leaky bucket: when the view may run, seconds since the epoch; 0: at once */
};

/* What is known of one endpoint and method; the base of a class. Members that are NULL are not known. */
struct core_plan {
    PyObject ob_base;
    PyObject *function; /* the view function that it was made for */
    PyObject *filters;  /* list of functions: if one says so, only `bare` is checked */
    PyObject *bare;
    PyObject *before;          /* checked before dispatch; None: nothing is */
    PyObject *view;            /* what is known of the view, if that is limited */
    PyObject *at_call;         /* checked when it is called */
    PyObject *at_call_counted; /* the same if the defaults have counted the request */
};

#define REQUEST(object) ((struct core_flask_request *)(object))
#define PLAN(object) ((struct core_plan *)(object))

#endif
