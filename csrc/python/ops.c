/* diffcls.ops below Python: the backend's operations on arrays.  Batches are (B, n_elem) float32; with a device, tensors
 * (B, *shape) of its memory, and operations only begin. */
#include <string.h>

#include "base/memory.h"
#include "python/arrays.h"

#define KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

/* ---- operands ---------------------------------------------------------------------------------------------------- */

/* A dense array where the backend computes.  Zero-initialise; clear it. */
typedef struct operand {
    void *data;
    int64_t n, n_items; /* first axis, all */
    dc_layout layout;   /* to be written on a device */
    PyObject *array;
    tensor tensor;
} operand;

static void operand_clear(operand *o)
{
    tensor_clear(&o->tensor);
    Py_CLEAR(o->array);
}

static int on_device(core_state *state, operand *o, const dc_backend *backend, PyObject *object, dc_dtype dtype,
                     int is_written, const char *name)
{
    if (tensor_dense(state, &o->tensor, object, backend, dtype, is_written, name) < 0)
        return -1;
    o->data = (void *)(uintptr_t)o->tensor.data;
    o->n = o->tensor.shape[0];
    o->n_items = tensor_items(&o->tensor);
    return 0;
}

/* Float32 rows to read; n_items < 0: any number. */
static int operand_in(core_state *state, operand *o, const dc_backend *backend, PyObject *object, int64_t n_items,
                      const char *name)
{
    if (backend->device != NULL) {
        if (on_device(state, o, backend, object, DC_FLOAT32, 0, name) < 0)
            return -1;
    } else {
        if ((o->array = array_in(state, object, ARRAY_FLOAT32, 2, name)) == NULL)
            return -1;
        o->data = array_data(o->array);
        o->n = array_dim(o->array, 0);
        o->n_items = array_size(o->array);
    }
    if (n_items < 0 || o->n_items == n_items)
        return 0;
    PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s has %lld items, must have %lld", name, (long long)o->n_items,
                 (long long)n_items);
    return -1;
}

/* To be written: float32 or float64; n_items < 0: any number. */
static int operand_out(core_state *state, operand *o, const dc_backend *backend, PyObject *object, dc_dtype dtype,
                       int64_t n_items)
{
    if (backend->device == NULL) {
        o->data = array_out(state, object, dtype == DC_FLOAT64 ? ARRAY_FLOAT64 : ARRAY_FLOAT32, n_items, "out");
        o->n_items = o->data == NULL ? 0 : array_size(object);
        return o->data == NULL ? -1 : 0;
    }
    if (on_device(state, o, backend, object, dtype, 1, "out") < 0)
        return -1;
    if (n_items < 0 || o->n_items == n_items)
        return 0;
    PyErr_Format(state->exceptions[DC_ERR_SHAPE], "out has %lld items, must have %lld", (long long)o->n_items,
                 (long long)n_items);
    return -1;
}

/* Rows of x_t: on a device of any dtype, and with channels last if they are. */
static int rows_out(core_state *state, operand *o, const dc_backend *backend, PyObject *object, int64_t n_items)
{
    if (backend->device == NULL)
        return operand_out(state, o, backend, object, DC_FLOAT32, n_items);
    if (tensor_from_object(state, &o->tensor, object, backend, "out", state->exceptions[DC_ERR_DTYPE]) < 0)
        return -1;
    o->n_items = tensor_items(&o->tensor);
    if (o->tensor.n_dims < 1 || o->n_items != n_items) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "out has %lld items, must have %lld", (long long)o->n_items,
                     (long long)n_items);
        return -1;
    }
    o->data = (void *)(uintptr_t)o->tensor.data;
    return tensor_layout(state, &o->layout, &o->tensor, backend, "out");
}

