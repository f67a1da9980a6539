#include "python/arrays.h"

#include <numpy/arrayobject.h>
#include <string.h>

#include "base/memory.h"
#include "python/dlpack.h"

int arrays_init(void)
{
    import_array1(-1);
    return 0;
}

/* ---- NumPy arrays ------------------------------------------------------------------------------------------------ */

static int numpy_type(array_type type)
{
    switch (type) {
    case ARRAY_FLOAT32:
        return NPY_FLOAT32;
    case ARRAY_FLOAT64:
        return NPY_FLOAT64;
    case ARRAY_INT64:
        return NPY_INT64;
    case ARRAY_UINT32:
        return NPY_UINT32;
    case ARRAY_BOOL:
        return NPY_BOOL;
    }
    return NPY_NOTYPE;
}

static const char *type_name(array_type type)
{
    static const char *const names[] = {"float32", "float64", "int64", "uint32", "bool"};
    return names[type];
}

PyObject *array_in(core_state *state, PyObject *object, array_type type, int n_dims, const char *name)
{
    PyObject *array = PyArray_FROM_OTF(object, numpy_type(type), NPY_ARRAY_IN_ARRAY);
    if (array == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            PyErr_Format(state->exceptions[DC_ERR_DTYPE], "%s is %R, which is no array of %s", name, Py_TYPE(object),
                         type_name(type));
        }
        return NULL;
    }
    if (n_dims >= 0 && PyArray_NDIM((PyArrayObject *)array) != n_dims) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has %d dimensions, must have %d", name,
                     PyArray_NDIM((PyArrayObject *)array), n_dims);
        Py_CLEAR(array);
    }
    return array;
}

PyObject *array_of_size(core_state *state, PyObject *object, array_type type, int64_t n_items, const char *name)
{
    PyObject *array = array_in(state, object, type, -1, name);
    if (array != NULL && array_size(array) != n_items) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has %lld items, must have %lld", name,
                     (long long)array_size(array), (long long)n_items);
        Py_CLEAR(array);
    }
    return array;
}

void *array_out(core_state *state, PyObject *object, array_type type, int64_t n_items, const char *name)
{
    if (!PyArray_Check(object) || PyArray_TYPE((PyArrayObject *)object) != numpy_type(type) ||
        !PyArray_ISCARRAY((PyArrayObject *)object)) {
        PyErr_Format(state->exceptions[DC_ERR_DTYPE], "%s must be a writeable C-contiguous array of %s", name,
                     type_name(type));
        return NULL;
    }
    if (n_items >= 0 && array_size(object) != n_items) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has %lld items, must have %lld", name,
                     (long long)array_size(object), (long long)n_items);
        return NULL;
    }
    return PyArray_DATA((PyArrayObject *)object);
}

PyObject *array_new(int n_dims, const int64_t *shape, array_type type)
{
    npy_intp dims[TENSOR_DIMS];
    for (int i = 0; i < n_dims; i++)
        dims[i] = (npy_intp)shape[i];
    return PyArray_SimpleNew(n_dims, dims, numpy_type(type));
}

PyObject *array_view(PyObject *owner, int n_dims, const int64_t *shape, array_type type)
{
    npy_intp dims[TENSOR_DIMS];
    for (int i = 0; i < n_dims; i++)
        dims[i] = (npy_intp)shape[i];
    PyObject *view = PyArray_SimpleNewFromData(n_dims, dims, numpy_type(type), array_data(owner));
    if (view != NULL && PyArray_SetBaseObject((PyArrayObject *)view, Py_NewRef(owner)) < 0)
        Py_CLEAR(view);
    return view;
}

void *array_data(PyObject *array)
{
    return PyArray_DATA((PyArrayObject *)array);
}

int64_t array_size(PyObject *array)
{
    return PyArray_SIZE((PyArrayObject *)array);
}

