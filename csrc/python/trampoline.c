#include "python/trampoline.h"

#include <string.h>

static void take_gil(trampoline *self)
{
    PyEval_RestoreThread(self->thread);
}

static void drop_gil(trampoline *self)
{
    self->thread = PyEval_SaveThread();
}

static dc_status failed(dc_error *err)
{
    return dc_error_set(err, DC_ERR_CALLBACK, "a Python exception is set");
}

/* The tensor that the callable gives, and its memory. */
static PyObject *input_on_device(trampoline *self)
{
    core_state *state = self->state;
    tensor *t = &self->x_t_memory;
    PyObject *x_t = PyObject_CallMethod(self->callable, "input", "L", (long long)self->batch_size);
    if (x_t == NULL || tensor_from_object(state, t, x_t, self->backend, "input", state->exceptions[DC_ERR_DENOISER]) < 0) {
        Py_XDECREF(x_t);
        return NULL;
    }
    int same = t->n_dims == self->n_dims;
    for (int i = 0; same && i < t->n_dims; i++)
        same = t->shape[i] == self->shape[i];
    if (!same)
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "input has the wrong shape, must have batch_size rows of shape");
    if (!same || tensor_layout(state, &self->layout, t, self->backend, "input") < 0) {
        tensor_clear(t);
        Py_CLEAR(x_t);
    }
    return x_t;
}

static dc_status give_input(void *context, float **x_t, int64_t n_rows, int64_t n_elem, dc_error *err)
{
    trampoline *self = context;
    (void)n_rows, (void)n_elem; /* at most batch_size rows of shape */
    if (self->x_t == NULL) {
        take_gil(self);
        self->shape[0] = self->batch_size;
        self->x_t = self->backend->device != NULL ? input_on_device(self)
                                                  : array_new(self->n_dims, self->shape, ARRAY_FLOAT32);
        drop_gil(self);
        if (self->x_t == NULL)
            return failed(err);
    }
    *x_t = self->backend->device != NULL ? (void *)(uintptr_t)self->x_t_memory.data : array_data(self->x_t);
    return DC_OK;
}

static PyObject *copy_numbers(const void *from, int64_t n, array_type type)
{
    PyObject *array = array_new(1, &n, type);
    if (array != NULL)
        memcpy(array_data(array), from, (size_t)n * 8);
    return array;
}

/* method(...) of the callable, or with NULL itself: with x_t or the number of a graph, and the batch's numbers. */
static PyObject *call(trampoline *self, const char *method, PyObject *first, const dc_batch *batch)
{
    PyObject *arguments[4] = {first,
                              copy_numbers(batch->timesteps, batch->n_rows, ARRAY_INT64),
                              copy_numbers(batch->time, batch->n_rows, ARRAY_FLOAT64),
                              copy_numbers(batch->condition, batch->n_rows, ARRAY_INT64)};
    PyObject *function = method == NULL ? Py_NewRef(self->callable) : PyObject_GetAttrString(self->callable, method);
    PyObject *answer = NULL;
    if (function != NULL && first != NULL && arguments[1] != NULL && arguments[2] != NULL && arguments[3] != NULL)
        answer = PyObject_Vectorcall(function, arguments, 4, NULL);
    Py_XDECREF(function);
    for (int i = 0; i < 4; i++)
        Py_XDECREF(arguments[i]);
    return answer;
}

static PyObject *x_t_of(trampoline *self, int64_t n_rows)
{
    self->shape[0] = n_rows;
    return self->backend->device != NULL ? PySequence_GetSlice(self->x_t, 0, (Py_ssize_t)n_rows)
                                         : array_view(self->x_t, self->n_dims, self->shape, ARRAY_FLOAT32);
}

/* PyTorch's own class is a RuntimeError that PyTorch need not be imported to know. */
static int is_out_of_memory(void)
{
    PyObject *type = PyErr_Occurred();
    const char *name = type != NULL && PyType_Check(type) ? ((PyTypeObject *)type)->tp_name : "", *last = strrchr(name, '.');
    return type != NULL && (PyErr_ExceptionMatches(PyExc_MemoryError) ||
                            strcmp(last != NULL ? last + 1 : name, "OutOfMemoryError") == 0);
}

/* diffcls.errors.warn_caller(words, DeviceWarning); -1 when the caller's filters made an error of it. */
static int warn(PyObject *words)
{
    PyObject *errors = PyImport_ImportModule("diffcls.errors"), *category = NULL, *done = NULL;
    if (words != NULL && errors != NULL && (category = PyObject_GetAttrString(errors, "DeviceWarning")) != NULL)
        done = PyObject_CallMethod(errors, "warn_caller", "OO", words, category);
    Py_XDECREF(done);
    Py_XDECREF(category);
    Py_XDECREF(errors);
    Py_XDECREF(words);
    return done == NULL ? -1 : 0;
}

/* The denoiser's exception, which is set: another batch, or the end. */
static dc_status refused(trampoline *self, int64_t n_rows, dc_error *err)
{
    if (n_rows == 1 || self->is_recording || !is_out_of_memory())
        return failed(err);
    PyErr_Clear(); /* and with it the frames that hold the memory */
    if (!self->told && warn(PyUnicode_FromFormat("the denoiser is out of memory for %lld rows: it is asked for half of them from "
                                                 "here on; results are the same (batch_size says how many)",
                                                 (long long)n_rows)) < 0)
        return failed(err);
    self->told = 1;
    return dc_error_set(err, DC_ERR_NOMEM, "the denoiser is out of memory for %lld rows", (long long)n_rows);
}