/* Before and after an operation on n rows of n_elem; nothing to do on the host. */
static dc_status reserve(const dc_backend *backend, int64_t n, int64_t n_elem, dc_error *err)
{
    return backend->device == NULL || n < 1 ? DC_OK : backend->device->reserve(backend, n, n_elem, err);
}

static PyObject *finish(core_state *state, const dc_backend *backend)
{
    dc_error err = {0};
    if (backend->device != NULL && backend->device->check(backend, &err) != DC_OK)
        return core_raise(state, &err);
    Py_RETURN_NONE;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static PyObject *op_normal(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"out", "seed", "noise_index", "timestep", "first", "backend", NULL};
    core_state *state = core_state_of(module);
    PyObject *out, *seed, *backend_object;
    operand eps = {0};
    unsigned noise_index, timestep;
    long long first;
    dc_noise_key key;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O$OIILO", names, &out, &seed, &noise_index, &timestep, &first,
                                     &backend_object))
        return NULL;
    const dc_backend *backend = core_any_backend_of(state, backend_object);
    if (backend == NULL || core_seed_parse(state, &key.seed, seed) < 0)
        return NULL;
    if (first < 0 || first >= 1LL << 50)
        return PyErr_Format(state->exceptions[DC_ERR_VALUE], "first is %lld, must be 0 to 2**50 - 1", first);
    if (operand_out(state, &eps, backend, out, DC_FLOAT32, -1) < 0) {
        operand_clear(&eps);
        return NULL;
    }
    key.noise_index = noise_index;
    key.timestep = timestep;
    Py_BEGIN_ALLOW_THREADS
    backend->noise(backend, eps.data, key, first, eps.n_items);
    Py_END_ALLOW_THREADS
    operand_clear(&eps);
    return finish(state, backend);
}

