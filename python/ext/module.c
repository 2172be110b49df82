/* The module: its state, its types, and conversions of numbers. */
#include "core.h"
#include "stores.h"

/* ------------------------------------------------------------------------------------- numbers */

int core_count(PyObject *object, const char *what, int64_t *count) {
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be int, not %.100s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow || value < 0) {
        PyErr_Format(PyExc_ValueError, "%s must be 0 to 2**63-1, not %R", what, object);
        return -1;
    }
    *count = value;
    return 0;
}

double core_number(PyObject *object, const char *what) {
    if (PyFloat_Check(object) || (PyLong_Check(object) && !PyBool_Check(object)))
        return PyFloat_AsDouble(object);
    PyErr_Format(PyExc_TypeError, "%s must be float or int, not %.100s", what,
                 Py_TYPE(object)->tp_name);
    return -1.0;
}

int core_seconds_to_ns(double seconds, const char *what, int64_t *ns) {
    if (!(seconds >= 0.0 && seconds <= 9223372036.0)) {
        PyObject *number = PyFloat_FromDouble(seconds);
        if (number)
            PyErr_Format(PyExc_ValueError, "%s must be 0 to 9223372036 seconds, not %R", what,
                         number);
        Py_XDECREF(number);
        return -1;
    }
    *ns = (int64_t)(seconds * 1e6 + 0.5) * 1000;
    return 0;
}

double core_ns_to_seconds(int64_t ns) {
    if (ns == WEIR_NEVER)
        return Py_HUGE_VAL;
    return (double)(ns / 1000 + (ns % 1000 > 0)) / 1e6;
}

/* --------------------------------------------------------------------------------------- state */

struct core_state *core_state_of(PyTypeObject *type) {
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *module = PyType_GetModuleByDef(type, &core_module);
    return module ? PyModule_GetState(module) : NULL;
#else
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *)PyTuple_GET_ITEM(mro, i);
        if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE))
            continue;
        PyObject *module = ((PyHeapTypeObject *)base)->ht_module;
        if (module && PyModule_GetDef(module) == &core_module)
            return PyModule_GetState(module);
    }
    PyErr_SetString(PyExc_TypeError, "not a type of weir");
    return NULL;
#endif
}

/* A new exception class "weir.<name>" over one or two bases. */
static PyObject *add_error(PyObject *module, const char *name, PyObject *base, PyObject *second,
                           const char *attribute, PyObject *value, const char *doc) {
    PyObject *bases = second ? PyTuple_Pack(2, base, second) : PyTuple_Pack(1, base);
    PyObject *members = attribute ? Py_BuildValue("{s:O}", attribute, value) : PyDict_New();
    PyObject *type = bases && members ? PyErr_NewExceptionWithDoc(name, doc, bases, members) : NULL;
    if (type && PyModule_AddObjectRef(module, strchr(name, '.') + 1, type) < 0)
        Py_CLEAR(type);
    Py_XDECREF(bases);
    Py_XDECREF(members);
    return type;
}

/* By default, is_outage is true for errors of stores and false for all others. */
static int add_is_outage(const struct core_state *state) {
    return PyObject_SetAttrString(state->error, "is_outage", Py_False) < 0 ||
                   PyObject_SetAttrString(state->storage_error, "is_outage", Py_True) < 0
               ? -1
               : 0;
}

static int add_errors(PyObject *module, struct core_state *state) {
    PyObject *empty = PyUnicode_FromString("");
    PyObject *zero = PyLong_FromLong(0);
    if (empty && zero &&
        (state->error = add_error(module, "weir.WeirError", PyExc_Exception, NULL, "code", empty,
                                  "Base of all errors. `code` is libweir's, e.g. 'ENOSPC'.")) &&
        (state->parse_error = add_error(
             module, "weir.ParseError", state->error, PyExc_ValueError, "column", zero,
             "A limit string or URI that cannot be read. `column` is 1-based; 0: none.")) &&
        (state->storage_error =
             add_error(module, "weir.StorageError", state->error, NULL, "storage_error", Py_None,
                       "A store that could not decide. `storage_error` is the cause, if any.")))
        state->table_error =
            add_error(module, "weir.TableError", state->storage_error, PyExc_OSError, NULL, NULL,
                      "A table that cannot be opened or used.");
    Py_XDECREF(empty);
    Py_XDECREF(zero);
    return state->table_error ? add_is_outage(state) : -1;
}

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

static PyTypeObject *add_subtype(PyObject *module, PyType_Spec *spec, PyTypeObject *base) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    if (type && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec) {
    return add_subtype(module, spec, NULL);
}

static int add_types(PyObject *module, struct core_state *state) {
    return (state->limit_type = add_type(module, &core_limit_spec)) &&
                   (state->decision_type = add_type(module, &core_decision_spec)) &&
                   (state->table_type = add_type(module, &core_table_spec)) &&
                   (state->limiter_type = add_type(module, &core_limiter_spec)) &&
                   (state->prepared_type = add_type(module, &core_prepared_spec)) &&
                   (state->evaluation_type = add_type(module, &core_evaluation_spec)) &&
                   (state->request_type = add_type(module, &core_request_spec)) &&
                   (state->plan_type = add_type(module, &core_plan_spec)) &&
                   (state->hooks_type = add_type(module, &core_hooks_spec)) &&
                   (state->address_type = add_type(module, &core_address_spec)) &&
                   (state->peek_type = add_subtype(module, &peek_spec, &PyLong_Type))
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
 * A free-threaded Python enables the GIL before it executes this module, because of Py_MOD_GIL_USED, unless
 * PYTHON_GIL=0 or -X gil=0 forbids that. Then the import fails: without the GIL, for example, close() unmaps a
 * table while another thread decides. Returns 0, or -1 with ImportError set.
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
                   add_errors(module, state) < 0 || add_types(module, state) < 0 ||
                   add_constants(module) < 0 || core_add_strategies(module) < 0 ||
                   core_add_units(module) < 0 || remote_init(module) < 0
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
    /* Tables, prepared checks, limits and the module's clock keep caches and counts that the GIL guards; see
       docs/installing.md. So a free-threaded Python turns the GIL on when it imports this module. */
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "weir._core",
    .m_doc = PyDoc_STR("Python objects over libweir's structs."),
    .m_size = sizeof(struct core_state),
    .m_methods = core_functions,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&core_module);
}
