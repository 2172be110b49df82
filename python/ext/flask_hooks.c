/*
 * The request hooks of weir.flask, and all code that depends on internals of Flask and Werkzeug.
 *
 * There are three hooks: before dispatch, at the call of a limited function, and after the
 * response. Each finds the plan for the endpoint and evaluates a prepared check. The hooks handle
 * common cases; all others are passed, with the evaluation, to methods of the request's state
 * (weir/flask/request.py).
 *
 * Undocumented attributes that are used: the request context's `request`, a rule's `endpoint`, and
 * `_list` of Werkzeug's Headers. If one of them is missing, the hooks return "not done", and Python
 * code does the same through public names.
 */
#include "flask_hooks.h"

#include <stddef.h>

#include "evaluation.h"
#include "evaluation_type.h"
#include "flask_request.h"
#include "prepared_check.h"

#define SELF(object) ((struct core_hooks *)(object))

/* ---------------------------------------------------------------------------------------- hooks */

enum { NAMES = 10 };

struct core_hooks {
    PyObject ob_base;
    struct core_state *state;
    PyObject *current;          /* returns the request context; fails outside of a request */
    PyObject *slot;             /* str: the attribute of the context that is used */
    PyTypeObject *request_type; /* type of the object stored there */
    PyObject *zero;             /* 0.0 */
    PyObject *name[NAMES];
};

static const char *const names[NAMES] = {"request",  "url_rule",   "endpoint", "method",
                                         "headers",  "_list",      "next",     "failed",
                                         "conclude", "failed_late"};
enum {
    S_REQUEST,
    S_URL_RULE,
    S_ENDPOINT,
    S_METHOD,
    S_HEADERS,
    S_LIST,
    S_NEXT,
    S_FAILED,
    S_CONCLUDE,
    S_FAILED_LATE
};

static PyObject *hooks_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    struct core_state *state = core_state_of(type);
    PyObject *current, *slot, *request_type;
    if (!state ||
        !PyArg_ParseTuple(args, "OUO!:FlaskHooks", &current, &slot, &PyType_Type, &request_type))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)request_type, state->request_type)) {
        PyErr_SetString(PyExc_TypeError, "the request's type must derive from RequestBase");
        return NULL;
    }
    struct core_hooks *self = SELF(type->tp_alloc(type, 0));
    if (!self)
        return NULL;
    self->state = state;
    self->current = Py_NewRef(current);
    self->slot = Py_NewRef(slot);
    self->request_type = (PyTypeObject *)Py_NewRef(request_type);
    self->zero = PyFloat_FromDouble(0.0);
    bool complete = self->zero != NULL;
    for (int i = 0; i < NAMES && complete; i++)
        complete = (self->name[i] = PyUnicode_InternFromString(names[i])) != NULL;
    if (!complete)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int hooks_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->current);
    Py_VISIT(SELF(object)->request_type);
    return 0;
}

static int hooks_clear(PyObject *object) {
    Py_CLEAR(SELF(object)->current);
    Py_CLEAR(SELF(object)->request_type);
    return 0;
}

static void hooks_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    struct core_hooks *self = SELF(object);
    PyObject_GC_UnTrack(object);
    hooks_clear(object);
    Py_XDECREF(self->slot);
    Py_XDECREF(self->zero);
    for (int i = 0; i < NAMES; i++)
        Py_XDECREF(self->name[i]);
    type->tp_free(object);
    Py_DECREF(type);
}

/* The request context; NULL without an exception if there is none. */
static PyObject *context_of(struct core_hooks *self) {
    PyObject *context = self->current ? PyObject_CallNoArgs(self->current) : NULL;
    if (!context)
        PyErr_Clear();
    return context;
}

/*
 * The request state stored in the context; NULL without an exception if there is none. New
 * reference.
 */
static struct core_flask_request *held_of(struct core_hooks *self, PyObject *context) {
    PyObject *held = PyObject_GetAttr(context, self->slot);
    if (!held)
        PyErr_Clear();
    else if (Py_TYPE(held) != self->request_type)
        Py_CLEAR(held);
    return (struct core_flask_request *)held;
}

/* --------------------------------------------------------------------------- evaluating a check */

/*
 * The result of a check. None: the request may continue. An exception object: it is refused, and
 * the caller raises the exception. NULL with an exception set: the check failed.
 */

/*
 * Calls a method of the request with an evaluation (NULL: None) and, if there is one, an exception.
 */
static PyObject *call_request(struct core_flask_request *request, PyObject *name,
                              struct core_evaluation *evaluation, PyObject *error) {
    PyObject *args[] = {(PyObject *)request, evaluation ? (PyObject *)evaluation : Py_None, error};
    return PyObject_VectorcallMethod(name, args, error ? 3 : 2, NULL);
}

