/* The definition of the module, by which its types find its state. module.c has its functions. */
#include "core.h"

struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "weir._core",
    .m_doc = PyDoc_STR("Python objects over libweir's structs."),
    .m_size = sizeof(struct core_state),
};

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
