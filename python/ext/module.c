/* The module: its types, constants and functions. */
#include "core.h"

#include "clock.h"
#include "decision.h"
#include "errors.h"
#include "evaluation_type.h"
#include "flask_address.h"
#include "flask_hooks.h"
#include "flask_request.h"
#include "functions.h"
#include "limit_type.h"
#include "limiter_type.h"
#include "memcached.h"
#include "prepared_type.h"
#include "redis.h"
#include "state_codec.h"
#include "strategies.h"
#include "table.h"
#include "table_type.h"
#include "tuples.h"
#include "units.h"
#include "values.h"

static PyType_Slot peek_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR(
         "Peek(cost)\n--\n\n"
         "A cost for Storage.decide() that is not charged: its limit is tested as with mode\n"
         "TEST. If it denies, nothing is charged to the other limits.")},
    {0, NULL},
};

static PyType_Spec peek_spec = {
    .name = "weir.Peek",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = peek_slots,
};

static int add_types(PyObject *module, struct core_state *state) {
    return (state->limit_type = core_add_type(module, &core_limit_spec, NULL)) &&
                   (state->decision_type = core_add_type(module, &core_decision_spec, NULL)) &&
                   (state->table_type = core_add_type(module, &core_table_spec, NULL)) &&
                   (state->limiter_type = core_add_type(module, &core_limiter_spec, NULL)) &&
                   (state->prepared_type = core_add_type(module, &core_prepared_spec, NULL)) &&
                   (state->evaluation_type = core_add_type(module, &core_evaluation_spec, NULL)) &&
                   (state->request_type = core_add_type(module, &core_request_spec, NULL)) &&
                   (state->plan_type = core_add_type(module, &core_plan_spec, NULL)) &&
                   (state->hooks_type = core_add_type(module, &core_hooks_spec, NULL)) &&
                   (state->address_type = core_add_type(module, &core_address_spec, NULL)) &&
                   (state->peek_type = core_add_type(module, &peek_spec, &PyLong_Type))
               ? core_tuples_init(module, state)
               : -1;
}

static int add_strings(struct core_state *state) {
    const struct {
        PyObject **place;
        const char *text;
    } strings[] = {
        {&state->str_cost, "cost"},
        {&state->str_mode, "mode"},
        {&state->str_decide, "decide"},
        {&state->str_decide_prepared, "decide_prepared"},
        {&state->str_clear, "clear"},
        {&state->str_allowed, "allowed"},
        {&state->str_remaining, "remaining"},
        {&state->str_reset_at, "reset_at"},
        {&state->default_namespace, "LIMITER"},
    };
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        if (!(*strings[i].place = PyUnicode_InternFromString(strings[i].text)))
            return -1;
    return 0;
}

/* UNITS: {name: seconds}. */
static int add_units(PyObject *module) {
    PyObject *table = PyDict_New();
    for (int unit = 0; table && unit < WEIR_UNITS; unit++) {
        PyObject *seconds = PyLong_FromLongLong(weir_unit_seconds(unit));
        if (!seconds || PyDict_SetItemString(table, weir_unit_name(unit), seconds) < 0)
            Py_CLEAR(table);
        Py_XDECREF(seconds);
    }
    int rc = table ? PyModule_AddObjectRef(module, "UNITS", table) : -1;
    Py_XDECREF(table);
    return rc;
}

static int add_constants(PyObject *module) {
    return PyModule_AddStringConstant(module, "VERSION", weir_version()) < 0 ||
                   PyModule_AddIntConstant(module, "CHECKS_MAX", WEIR_CHECKS_MAX) < 0 ||
                   PyModule_AddIntConstant(module, "HIT", WEIR_HIT) < 0 ||
                   PyModule_AddIntConstant(module, "TEST", WEIR_TEST) < 0 ||
                   PyModule_AddIntConstant(module, "EACH", WEIR_EACH) < 0 ||
                   PyModule_AddIntConstant(module, "REFUND", WEIR_REFUND) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_CHARGED", WEIR_ROLE_CHARGED) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_PEEKED", WEIR_ROLE_PEEKED) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_DEFERRED", WEIR_ROLE_DEFERRED) < 0 ||
                   PyModule_AddIntConstant(module, "ROLE_SHADOW", WEIR_ROLE_SHADOW) < 0
               ? -1
               : 0;
}

/*
 * A free-threaded Python enables the GIL before it executes this module, because of
 * Py_MOD_GIL_USED, unless PYTHON_GIL=0 or -X gil=0 forbids that. Then the import fails: without the
 * GIL, for example, close() unmaps a table while another thread decides. Returns 0, or -1 with
 * ImportError set.
 */