/* Passes the current exception to the request, which raises it again or continues. */
static PyObject *hand_over(struct core_flask_request *request, PyObject *method,
                           struct core_evaluation *evaluation) {
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    PyObject *result = call_request(request, method, evaluation, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result;
}

static bool must_wait(const struct core_evaluation *evaluation) {
    for (Py_ssize_t i = 0; i < evaluation->check->main; i++)
        if (evaluation->parts >> i & 1 && evaluation->item[i].verdict.delay_ns > 0)
            return true;
    return false;
}

static int remember_pending(struct core_flask_request *request, PyObject *evaluation) {
    if (!request->pending && !(request->pending = PyList_New(0)))
        return -1;
    return PyList_Append(request->pending, evaluation);
}

/* Evaluates a prepared check. */
static PyObject *evaluate(struct core_hooks *self, struct core_flask_request *request,
                          struct core_prepared *check) {
    PyObject *result = NULL;
    request->defaults_counted |= check->defaults;
    struct core_evaluation *evaluation = core_evaluation_gather(check);
    if (!evaluation)
        return hand_over(request, self->name[S_FAILED], NULL);
    if (core_evaluation_decide(evaluation) < 0) {
        result = hand_over(request, self->name[S_FAILED], evaluation);
    } else if (!core_evaluation_passes(evaluation) || must_wait(evaluation)) {
        result = call_request(request, self->name[S_CONCLUDE], evaluation, NULL);
    } else {
        Py_XSETREF(request->evaluation,
                   (struct core_evaluation *)Py_NewRef((PyObject *)evaluation));
        if (!(check->responsive & evaluation->parts) ||
            remember_pending(request, (PyObject *)evaluation) == 0)
            result = Py_NewRef(Py_None);
    }
    Py_DECREF((PyObject *)evaluation);
    return result;
}

/* Whether a filter selects the `bare` checks; -1 with an exception. */
static int filtered(const struct core_plan *plan) {
    PyObject *filters = plan->filters;
    if (!filters || !PyList_CheckExact(filters))
        return 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(filters); i++) {
        PyObject *filter = Py_NewRef(PyList_GET_ITEM(filters, i));
        PyObject *result = PyObject_CallNoArgs(filter);
        int rc = result ? PyObject_IsTrue(result) : -1;
        Py_DECREF(filter);
        Py_XDECREF(result);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/*
 * Runs the check at `node`: None (nothing to check), a prepared check, or an object whose
 * next(request) returns another node, or the request itself if it has made the check.
 */
static PyObject *run(struct core_hooks *self, struct core_flask_request *request, PyObject *node) {
    struct core_plan *plan = PLAN(request->plan);
    PyObject *result;
    int skip = filtered(plan);
    if (skip < 0)
        return NULL;
    Py_INCREF(node = skip && plan->bare ? plan->bare : node);
    while (node != Py_None && !PyObject_TypeCheck(node, self->state->prepared_type)) {
        PyObject *next = PyObject_CallMethodOneArg(node, self->name[S_NEXT], (PyObject *)request);
        Py_SETREF(node, next);
        if (!next)
            return hand_over(request, self->name[S_FAILED], NULL);
        if (node == (PyObject *)request) { /* it has made the check itself */
            Py_DECREF(node);
            return Py_NewRef(Py_None);
        }
    }
    if (node == Py_None) {
        Py_CLEAR(request->evaluation);
        result = Py_NewRef(Py_None);
    } else {
        result = evaluate(self, request, (struct core_prepared *)node);
    }
    Py_DECREF(node);
    return result;
}

static PyObject *hooks_run(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_hooks *self = SELF(object);
    if (nargs != 2 || Py_TYPE(args[0]) != self->request_type ||
        !PyObject_TypeCheck(REQUEST(args[0])->plan, self->state->plan_type)) {
        PyErr_SetString(PyExc_TypeError, "run() takes a request and a node");
        return NULL;
    }
    return run(self, REQUEST(args[0]), args[1]);
}

/* ------------------------------------------------------------------------------ before dispatch */

/*
 * The plan for the request's endpoint and method, if the view is still the one it was made for;
 * NULL without an exception otherwise. New reference.
 */
static PyObject *find_plan(struct core_hooks *self, PyObject *request, PyObject *plans,
                           PyObject *views) {
    PyObject *found = NULL;
    PyObject *rule = PyObject_GetAttr(request, self->name[S_URL_RULE]);
    PyObject *endpoint =
        rule && rule != Py_None ? PyObject_GetAttr(rule, self->name[S_ENDPOINT]) : NULL;
    PyObject *method = endpoint ? PyObject_GetAttr(request, self->name[S_METHOD]) : NULL;
    PyObject *methods = method ? PyDict_GetItemWithError(plans, endpoint) : NULL;
    if (methods && PyDict_Check(methods))
        found = PyDict_GetItemWithError(methods, method);
    if (found && (!PyObject_TypeCheck(found, self->state->plan_type) ||
                  PyDict_GetItemWithError(views, endpoint) != PLAN(found)->function))
        found = NULL;
    Py_XINCREF(found);
    PyErr_Clear();
    Py_XDECREF(rule);
    Py_XDECREF(endpoint);
    Py_XDECREF(method);
    return found;
}

/* Begins a request with its plan: stores its state in the context. */
static PyObject *begin(struct core_hooks *self, PyObject *context, PyObject *plan) {
    PyObject *result = NULL;
    PyObject *held = self->request_type->tp_alloc(self->request_type, 0);
    if (!held)
        return NULL;
    REQUEST(held)->plan = Py_NewRef(plan);
    if (PyObject_SetAttr(context, self->slot, held) == 0)
        result = PLAN(plan)->before && PLAN(plan)->before != Py_None
                     ? run(self, REQUEST(held), PLAN(plan)->before)
                     : Py_NewRef(Py_None);
    Py_DECREF(held);
    return result;
}

static PyObject *hooks_before(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_hooks *self = SELF(object);
    if (nargs != 2 || !PyDict_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "before() takes two dicts");
        return NULL;
    }
    PyObject *context = context_of(self);
    PyObject *request = context ? PyObject_GetAttr(context, self->name[S_REQUEST]) : NULL;
    PyObject *plan = request ? find_plan(self, request, args[0], args[1]) : NULL;
    if (!plan)
        PyErr_Clear();
    PyObject *result = plan ? begin(self, context, plan) : Py_NewRef(Py_False);
    Py_XDECREF(plan);
    Py_XDECREF(request);
    Py_XDECREF(context);
    return result;
}

static PyObject *hooks_begin(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    struct core_hooks *self = SELF(object);
    if (nargs != 2 || !PyObject_TypeCheck(args[1], self->state->plan_type)) {
        PyErr_SetString(PyExc_TypeError, "begin() takes a request context and a plan");
        return NULL;
    }
    return begin(self, args[0], args[1]);
}

/* ------------------------------------------------------------------------------------- the call */

static PyObject *hooks_call(PyObject *object, PyObject *view) {
    struct core_hooks *self = SELF(object);
    PyObject *context = context_of(self);
    struct core_flask_request *held = context ? held_of(self, context) : NULL;
    Py_XDECREF(context);
    PyObject *node = NULL;
    if (held) {
        const struct core_plan *plan = PLAN(held->plan);
        if (plan->view == view)
            node = held->defaults_counted ? plan->at_call_counted : plan->at_call;
    }
    PyObject *result = NULL;
    if (!node) {
        result = Py_NewRef(Py_None);
    } else {
        Py_INCREF(node); /* the call may delete the plan */
        result = run(self, held, node);
        if (result == Py_None) {
            Py_SETREF(result,
                      held->wake > 0 ? PyFloat_FromDouble(held->wake) : Py_NewRef(self->zero));
            held->wake = 0;
        }
        Py_DECREF(node);
    }
    Py_XDECREF((PyObject *)held);
    return result;
}

/* --------------------------------------------------------------------------------- the response */

/* The list inside a response's headers; NULL without an exception if it is not found. */
static PyObject *header_list(struct core_hooks *self, PyObject *response) {
    PyObject *headers = PyObject_GetAttr(response, self->name[S_HEADERS]);
    PyObject *pairs = headers ? PyObject_GetAttr(headers, self->name[S_LIST]) : NULL;
    if (!pairs)
        PyErr_Clear();
    else if (!PyList_CheckExact(pairs))
        Py_CLEAR(pairs);
    Py_XDECREF(headers);
    return pairs;
}

/* Writes the headers in common cases: 1; 0 if Python code must do it; -1 with an exception. */
static int write_headers(struct core_hooks *self, PyObject *response,
                         struct core_evaluation *evaluation) {
    PyObject *templates = evaluation->check->headers;
    int32_t reported = evaluation->reported;
    if (!templates || !PyTuple_CheckExact(templates) || reported >= PyTuple_GET_SIZE(templates))
        return 0;
    PyObject *template = PyTuple_GET_ITEM(templates, reported);
    if (!PyTuple_CheckExact(template) || PyTuple_GET_SIZE(template) != 4)
        return 0;
    PyObject *pairs = header_list(self, response);
    int rc = pairs ? core_evaluation_write_headers(evaluation, pairs, template) : 0;
    Py_XDECREF(pairs);
    return rc;
}

/*
 * Settles one pending evaluation, or (evaluation, parts), by the response. 0, or -1 with an
 * exception.
 */
static int respond(struct core_hooks *self, struct core_flask_request *held, PyObject *item,
                   PyObject *response) {
    PyObject *object = item;
    uint32_t parts = UINT32_MAX;
    if (PyTuple_CheckExact(item) && PyTuple_GET_SIZE(item) == 2) {
        object = PyTuple_GET_ITEM(item, 0);
        parts = (uint32_t)PyLong_AsUnsignedLongMask(PyTuple_GET_ITEM(item, 1));
    }
    if (!core_is_evaluation(object)) {
        PyErr_SetString(PyExc_TypeError, "pending contains an item that is not an Evaluation");
        return -1;
    }
    struct core_evaluation *evaluation = (struct core_evaluation *)object;
    parts &= evaluation->parts & evaluation->check->responsive;
    int rc = core_evaluation_respond(evaluation, response, parts);
    if (rc == -2) {
        PyObject *result = hand_over(held, self->name[S_FAILED_LATE], NULL);
        Py_XDECREF(result);
        rc = result ? 0 : -1;
    }
    return rc;
}

static int respond_all(struct core_hooks *self, struct core_flask_request *held,
                       PyObject *response) {
    PyObject *pending = held->pending;
    int rc = 0;
    held->pending = NULL; /* we own it now */
    for (Py_ssize_t i = 0; PyList_Check(pending) && i < PyList_GET_SIZE(pending) && rc == 0; i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(pending, i));
        rc = respond(self, held, item, response);
        Py_DECREF(item);
    }
    Py_DECREF(pending);
    return rc;
}

