/* RemoteAddress, the default key function of weir.flask: the address of the client. */
#include "flask_address.h"

/* A key function: the address of the client. */
struct core_address {
    PyObject ob_base;
    PyObject *current, *otherwise, *request, *address, *nowhere;
};

#define ADDRESS(object) ((struct core_address *)(object))

static PyObject *address_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *current, *otherwise;
    if (!PyArg_ParseTuple(args, "OO:RemoteAddress", &current, &otherwise))
        return NULL;
    struct core_address *self = ADDRESS(type->tp_alloc(type, 0));
    if (!self)
        return NULL;
    self->current = Py_NewRef(current);
    self->otherwise = Py_NewRef(otherwise);
    self->request = PyUnicode_InternFromString("request");
    self->address = PyUnicode_InternFromString("remote_addr");
    self->nowhere = PyUnicode_InternFromString("127.0.0.1");
    if (!self->request || !self->address || !self->nowhere)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int address_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(ADDRESS(object)->current);
    Py_VISIT(ADDRESS(object)->otherwise);
    return 0;
}

static int address_clear(PyObject *object) {
    Py_CLEAR(ADDRESS(object)->current);
    Py_CLEAR(ADDRESS(object)->otherwise);
    return 0;
}

static void address_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    address_clear(object);
    Py_XDECREF(ADDRESS(object)->request);
    Py_XDECREF(ADDRESS(object)->address);
    Py_XDECREF(ADDRESS(object)->nowhere);
    type->tp_free(object);
    Py_DECREF(type);
}

/* The address if it is plain IPv4; NULL without an exception for all other cases. */
static PyObject *plain_address(struct core_address *self) {
    PyObject *context = self->current ? PyObject_CallNoArgs(self->current) : NULL;
    PyObject *request = context ? PyObject_GetAttr(context, self->request) : NULL;
    PyObject *address = request ? PyObject_GetAttr(request, self->address) : NULL;
    Py_XDECREF(context);
    Py_XDECREF(request);
    if (!address) {
        PyErr_Clear();
        return NULL;
    }
    bool text = PyUnicode_CheckExact(address) && PyUnicode_IS_COMPACT_ASCII(address);
    Py_ssize_t len = text ? PyUnicode_GET_LENGTH(address) : 0;
    const char *bytes = text ? (const char *)PyUnicode_1BYTE_DATA(address) : "";
    bool plain = len > 0 && bytes[0] != '[' && !memchr(bytes, ':', (size_t)len);
    if (plain)
        return address;
    bool nowhere = address == Py_None || (text && len == 0);
    Py_DECREF(address);
    return nowhere ? Py_NewRef(self->nowhere) : NULL;
}

static PyObject *address_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    struct core_address *self = ADDRESS(object);
    if (PyTuple_GET_SIZE(args) > 0 || (kwargs && PyDict_GET_SIZE(kwargs) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a key function takes no arguments");
        return NULL;
    }
    PyObject *address = plain_address(self);
    if (!address && self->otherwise)
        address = PyObject_CallNoArgs(self->otherwise);
    else if (!address)
        PyErr_SetString(PyExc_RuntimeError, "the key function is being deleted");
    return address;
}

static PyType_Slot address_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR(
         "RemoteAddress(current, otherwise, /)\n--\n\n"
         "A key function: the client's address if that is plain IPv4, else the result of\n"
         "the function `otherwise`. current: returns the request context.")},
    {Py_tp_new, address_new},
    {Py_tp_dealloc, address_dealloc},
    {Py_tp_traverse, address_traverse},
    {Py_tp_clear, address_clear},
    {Py_tp_call, address_call},
    {0, NULL},
};

PyType_Spec core_address_spec = {
    .name = "weir.RemoteAddress",
    .basicsize = sizeof(struct core_address),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = address_slots,
};
