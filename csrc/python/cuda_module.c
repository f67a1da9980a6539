/* diffcls._cuda: the CUDA backend for diffcls._core, in a capsule.  Its own module, so that the core needs no CUDA. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cuda/cuda.h"
#include "python/core.h"

static PyObject *raise_error(const dc_error *err)
{
    PyObject *errors, *type;
    if (err->status == DC_ERR_NOMEM) {
        PyErr_SetString(PyExc_MemoryError, err->message);
        return NULL;
    }
    if ((errors = PyImport_ImportModule("diffcls.errors")) == NULL)
        return NULL;
    if ((type = PyObject_GetAttrString(errors, "DeviceError")) != NULL)
        PyErr_SetString(type, err->message);
    Py_XDECREF(type);
    Py_DECREF(errors);
    return NULL;
}

static PyObject *why_not(PyObject *module, PyObject *unused)
{
    int n;
    dc_error err = {0};
    (void)module, (void)unused;
    if (dc_cuda_device_count(&n, &err) != DC_OK)
        return PyUnicode_FromString(err.message);
    Py_RETURN_NONE;
}

static void close_backend(PyObject *capsule)
{
    dc_cuda_backend_free(PyCapsule_GetPointer(capsule, CORE_BACKEND_CAPSULE));
}

static PyObject *open_backend(PyObject *module, PyObject *args)
{
    int device;
    unsigned long long stream;
    const char *cublaslt = NULL;
    dc_backend *backend;
    dc_error err = {0};
    (void)module;
    if (!PyArg_ParseTuple(args, "iK|z:open", &device, &stream, &cublaslt))
        return NULL;
    if (dc_cuda_backend_new(&backend, device, stream, &err) != DC_OK)
        return raise_error(&err);
    if (cublaslt != NULL && dc_cuda_open_products(backend, cublaslt, &err) != DC_OK) {
        dc_cuda_backend_free(backend);
        return raise_error(&err);
    }
    PyObject *capsule = PyCapsule_New(backend, CORE_BACKEND_CAPSULE, close_backend);
    if (capsule == NULL)
        dc_cuda_backend_free(backend);
    return capsule;
}

static PyMethodDef cuda_methods[] = {
    {"why_not", why_not, METH_NOARGS, "Why no device can be used: a sentence, or None when one can."},
    {"open", open_backend, METH_VARARGS, "open(device, stream, cublaslt=None, /)\n--\n\nA backend for work on that stream, for _core; with the library at "
     "cublaslt it computes the native DiT."},
    {0},
};

static PyModuleDef_Slot cuda_slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static PyModuleDef cuda_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "diffcls._cuda",
    .m_doc = "The compiled core of diffcls, CUDA.",
    .m_methods = cuda_methods,
    .m_slots = cuda_slots,
};

PyMODINIT_FUNC PyInit__cuda(void)
{
    return PyModuleDef_Init(&cuda_module);
}