static PyObject *hooks_after(PyObject *object, PyObject *response) {
    struct core_hooks *self = SELF(object);
    PyObject *context = context_of(self);
    struct core_flask_request *held = context ? held_of(self, context) : NULL;
    Py_XDECREF(context);
    int rc = 1;
    if (held && held->pending && respond_all(self, held, response) < 0)
        rc = -1;
    if (rc > 0 && held && held->evaluation && held->evaluation->reported >= 0) {
        struct core_evaluation *evaluation =
            (struct core_evaluation *)Py_NewRef((PyObject *)held->evaluation);
        rc = write_headers(self, response, evaluation);
        Py_DECREF((PyObject *)evaluation);
    }
    PyObject *result = rc < 0 ? NULL : rc > 0 ? Py_NewRef(Py_None) : Py_NewRef((PyObject *)held);
    Py_XDECREF((PyObject *)held);
    return result;
}

/* --------------------------------------------------------------------------------------- type */

PyDoc_STRVAR(hooks_doc, "FlaskHooks(current, slot, request_type, /)\n--\n\n"
                        "The hooks that Flask calls before and after requests.\n\n"
                        "current: returns the request context. slot: its attribute that is used.\n"
                        "request_type: a class that derives from RequestBase.");

static PyMethodDef hooks_methods[] = {
    {"before", (PyCFunction)(void (*)(void))hooks_before, METH_FASTCALL,
     PyDoc_STR("before($self, plans, views, /)\n--\n\n"
               "Begins the request and runs the check before dispatch. Returns None, or the\n"
               "exception that refuses the request, or False, with nothing done, if there is no\n"
               "plan for it.")},
    {"begin", (PyCFunction)(void (*)(void))hooks_begin, METH_FASTCALL,
     PyDoc_STR("begin($self, context, plan, /)\n--\n\n"
               "The same with a given plan.")},
    {"run", (PyCFunction)(void (*)(void))hooks_run, METH_FASTCALL,
     PyDoc_STR("run($self, request, node, /)\n--\n\n"
               "Runs one check of a request. Returns None, or the exception that refuses it.")},
    {"call", hooks_call, METH_O,
     PyDoc_STR("call($self, view, /)\n--\n\n"
               "Makes the check of a limited function: when it may run (0.0: at once), or the\n"
               "exception that refuses the request; None, with nothing done, if that was not\n"
               "planned.")},
    {"after", hooks_after, METH_O,
     PyDoc_STR("after($self, response, /)\n--\n\n"
               "Writes headers. Returns None, or the request if Python code has more to do.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot hooks_slots[] = {
    {Py_tp_doc, (void *)hooks_doc},
    {Py_tp_new, hooks_new},
    {Py_tp_dealloc, hooks_dealloc},
    {Py_tp_traverse, hooks_traverse},
    {Py_tp_clear, hooks_clear},
    {Py_tp_methods, hooks_methods},
    {0, NULL},
};

PyType_Spec core_hooks_spec = {
    .name = "weir.FlaskHooks",
    .basicsize = sizeof(struct core_hooks),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = hooks_slots,
};