/* a x + b eps for every row: with (alpha, sigma) it is x_t, with (p, q) the target. */
static PyObject *op_add_noise(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"out", "x_start", "alpha", "sigma", "eps", "seed", "noise_index", "timestep", "backend", NULL};
    core_state *state = core_state_of(module);
    PyObject *out, *x_object, *alpha_object, *sigma_object, *eps_object, *seed, *index_object, *timestep_object, *cpu;
    PyObject *alpha = NULL, *sigma = NULL, *index = NULL, *timestep = NULL, *result = NULL;
    operand x_start = {0}, x_t = {0}, eps = {0};
    uint64_t seed_value = 0;
    void *memory = NULL;
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO$OOOOO", names, &out, &x_object, &alpha_object, &sigma_object,
                                     &eps_object, &seed, &index_object, &timestep_object, &cpu))
        return NULL;
    const dc_backend *backend = core_any_backend_of(state, cpu);
    if (backend == NULL || operand_in(state, &x_start, backend, x_object, -1, "x_start") < 0)
        goto done;
    int64_t n = x_start.n, n_elem = n > 0 ? x_start.n_items / n : 0;
    if (rows_out(state, &x_t, backend, out, x_start.n_items) < 0 ||
        (alpha = array_of_size(state, alpha_object, ARRAY_FLOAT64, n, "alpha")) == NULL ||
        (sigma = array_of_size(state, sigma_object, ARRAY_FLOAT64, n, "sigma")) == NULL)
        goto done;
    if (eps_object != Py_None) {
        if (operand_in(state, &eps, backend, eps_object, x_start.n_items, "eps") < 0)
            goto done;
    } else if (core_seed_parse(state, &seed_value, seed) < 0 ||
               (index = array_of_size(state, index_object, ARRAY_UINT32, n, "index")) == NULL ||
               (timestep = array_of_size(state, timestep_object, ARRAY_UINT32, n, "timestep")) == NULL) {
        goto done;
    }
    if (dc_alloc(&memory, n, sizeof(dc_group), "the rows", &err) != DC_OK || reserve(backend, n, n_elem, &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    dc_group *groups = memory;
    for (int64_t i = 0; i < n; i++) {
        groups[i] = (dc_group){
            .x_start = (float *)x_start.data + i * n_elem,
            .eps = eps_object != Py_None ? (float *)eps.data + i * n_elem : NULL,
            .eps_sign = 1.0f,
            .alpha = (float)((double *)array_data(alpha))[i],
            .sigma = (float)((double *)array_data(sigma))[i],
            .n_rows = 1,
        };
        if (eps_object == Py_None)
            groups[i].key = (dc_noise_key){seed_value, ((uint32_t *)array_data(index))[i], ((uint32_t *)array_data(timestep))[i]};
    }
    Py_BEGIN_ALLOW_THREADS
    backend->noising(backend, x_t.data, groups, n, n_elem, x_t.layout);
    Py_END_ALLOW_THREADS
    result = finish(state, backend);
done:
    dc_free(memory);
    operand_clear(&x_start);
    operand_clear(&x_t);
    operand_clear(&eps);
    Py_XDECREF(alpha);
    Py_XDECREF(sigma);
    Py_XDECREF(index);
    Py_XDECREF(timestep);
    return result;
}

static PyObject *op_eps_error(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"out", "prediction", "target", "loss", "delta", "backend", NULL};
    core_state *state = core_state_of(module);
    PyObject *out, *prediction_object, *target_object, *cpu, *result = NULL;
    operand target = {0}, errors = {0};
    const char *loss_name;
    double delta;
    dc_loss loss;
    tensor prediction = {0};
    dc_prediction rows;
    void *memory = NULL;
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO$sdO", names, &out, &prediction_object, &target_object, &loss_name,
                                     &delta, &cpu))
        return NULL;
    const dc_backend *backend = core_any_backend_of(state, cpu);
    if (backend == NULL || core_loss_parse(state, &loss, loss_name) < 0)
        return NULL;
    if (loss == DC_LOSS_HUBER && !(delta > 0.0 && delta < 1e30))
        return PyErr_Format(state->exceptions[DC_ERR_VALUE], "delta must be positive and finite");
    if (tensor_from_object(state, &prediction, prediction_object, backend, "prediction", state->exceptions[DC_ERR_DTYPE]) < 0 ||
        tensor_rows(state, &rows, &prediction, backend, "prediction") < 0 ||
        operand_in(state, &target, backend, target_object, -1, "target") < 0)
        goto done;
    int64_t n = target.n, n_elem = n > 0 ? target.n_items / n : 0;
    if (prediction.n_dims < 1 || prediction.shape[0] != n || tensor_items(&prediction) != n * n_elem) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "prediction has %lld items, target %lld rows of %lld",
                     (long long)tensor_items(&prediction), (long long)n, (long long)n_elem);
        goto done;
    }
    if (operand_out(state, &errors, backend, out, DC_FLOAT64, n) < 0)
        goto done;
    if (dc_alloc(&memory, n, sizeof(dc_group), "the rows", &err) != DC_OK || reserve(backend, n, n_elem, &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    dc_group *groups = memory;
    for (int64_t i = 0; i < n; i++) /* the target as it is: p = 1, q = 0 */
        groups[i] = (dc_group){.x_start = (float *)target.data + i * n_elem, .eps_sign = 1.0f, .p = 1.0f, .n_rows = 1};
    Py_BEGIN_ALLOW_THREADS
    if (n_elem > 0)
        backend->eps_error(backend, errors.data, rows, groups, n, n_elem, loss, (float)delta);
    Py_END_ALLOW_THREADS
    result = finish(state, backend);
done:
    dc_free(memory);
    tensor_clear(&prediction);
    operand_clear(&target);
    operand_clear(&errors);
    return result;
}

PyMethodDef core_ops_methods[] = {
    {"normal", KEYWORDS(op_normal), NULL},
    {"add_noise", KEYWORDS(op_add_noise), NULL},
    {"eps_error", KEYWORDS(op_eps_error), NULL},
    {0},
};
