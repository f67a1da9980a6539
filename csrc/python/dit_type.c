/* diffcls._core.DiT: a native model.  Immutable, so threads share it. */
#include "base/memory.h"
#include "python/arrays.h"

typedef struct dit_object {
    PyObject_HEAD
    dc_dit *model;
    PyObject *config;
    PyObject *backend; /* whose device has the weights; NULL: the host */
} dit_object;

static const char *const PRECISIONS[] = {
    [DC_PRECISION_FLOAT32] = "float32",
    [DC_PRECISION_TF32] = "tf32",
    [DC_PRECISION_FLOAT16] = "float16",
    [DC_PRECISION_BFLOAT16] = "bfloat16",
};
enum { N_PRECISIONS = sizeof PRECISIONS / sizeof *PRECISIONS };

static core_state *state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* config[name] as an integer; `missing` when it is absent and missing >= 0. */
static int config_integer(int64_t *out, PyObject *config, const char *name, int64_t missing)
{
    PyObject *value = PyDict_GetItemString(config, name); /* borrowed */
    if (value == NULL && missing >= 0) {
        *out = missing;
        return 0;
    }
    if (value == NULL || !PyLong_Check(value)) {
        PyErr_Format(PyExc_ValueError, "the DiT's config has no whole number %s", name);
        return -1;
    }
    *out = PyLong_AsLongLong(value);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

static int parse_layout(dc_dit_layout *out, PyObject *config)
{
    PyObject *layout = PyDict_GetItemString(config, "layout"); /* borrowed */
    *out = DC_DIT_ORIGINAL;
    if (layout == NULL || (PyUnicode_Check(layout) && PyUnicode_CompareWithASCIIString(layout, "original") == 0))
        return 0;
    *out = DC_DIT_DIFFUSERS;
    if (PyUnicode_Check(layout) && PyUnicode_CompareWithASCIIString(layout, "diffusers") == 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "layout is %R, must be \"original\" or \"diffusers\"", layout);
    return -1;
}

static int parse_config(dc_dit_config *out, PyObject *config)
{
    int64_t learn_sigma;
    PyObject *ratio = PyDict_GetItemString(config, "mlp_ratio"); /* borrowed */
    double mlp_ratio = ratio == NULL ? 4.0 : PyFloat_AsDouble(ratio);
    if (mlp_ratio == -1.0 && PyErr_Occurred())
        return -1;
    if (config_integer(&out->input_size, config, "input_size", -1) < 0 ||
        config_integer(&out->patch_size, config, "patch_size", -1) < 0 ||
        config_integer(&out->in_channels, config, "in_channels", -1) < 0 ||
        config_integer(&out->hidden_size, config, "hidden_size", -1) < 0 ||
        config_integer(&out->depth, config, "depth", -1) < 0 ||
        config_integer(&out->num_heads, config, "num_heads", -1) < 0 ||
        config_integer(&out->num_classes, config, "num_classes", -1) < 0 ||
        config_integer(&learn_sigma, config, "learn_sigma", 0) < 0)
        return -1;
    if (!(mlp_ratio > 0.0 && mlp_ratio <= 64.0)) {
        PyErr_Format(PyExc_ValueError, "mlp_ratio is %R, must be in (0, 64]", ratio);
        return -1;
    }
    if (parse_layout(&out->layout, config) < 0)
        return -1;
    PyObject *eps = PyDict_GetItemString(config, "mlp_norm_eps"); /* borrowed */
    out->mlp_norm_eps = eps == NULL ? 1e-6f : (float)PyFloat_AsDouble(eps);
    if (PyErr_Occurred())
        return -1;
    out->learn_sigma = learn_sigma != 0;
    out->mlp_hidden = (int64_t)((double)out->hidden_size * mlp_ratio);
    return 0;
}

/* One buffer or a sequence of them; *n are held, even when it fails. */
static int hold_files(Py_buffer **out, Py_ssize_t *n, PyObject *weights)
{
    dc_error err = {0};
    void *memory;
    *n = 0;
    *out = NULL;
    PyObject *files = PyObject_CheckBuffer(weights) ? PyTuple_Pack(1, weights)
                                                    : PySequence_Fast(weights, "weights must be a buffer or a list of them");
    if (files == NULL)
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(files);
    int result = -1;
    if (dc_alloc(&memory, count, sizeof **out, "the weights files", &err) != DC_OK) {
        PyErr_NoMemory();
        goto done;
    }
    for (*out = memory; *n < count; ++*n)
        if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(files, *n), &(*out)[*n], PyBUF_SIMPLE) < 0)
            goto done;
    result = 0;