static int check_answer(trampoline *self, PyObject *answer, dc_prediction *out)
{
    core_state *state = self->state;
    tensor *t = &self->prediction;
    if (tensor_from_object(state, t, answer, self->backend, "the denoiser's prediction", state->exceptions[DC_ERR_DENOISER]) <
        0)
        return -1;
    int same = t->n_dims == self->n_dims;
    for (int i = 0; same && i < t->n_dims; i++)
        same = t->shape[i] == self->shape[i];
    if (same)
        return tensor_rows(state, out, t, self->backend, "the denoiser's prediction");
    PyObject *got = PyTuple_New(t->n_dims), *wanted = PyTuple_New(self->n_dims);
    for (int i = 0; got != NULL && i < t->n_dims; i++)
        PyTuple_SET_ITEM(got, i, PyLong_FromLongLong(t->shape[i]));
    for (int i = 0; wanted != NULL && i < self->n_dims; i++)
        PyTuple_SET_ITEM(wanted, i, PyLong_FromLongLong(self->shape[i]));
    if (got != NULL && wanted != NULL)
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "the denoiser's prediction has shape %R, must have %R like x_t", got,
                     wanted);
    Py_XDECREF(got);
    Py_XDECREF(wanted);
    return -1;
}

static dc_status denoise(void *context, const dc_batch *batch, dc_prediction *out, dc_error *err)
{
    trampoline *self = context;
    take_gil(self);
    PyObject *answer = call(self, NULL, x_t_of(self, batch->n_rows), batch);
    dc_status status = DC_OK;
    if (answer == NULL)
        status = refused(self, batch->n_rows, err);
    else if (check_answer(self, answer, out) < 0)
        status = failed(err);
    Py_XDECREF(answer);
    if (status != DC_OK)
        tensor_clear(&self->prediction);
    drop_gil(self);
    return status;
}

static void release(void *context)
{
    trampoline *self = context;
    take_gil(self);
    tensor_clear(&self->prediction);
    if (self->backend->device == NULL && self->x_t != NULL && Py_REFCNT(self->x_t) != 1)
        Py_CLEAR(self->x_t);
    drop_gil(self);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

static dc_status call_with_graph(trampoline *self, const char *method, int graph, dc_error *err)
{
    take_gil(self);
    PyObject *done = PyObject_CallMethod(self->callable, method, "i", graph);
    Py_XDECREF(done);
    drop_gil(self);
    return done == NULL ? failed(err) : DC_OK;
}

static dc_status begin_graph(void *context, int graph, dc_error *err)
{
    ((trampoline *)context)->is_recording = 1;
    return call_with_graph(context, "record", graph, err);
}

static dc_status end_graph(void *context, int graph, dc_error *err)
{
    ((trampoline *)context)->is_recording = 0;
    return call_with_graph(context, "recorded", graph, err);
}

/* Why is a Python exception or in err; an interrupt stays one. */
static dc_status abandon_graph(void *context, int graph, dc_error *err)
{
    trampoline *self = context;
    PyObject *type, *value, *traceback, *done;
    dc_status status = DC_OK;
    self->is_recording = 0;
    take_gil(self);
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if ((done = PyObject_CallMethod(self->callable, "abandon", "i", graph)) == NULL)
        PyErr_Clear(); /* what ended the recording says why, not what it left behind */
    Py_XDECREF(done);
    if (value != NULL && !PyErr_GivenExceptionMatches(value, PyExc_Exception)) {
        PyErr_Restore(type, value, traceback);
        status = failed(err);
    } else {
        PyObject *why = value != NULL ? Py_NewRef(value) : PyUnicode_FromString(err != NULL ? err->message : "");
        PyObject *words =
            why == NULL ? NULL
                        : PyUnicode_FromFormat("a step can not be recorded as a CUDA graph, and goes on call by call (%S)", why);
        Py_XDECREF(why);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        if (warn(words) < 0)
            status = failed(err);
    }
    drop_gil(self);
    return status;
}

static dc_status replay_graph(void *context, int graph, const dc_batch *batch, dc_error *err)
{
    trampoline *self = context;
    take_gil(self);
    PyObject *done = call(self, "replay", PyLong_FromLong(graph), batch);
    Py_XDECREF(done);
    drop_gil(self);
    return done == NULL ? failed(err) : DC_OK;
}

static const dc_recorder recorder = {begin_graph, end_graph, abandon_graph, replay_graph};

dc_denoiser trampoline_entry(trampoline *self)
{
    dc_denoiser entry = {.context = self, .input = give_input, .denoise = denoise, .release = release};
    if (self->backend->device == NULL)
        return entry;
    PyObject *is_recorded = PyObject_GetAttrString(self->callable, "is_recorded");
    entry.layout = &self->layout;
    entry.recorder = is_recorded != NULL && PyObject_IsTrue(is_recorded) == 1 ? &recorder : NULL;
    Py_XDECREF(is_recorded);
    PyErr_Clear(); /* who does not say so is not recorded */
    return entry;
}

void trampoline_clear(trampoline *self)
{
    tensor_clear(&self->prediction);
    tensor_clear(&self->x_t_memory);
    Py_CLEAR(self->x_t);
}