int64_t array_dim(PyObject *array, int axis)
{
    return PyArray_DIM((PyArrayObject *)array, axis);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* NumPy has no bfloat16 of its own; JAX's arrays come as that of the package ml_dtypes. */
static int is_bfloat16(PyArrayObject *array)
{
    return PyTypeNum_ISUSERDEF(PyArray_TYPE(array)) && PyArray_ITEMSIZE(array) == 2 &&
           strcmp(PyArray_DESCR(array)->typeobj->tp_name, "ml_dtypes.bfloat16") == 0;
}

static int tensor_from_numpy(core_state *state, tensor *out, PyObject *object, const char *name)
{
    PyArrayObject *array = (PyArrayObject *)object;
    int64_t item = PyArray_ITEMSIZE(array);
    switch (PyArray_TYPE(array)) {
    case NPY_FLOAT32:
        out->dtype = DC_FLOAT32;
        break;
    case NPY_FLOAT64:
        out->dtype = DC_FLOAT64;
        break;
    case NPY_FLOAT16:
        out->dtype = DC_FLOAT16;
        break;
    default:
        if (is_bfloat16(array)) {
            out->dtype = DC_BFLOAT16;
            break;
        }
        PyErr_Format(state->exceptions[DC_ERR_DTYPE], "%s is of dtype %S, must be float32, float64, float16 or bfloat16",
                     name, PyArray_DESCR(array));
        return -1;
    }
    if (!PyArray_ISNOTSWAPPED(array)) {
        PyErr_Format(state->exceptions[DC_ERR_DTYPE], "%s is in the other byte order, must be native", name);
        return -1;
    }
    if (PyArray_NDIM(array) > TENSOR_DIMS) { /* NumPy itself allows 64 */
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has %d dimensions, must have 0 to %d", name, PyArray_NDIM(array),
                     TENSOR_DIMS);
        return -1;
    }
    out->data = PyArray_DATA(array);
    out->n_dims = PyArray_NDIM(array);
    for (int i = 0; i < out->n_dims; i++) {
        out->shape[i] = PyArray_DIM(array, i);
        out->strides[i] = PyArray_STRIDE(array, i) / item;
        if (PyArray_STRIDE(array, i) % item != 0) {
            PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has a stride of %lld bytes, which is no multiple of %lld",
                         name, (long long)PyArray_STRIDE(array, i), (long long)item);
            return -1;
        }
    }
    out->owner = Py_NewRef(object);
    return 0;
}

/* Memory that CUDA manages is everybody's. */
static int check_place(core_state *state, int type, int id, const dc_backend *backend, const char *name)
{
    PyObject *exception = state->exceptions[DC_ERR_DEVICE];
    if (type == DLPACK_CUDA_MANAGED)
        return 0;
    if (backend->device != NULL) {
        if (type == DLPACK_CUDA && id == backend->device_index)
            return 0;
        if (type == DLPACK_CUDA)
            PyErr_Format(exception, "%s is on cuda:%d, must be on cuda:%d", name, id, backend->device_index);
        else
            PyErr_Format(exception, "%s is on DLPack device %d, must be on cuda:%d", name, type, backend->device_index);
        return -1;
    }
    if (type == DLPACK_CPU || type == DLPACK_CUDA_HOST)
        return 0;
    PyErr_Format(exception, "%s is on DLPack device %d, must be on the CPU", name, type);
    return -1;
}

static int read_dlpack(core_state *state, tensor *out, const dlpack_tensor *from, const dc_backend *backend, const char *name)
{
    int code = from->dtype.code, bits = from->dtype.bits;
    if (check_place(state, from->device.type, from->device.id, backend, name) < 0)
        return -1;
    if (code == DLPACK_FLOAT && bits == 32)
        out->dtype = DC_FLOAT32;
    else if (code == DLPACK_FLOAT && bits == 64)
        out->dtype = DC_FLOAT64;
    else if (code == DLPACK_FLOAT && bits == 16)
        out->dtype = DC_FLOAT16;
    else if (code == DLPACK_BFLOAT && bits == 16)
        out->dtype = DC_BFLOAT16;
    if (!((code == DLPACK_FLOAT && (bits == 16 || bits == 32 || bits == 64)) || (code == DLPACK_BFLOAT && bits == 16)) ||
        from->dtype.lanes != 1) {
        PyErr_Format(state->exceptions[DC_ERR_DTYPE],
                     "%s is of DLPack type code %d with %d bits and %d lanes, must be float32, float64, float16 or "
                     "bfloat16",
                     name, code, bits, (int)from->dtype.lanes);
        return -1;
    }
    int n_dims = from->n_dims;
    if (n_dims < 0 || n_dims > TENSOR_DIMS || (n_dims > 0 && from->shape == NULL)) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has %d dimensions, must have 0 to %d", name, n_dims,
                     TENSOR_DIMS);
        return -1;
    }
    int64_t items = 1;
    for (int i = n_dims - 1; i >= 0; i--) {
        out->shape[i] = from->shape[i];
        out->strides[i] = from->strides != NULL ? from->strides[i] : items;
        if (!dc_size_mul(&items, items, from->shape[i])) {
            PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has a shape that is negative or overflows", name);
            return -1;
        }
    }
    if (items > 0 && from->data == NULL) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has %lld items and no data", name, (long long)items);
        return -1;
    }
    out->n_dims = n_dims;
    out->data = from->data == NULL ? NULL : (const char *)from->data + from->byte_offset;
    return 0;
}

/* Takes the capsule's tensor over: renamed, so that its own destructor leaves it alone. */
static int tensor_from_capsule(core_state *state, tensor *out, PyObject *capsule, const dc_backend *backend,
                               const char *name)
{
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        dlpack_versioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        PyCapsule_SetName(capsule, "used_dltensor_versioned");
        out->managed = managed;
        out->is_versioned = 1;
        if (managed->version.major != 1) {
            PyErr_Format(state->exceptions[DC_ERR_DTYPE], "%s speaks DLPack %u, must speak 1", name,
                         (unsigned)managed->version.major);
            return -1;
        }
        out->is_read_only = (managed->flags & DLPACK_READ_ONLY) != 0;
        return read_dlpack(state, out, &managed->tensor, backend, name);
    }
    if (PyCapsule_IsValid(capsule, "dltensor")) {
        dlpack_managed *managed = PyCapsule_GetPointer(capsule, "dltensor");
        PyCapsule_SetName(capsule, "used_dltensor");
        out->managed = managed;
        return read_dlpack(state, out, &managed->tensor, backend, name);
    }
    PyErr_Format(state->exceptions[DC_ERR_DTYPE], "%s gives no DLPack capsule, or a used one", name);
    return -1;
}