done:
    Py_DECREF(files);
    return result;
}

static dc_status read_files(dc_dit **out, const Py_buffer *held, int64_t n, const dc_dit_config *config, dc_error *err)
{
    void *memory;
    dc_status status = dc_alloc(&memory, n, sizeof(dc_bytes), "the weights files", err);
    if (status != DC_OK)
        return status;
    dc_bytes *files = memory;
    for (int64_t i = 0; i < n; i++)
        files[i] = (dc_bytes){held[i].buf, held[i].len};
    status = dc_dit_new(out, files, n, config, err);
    dc_free(files);
    return status;
}

static PyObject *dit_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"weights", "config", NULL};
    Py_buffer *files = NULL;
    Py_ssize_t n_files = 0;
    PyObject *weights, *config;
    dc_dit_config parsed = {0};
    dc_error err = {0};
    dc_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!:DiT", names, &weights, &PyDict_Type, &config))
        return NULL;
    dit_object *self = NULL;
    if (hold_files(&files, &n_files, weights) < 0 || parse_config(&parsed, config) < 0)
        goto done;
    self = (dit_object *)type->tp_alloc(type, 0);
    if (self == NULL || (self->config = PyDict_Copy(config)) == NULL) {
        Py_CLEAR(self);
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = read_files(&self->model, files, n_files, &parsed, &err);
    Py_END_ALLOW_THREADS
    if (status != DC_OK) {
        core_raise(PyType_GetModuleState(type), &err);
        Py_CLEAR(self);
    }
done:
    while (n_files > 0)
        PyBuffer_Release(&files[--n_files]);
    dc_free(files);
    return (PyObject *)self;
}

static void dit_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    dc_dit_free(((dit_object *)self)->model); /* before the backend that it borrows */
    Py_XDECREF(((dit_object *)self)->config);
    Py_XDECREF(((dit_object *)self)->backend);
    type->tp_free(self);
    Py_DECREF(type);
}

const dc_dit *core_dit_of(core_state *state, PyObject *dit)
{
    if (!Py_IS_TYPE(dit, state->dit_type)) {
        PyErr_Format(PyExc_TypeError, "the model is %R, must be a DiT", Py_TYPE(dit));
        return NULL;
    }
    return ((dit_object *)dit)->model;
}

static PyObject *dit_forward(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x_t", "timesteps", "class_labels", "backend", NULL};
    PyObject *x_t, *timesteps, *labels, *cpu, *x_array = NULL, *t_array = NULL, *y_array = NULL, *out = NULL;
    const dc_dit *model = ((dit_object *)self)->model;
    core_state *state = state_of(self);
    dc_dit_denoiser *denoiser = NULL;
    dc_error err = {0};
    dc_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO$O:forward", names, &x_t, &timesteps, &labels, &cpu))
        return NULL;
    const dc_backend *backend = core_backend_of(state, cpu);
    if (backend == NULL || (x_array = array_in(state, x_t, ARRAY_FLOAT32, 4, "x_t")) == NULL)
        goto done;
    int64_t n = array_dim(x_array, 0), size = model->config.input_size, channels = model->config.in_channels;
    if (array_dim(x_array, 1) != channels || array_dim(x_array, 2) != size || array_dim(x_array, 3) != size) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "x_t has images of (%lld, %lld, %lld), the model's are (%lld, %lld, %lld)",
                     (long long)array_dim(x_array, 1), (long long)array_dim(x_array, 2), (long long)array_dim(x_array, 3),
                     (long long)channels, (long long)size, (long long)size);
        goto done;
    }
    int64_t shape[4] = {n, model->out_channels, size, size};
    if ((t_array = array_of_size(state, timesteps, ARRAY_FLOAT64, n, "timesteps")) == NULL ||
        (y_array = array_of_size(state, labels, ARRAY_INT64, n, "class_labels")) == NULL ||
        (out = array_new(4, shape, ARRAY_FLOAT32)) == NULL || n == 0)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    status = dc_dit_denoiser_new(&denoiser, model, backend, n, &err);
    if (status == DC_OK) {
        dc_denoiser entry = dc_dit_denoiser_entry(denoiser);
        dc_batch batch = {n, channels * size * size, array_data(x_array), NULL, array_data(t_array), array_data(y_array), NULL};
        dc_prediction prediction;
        status = entry.denoise(entry.context, &batch, &prediction, &err);
        if (status == DC_OK)
            memcpy(array_data(out), prediction.data, (size_t)(n * prediction.row_stride) * sizeof(float));
    }
    dc_dit_denoiser_free(denoiser);
    Py_END_ALLOW_THREADS
    if (status != DC_OK) {
        core_raise(state, &err);
        Py_CLEAR(out);
    }