static int require_gil(void) {
#ifdef Py_GIL_DISABLED
    PyObject *enabled = PySys_GetObject("_is_gil_enabled"); /* borrowed */
    PyObject *answer = enabled ? PyObject_CallNoArgs(enabled) : Py_NewRef(Py_True);
    int has_gil = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    if (has_gil == 0)
        PyErr_SetString(
            PyExc_ImportError,
            "weir needs the GIL, and PYTHON_GIL=0 or -X gil=0 turned it off: remove that "
            "setting, and importing weir enables the GIL");
    return has_gil == 1 ? 0 : -1;
#else
    return 0;
#endif
}

static int module_exec(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    if (require_gil() < 0)
        return -1;
    core_table_init();
    return core_clock_init(&state->clock) < 0 || add_strings(state) < 0 ||
                   core_errors_init(module, state) < 0 || add_types(module, state) < 0 ||
                   add_constants(module) < 0 || core_add_strategies(module) < 0 ||
                   add_units(module) < 0 || redis_init(module) < 0 || memcached_init(module) < 0 ||
                   state_init(module) < 0
               ? -1
               : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct core_state *state = PyModule_GetState(module);
    Py_VISIT(state->limit_type);
    Py_VISIT(state->decision_type);
    Py_VISIT(state->table_type);
    Py_VISIT(state->limiter_type);
    Py_VISIT(state->prepared_type);
    Py_VISIT(state->evaluation_type);
    Py_VISIT(state->request_type);
    Py_VISIT(state->plan_type);
    Py_VISIT(state->hooks_type);
    Py_VISIT(state->address_type);
    Py_VISIT(state->peek_type);
    Py_VISIT(state->verdict_type);
    Py_VISIT(state->stats_type);
    Py_VISIT(state->granularity_type);
    Py_VISIT(state->counts_type);
    Py_VISIT(state->top_client_type);
    Py_VISIT(state->registered_type);
    Py_VISIT(state->rule_type);
    Py_VISIT(state->unit_classes);
    Py_VISIT(state->granularities);
    Py_VISIT(state->item_hooks);
    Py_VISIT(state->error);
    Py_VISIT(state->parse_error);
    Py_VISIT(state->storage_error);
    Py_VISIT(state->table_error);
    return core_clock_traverse(&state->clock, visit, arg);
}

static int module_clear(PyObject *module) {
    struct core_state *state = PyModule_GetState(module);
    Py_CLEAR(state->limit_type);
    Py_CLEAR(state->decision_type);
    Py_CLEAR(state->table_type);
    Py_CLEAR(state->limiter_type);
    Py_CLEAR(state->prepared_type);
    Py_CLEAR(state->evaluation_type);
    Py_CLEAR(state->request_type);
    Py_CLEAR(state->plan_type);
    Py_CLEAR(state->hooks_type);
    Py_CLEAR(state->address_type);
    Py_CLEAR(state->peek_type);
    Py_CLEAR(state->verdict_type);
    Py_CLEAR(state->stats_type);
    Py_CLEAR(state->granularity_type);
    Py_CLEAR(state->counts_type);
    Py_CLEAR(state->top_client_type);
    Py_CLEAR(state->registered_type);
    Py_CLEAR(state->rule_type);
    Py_CLEAR(state->unit_classes);
    Py_CLEAR(state->granularities);
    Py_CLEAR(state->item_hooks);
    Py_CLEAR(state->error);
    Py_CLEAR(state->parse_error);
    Py_CLEAR(state->storage_error);
    Py_CLEAR(state->table_error);
    core_clock_clear(&state->clock);
    Py_CLEAR(state->str_cost);
    Py_CLEAR(state->str_mode);
    Py_CLEAR(state->str_decide);
    Py_CLEAR(state->str_decide_prepared);
    Py_CLEAR(state->str_clear);
    Py_CLEAR(state->str_allowed);
    Py_CLEAR(state->str_remaining);
    Py_CLEAR(state->str_reset_at);
    Py_CLEAR(state->default_namespace);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    /*
     * Tables, prepared checks, limits and the module's clock keep caches and counts that the GIL
     * guards; see docs/installing.md. So a free-threaded Python turns the GIL on when it imports
     * this module.
     */
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

/* Completes the definition when the file is loaded, before any interpreter can import it. */
__attribute__((constructor)) static void complete_definition(void) {
    core_module.m_methods = core_functions;
    core_module.m_slots = module_slots;
    core_module.m_traverse = module_traverse;
    core_module.m_clear = module_clear;
    core_module.m_free = module_free;
}

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&core_module);
}