/* A producer's own exception becomes one of ours, with its words.  Lack of memory stays that; so does an interrupt, which is
 * no Exception. */
static void retell(PyObject *ours, const char *name, const char *words)
{
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyErr_Format(ours, "%s %s (%S)", name, words, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* object.__dlpack__(max_version=(1, 0)), and without the argument for producers older than it; for a device with its stream,
 * which the producer then makes wait for what it has under way. */
static PyObject *call_dlpack(PyObject *object, const dc_backend *backend)
{
    int on_device = backend->device != NULL;
    PyObject *method = PyObject_GetAttrString(object, "__dlpack__"), *capsule = NULL, *empty = PyTuple_New(0);
    PyObject *old = on_device ? Py_BuildValue("{sK}", "stream", (unsigned long long)backend->stream) : PyDict_New();
    PyObject *options = on_device ? Py_BuildValue("{s(ii)sK}", "max_version", 1, 0, "stream", (unsigned long long)backend->stream)
                                  : Py_BuildValue("{s(ii)}", "max_version", 1, 0);
    if (method != NULL && empty != NULL && old != NULL && options != NULL) {
        capsule = PyObject_Call(method, empty, options);
        if (capsule == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            capsule = PyObject_Call(method, empty, old);
        }
    }
    Py_XDECREF(old);
    Py_XDECREF(options);
    Py_XDECREF(empty);
    Py_XDECREF(method);
    return capsule;
}

/* Refuses a device before the producer copies or synchronises anything. */
static int check_device(core_state *state, PyObject *object, const dc_backend *backend, const char *name)
{
    int type, id;
    PyObject *device = PyObject_CallMethod(object, "__dlpack_device__", NULL);
    if (device == NULL) {
        retell(state->exceptions[DC_ERR_DEVICE], name, "is on no device that DLPack knows");
        return -1;
    }
    int ok = PyTuple_Check(device) && PyArg_ParseTuple(device, "ii", &type, &id);
    Py_DECREF(device);
    if (!ok) {
        PyErr_Clear();
        PyErr_Format(state->exceptions[DC_ERR_DEVICE], "%s does not say which device it is on", name);
        return -1;
    }
    return check_place(state, type, id, backend, name);
}

int tensor_from_object(core_state *state, tensor *out, PyObject *object, const dc_backend *backend, const char *name,
                       PyObject *wrong)
{
    int result = -1;
    memset(out, 0, sizeof *out);
    if (backend->device != NULL && !PyObject_HasAttrString(object, "__dlpack__")) {
        PyErr_Format(wrong, "%s is %R, must be a tensor on cuda:%d", name, Py_TYPE(object), backend->device_index);
    } else if (PyArray_Check(object) && backend->device == NULL) {
        result = tensor_from_numpy(state, out, object, name);
    } else if (PyObject_HasAttrString(object, "__dlpack__")) {
        PyObject *capsule = NULL;
        if (check_device(state, object, backend, name) == 0) {
            if ((capsule = call_dlpack(object, backend)) != NULL)
                result = tensor_from_capsule(state, out, capsule, backend, name);
            else
                retell(state->exceptions[DC_ERR_DTYPE], name, "could not be exported through DLPack");
        }
        Py_XDECREF(capsule);
    } else if (PyObject_CheckBuffer(object)) {
        PyObject *array = PyArray_FROM_O(object);
        if (array != NULL)
            result = tensor_from_numpy(state, out, array, name);
        Py_XDECREF(array);
    } else {
        PyErr_Format(wrong, "%s is %R, must be an array (NumPy, DLPack or a buffer)", name, Py_TYPE(object));
    }
    if (result != 0)
        tensor_clear(out);
    return result;
}

void tensor_clear(tensor *t)
{
    PyObject *type, *value, *traceback; /* a deleter may run Python, which must not see the exception under way */
    PyErr_Fetch(&type, &value, &traceback);
    if (t->managed != NULL && t->is_versioned) {
        dlpack_versioned *managed = t->managed;
        if (managed->deleter != NULL)
            managed->deleter(managed);
    } else if (t->managed != NULL) {
        dlpack_managed *managed = t->managed;
        if (managed->deleter != NULL)
            managed->deleter(managed);
    }
    dc_free(t->copy);
    Py_XDECREF(t->owner);
    memset(t, 0, sizeof *t);
    PyErr_Restore(type, value, traceback);
}