done:
    Py_XDECREF(x_array);
    Py_XDECREF(t_array);
    Py_XDECREF(y_array);
    return out;
}

static PyObject *dit_place(PyObject *self, PyObject *args)
{
    dit_object *host = (dit_object *)self, *placed;
    core_state *state = state_of(self);
    PyObject *object;
    const char *dtype;
    int precision = 0;
    dc_error err = {0};
    dc_status status;
    if (!PyArg_ParseTuple(args, "Os:place", &object, &dtype))
        return NULL;
    const dc_backend *backend = core_any_backend_of(state, object);
    if (backend == NULL)
        return NULL;
    while (precision < N_PRECISIONS && strcmp(dtype, PRECISIONS[precision]) != 0)
        precision++;
    if (precision == N_PRECISIONS) {
        PyErr_Format(state->exceptions[DC_ERR_DTYPE],
                     "dtype is '%s', must be 'float32', 'tf32', 'float16' or 'bfloat16'", dtype);
        return NULL;
    }
    if ((placed = (dit_object *)Py_TYPE(self)->tp_alloc(Py_TYPE(self), 0)) == NULL)
        return NULL;
    placed->config = Py_NewRef(host->config);
    placed->backend = Py_NewRef(object);
    Py_BEGIN_ALLOW_THREADS
    status = dc_dit_place(&placed->model, host->model, backend, (dc_precision)precision, &err);
    Py_END_ALLOW_THREADS
    if (status != DC_OK) {
        core_raise(state, &err);
        Py_CLEAR(placed);
    }
    return (PyObject *)placed;
}

static PyObject *dit_dtype(PyObject *self, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(PRECISIONS[((dit_object *)self)->model->precision]);
}

static PyObject *dit_device(PyObject *self, void *closure)
{
    (void)closure;
    const dc_backend *backend = ((dit_object *)self)->model->backend;
    return backend == NULL ? PyUnicode_FromString("cpu") : PyUnicode_FromFormat("%s:%d", backend->name, backend->device_index);
}

static PyObject *dit_config(PyObject *self, void *closure)
{
    (void)closure;
    return PyDict_Copy(((dit_object *)self)->config);
}

static PyObject *dit_n_parameters(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(((dit_object *)self)->model->n_parameters);
}

static PyGetSetDef dit_getset[] = {
    {"config", dit_config, NULL, "Sizes, a copy.", NULL},
    {"n_parameters", dit_n_parameters, NULL, "Number of weights.", NULL},
    {"device", dit_device, NULL, "Where the weights are: 'cpu' or 'cuda:' and a number.", NULL},
    {"dtype", dit_dtype, NULL, "Of what products read: 'float32', 'tf32', 'float16' or 'bfloat16'.", NULL},
    {0},
};

static PyMethodDef dit_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))dit_forward, METH_VARARGS | METH_KEYWORDS,
     "forward($self, x_t, timesteps, class_labels, *, backend)\n--\n\n"
     "(N, C, H, W) float32, (N,), (N,) to (N, C or 2 C, H, W) float32."},
    {"place", dit_place, METH_VARARGS,
     "place($self, backend, dtype, /)\n--\n\nA copy on the backend's device, whose products read that dtype."},
    {0},
};

static PyType_Slot dit_slots[] = {
    {Py_tp_doc, "DiT(weights, config)\n--\n\nA native DiT from a safetensors file in a buffer, or from several."},
    {Py_tp_new, dit_new},
    {Py_tp_dealloc, dit_dealloc},
    {Py_tp_getset, dit_getset},
    {Py_tp_methods, dit_methods},
    {0, NULL},
};

PyType_Spec core_dit_spec = {
    .name = "diffcls._core.DiT",
    .basicsize = sizeof(dit_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = dit_slots,
};
