/*
 * The objects that the request hooks of weir.flask read: the state of a request, and the plan of
 * its endpoint.
 */
#ifndef WEIR_EXT_FLASK_REQUEST_H
#define WEIR_EXT_FLASK_REQUEST_H

#include "evaluation.h"

/* The state of one request for one limiter. */
struct core_flask_request {
    PyObject ob_base;
    PyObject *plan;
    struct core_evaluation *evaluation; /* of the last check; NULL: none */
    PyObject *pending; /* list of evaluations that are settled by the response; or NULL */
    PyObject *cache;   /* of this request; NULL at first */
    char defaults_counted;
    double wake; /* leaky bucket: when the view may run, seconds since the epoch; 0: at once */
};

/* The plan of one endpoint and method; a base class. NULL members are unknown. */
struct core_plan {
    PyObject ob_base;
    PyObject *function; /* the view function that it was made for */
    PyObject *filters;  /* list of functions: if one returns true, only `bare` is checked */
    PyObject *bare;
    PyObject *before;  /* checked before dispatch; None: nothing is */
    PyObject *view;    /* the data of the view, if it is limited */
    PyObject *at_call; /* checked when it is called */
    /* The same, if the default limits have already counted the request. */
    PyObject *at_call_counted;
};

extern PyType_Spec core_request_spec, core_plan_spec;

#define REQUEST(object) ((struct core_flask_request *)(object))
#define PLAN(object) ((struct core_plan *)(object))

#endif
