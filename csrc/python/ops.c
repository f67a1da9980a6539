/* diffcls.ops below Python: the backend's operations on arrays.  Batches are (B, n_elem) float32. */
#include <string.h>

#include "base/memory.h"
#include "python/arrays.h"

#define KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

static PyObject *op_normal(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"out", "seed", "noise_index", "timestep", "first", "backend", NULL};
    core_state *state = core_state_of(module);
    PyObject *out, *seed, *cpu;
    unsigned noise_index, timestep;
    long long first;
    dc_noise_key key;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O$OIILO", names, &out, &seed, &noise_index, &timestep, &first, &cpu))
        return NULL;
    const dc_backend *backend = core_backend_of(state, cpu);
    if (backend == NULL || core_seed_parse(state, &key.seed, seed) < 0)
        return NULL;
    if (first < 0 || first >= 1LL << 50)
        return PyErr_Format(state->exceptions[DC_ERR_VALUE], "first is %lld, must be 0 to 2**50 - 1", first);
    float *eps = array_out(state, out, ARRAY_FLOAT32, -1, "out");
    if (eps == NULL)
        return NULL;
    int64_t count = array_size(out);
    key.noise_index = noise_index;
    key.timestep = timestep;
    Py_BEGIN_ALLOW_THREADS
    backend->noise(backend, eps, key, first, count);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* a x + b eps for every row: with (alpha, sigma) it is x_t, with (p, q) the target. */
static PyObject *op_add_noise(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"out", "x_start", "alpha", "sigma", "eps", "seed", "noise_index", "timestep", "backend", NULL};
    core_state *state = core_state_of(module);
    PyObject *out, *x_object, *alpha_object, *sigma_object, *eps_object, *seed, *index_object, *timestep_object, *cpu;
    PyObject *x_start = NULL, *alpha = NULL, *sigma = NULL, *eps = NULL, *index = NULL, *timestep = NULL, *result = NULL;
    uint64_t seed_value = 0;
    void *memory = NULL;
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO$OOOOO", names, &out, &x_object, &alpha_object, &sigma_object,
                                     &eps_object, &seed, &index_object, &timestep_object, &cpu))
        return NULL;
    const dc_backend *backend = core_backend_of(state, cpu);
    if (backend == NULL || (x_start = array_in(state, x_object, ARRAY_FLOAT32, 2, "x_start")) == NULL)
        goto done;
    int64_t n = array_dim(x_start, 0), n_elem = array_dim(x_start, 1);
    float *x_t = array_out(state, out, ARRAY_FLOAT32, n * n_elem, "out");
    if (x_t == NULL || (alpha = array_of_size(state, alpha_object, ARRAY_FLOAT64, n, "alpha")) == NULL ||
        (sigma = array_of_size(state, sigma_object, ARRAY_FLOAT64, n, "sigma")) == NULL)
        goto done;
    if (eps_object != Py_None) {
        if ((eps = array_of_size(state, eps_object, ARRAY_FLOAT32, n * n_elem, "eps")) == NULL)
            goto done;
    } else if (core_seed_parse(state, &seed_value, seed) < 0 ||
               (index = array_of_size(state, index_object, ARRAY_UINT32, n, "index")) == NULL ||
               (timestep = array_of_size(state, timestep_object, ARRAY_UINT32, n, "timestep")) == NULL) {
        goto done;
    }
    if (dc_alloc(&memory, n, sizeof(dc_group), "the rows", &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    dc_group *groups = memory;
    for (int64_t i = 0; i < n; i++) {
        groups[i] = (dc_group){
            .x_start = (float *)array_data(x_start) + i * n_elem,
            .eps = eps != NULL ? (float *)array_data(eps) + i * n_elem : NULL,
            .eps_sign = 1.0f,
            .alpha = (float)((double *)array_data(alpha))[i],
            .sigma = (float)((double *)array_data(sigma))[i],
            .n_rows = 1,
        };
        if (eps == NULL)
            groups[i].key = (dc_noise_key){seed_value, ((uint32_t *)array_data(index))[i], ((uint32_t *)array_data(timestep))[i]};
    }
    Py_BEGIN_ALLOW_THREADS
    backend->noising(backend, x_t, groups, n, n_elem);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    dc_free(memory);
    Py_XDECREF(x_start);
    Py_XDECREF(alpha);
    Py_XDECREF(sigma);
    Py_XDECREF(eps);
    Py_XDECREF(index);
    Py_XDECREF(timestep);
    return result;
}

static PyObject *op_eps_error(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"out", "prediction", "target", "loss", "delta", "backend", NULL};
    core_state *state = core_state_of(module);
    PyObject *out, *prediction_object, *target_object, *cpu, *target = NULL, *result = NULL;
    const char *loss_name;
    double delta;
    dc_loss loss;
    tensor prediction = {0};
    void *memory = NULL;
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO$sdO", names, &out, &prediction_object, &target_object, &loss_name,
                                     &delta, &cpu))
        return NULL;
    const dc_backend *backend = core_backend_of(state, cpu);
    if (backend == NULL || core_loss_parse(state, &loss, loss_name) < 0)
        return NULL;
    if (loss == DC_LOSS_HUBER && !(delta > 0.0 && delta < 1e30))
        return PyErr_Format(state->exceptions[DC_ERR_VALUE], "delta must be positive and finite");
    if (tensor_from_object(state, &prediction, prediction_object, "prediction", state->exceptions[DC_ERR_DTYPE]) < 0 ||
        tensor_make_rows_dense(state, &prediction) < 0 ||
        (target = array_in(state, target_object, ARRAY_FLOAT32, 2, "target")) == NULL)
        goto done;
    int64_t n = array_dim(target, 0), n_elem = array_dim(target, 1), items = 1;
    for (int i = 0; i < prediction.n_dims; i++)
        items *= prediction.shape[i];
    if (prediction.n_dims < 1 || prediction.shape[0] != n || items != n * n_elem) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "prediction has %lld items, target %lld rows of %lld", (long long)items,
                     (long long)n, (long long)n_elem);
        goto done;
    }
    double *errors = array_out(state, out, ARRAY_FLOAT64, n, "out");
    if (errors == NULL)
        goto done;
    if (dc_alloc(&memory, n, sizeof(dc_group), "the rows", &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    dc_group *groups = memory;
    for (int64_t i = 0; i < n; i++) /* the target as it is: p = 1, q = 0 */
        groups[i] = (dc_group){.x_start = (float *)array_data(target) + i * n_elem, .eps_sign = 1.0f, .p = 1.0f, .n_rows = 1};
    dc_prediction rows = {prediction.data, prediction.dtype, prediction.strides[0]};
    Py_BEGIN_ALLOW_THREADS
    if (n_elem > 0)
        backend->eps_error(backend, errors, rows, groups, n, n_elem, loss, (float)delta);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    dc_free(memory);
    tensor_clear(&prediction);
    Py_XDECREF(target);
    return result;
}

PyMethodDef core_ops_methods[] = {
    {"normal", KEYWORDS(op_normal), NULL},
    {"add_noise", KEYWORDS(op_add_noise), NULL},
    {"eps_error", KEYWORDS(op_eps_error), NULL},
    {0},
};
