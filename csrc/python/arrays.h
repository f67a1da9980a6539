/* NumPy arrays and foreign tensors as plain pointers. */
#ifndef DC_PYTHON_ARRAYS_H
#define DC_PYTHON_ARRAYS_H

#include "python/core.h"

enum { TENSOR_DIMS = 32 };

typedef enum array_type { ARRAY_FLOAT32, ARRAY_FLOAT64, ARRAY_INT64, ARRAY_UINT32, ARRAY_BOOL } array_type;

int arrays_init(void); /* loads NumPy's C API; -1 with an exception set */

/* New reference to `object` as a dense native array of the type, copied only when it is not one already; casts that lose
 * nothing are made, others are DTypeError.  n_dims < 0: any. */
PyObject *array_in(core_state *state, PyObject *object, array_type type, int n_dims, const char *name);
/* Same, and its size must be n_items. */
PyObject *array_of_size(core_state *state, PyObject *object, array_type type, int64_t n_items, const char *name);
/* `object` itself, which must be a dense writeable array of the type: borrowed data, NULL with an exception set. */
void *array_out(core_state *state, PyObject *object, array_type type, int64_t n_items, const char *name);
PyObject *array_new(int n_dims, const int64_t *shape, array_type type); /* not initialised */
/* A view of the first rows of a (n, ...) array: shape is the view's; keeps `owner` alive. */
PyObject *array_view(PyObject *owner, int n_dims, const int64_t *shape, array_type type);
void *array_data(PyObject *array);
int64_t array_size(PyObject *array);
int64_t array_dim(PyObject *array, int axis);

/* Any tensor: in host memory a NumPy array, a DLPack producer or a buffer, on a device a DLPack producer.  Clear it with the
 * GIL held. */
typedef struct tensor {
    const char *data;
    dc_dtype dtype;
    int n_dims;
    int64_t shape[TENSOR_DIMS], strides[TENSOR_DIMS]; /* in elements */
    PyObject *owner;  /* new reference: array or capsule's producer */
    void *managed;    /* DLPack's, with its version, deleted by tensor_clear */
    int is_versioned, is_read_only;
    void *copy;       /* dense copy, when one was needed */
} tensor;

/* A tensor in the backend's memory: the host's, or its device's, ready on its stream.  0, or -1 with DTypeError, DeviceError,
 * ShapeError or `wrong` (for what is no tensor at all) set. */
int tensor_from_object(core_state *state, tensor *out, PyObject *object, const dc_backend *backend, const char *name,
                       PyObject *wrong);
/* The same of one dtype, dense, with a first axis; to be written if so asked. */
int tensor_dense(core_state *state, tensor *out, PyObject *object, const dc_backend *backend, dc_dtype dtype, int is_written,
                 const char *name);
int64_t tensor_items(const tensor *t);
/* *out: its rows (first axis), dense or with channels last, borrowed; by a copy when they are neither, which on a device is a
 * ShapeError. */
int tensor_rows(core_state *state, dc_prediction *out, tensor *t, const dc_backend *backend, const char *name);
/* *out: how rows must be written that lie one behind the other in the tensor, which has an axis and is to be written. */
int tensor_layout(core_state *state, dc_layout *out, tensor *t, const dc_backend *backend, const char *name);
void tensor_clear(tensor *t);

#endif
