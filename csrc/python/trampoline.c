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
    if (x_t == NULL || tensor_dense(state, t, x_t, self->backend, DC_FLOAT32, 1, "input") < 0) {
        Py_XDECREF(x_t);
        return NULL;
    }
    int same = t->n_dims == self->n_dims;
    for (int i = 0; same && i < t->n_dims; i++)
        same = t->shape[i] == self->shape[i];
    if (!same) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "input has the wrong shape, must have batch_size rows of shape");
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

static PyObject *call(trampoline *self, const dc_batch *batch)
{
    PyObject *arguments[4] = {NULL}, *answer = NULL;
    self->shape[0] = batch->n_rows;
    arguments[0] = self->backend->device != NULL ? PySequence_GetSlice(self->x_t, 0, (Py_ssize_t)batch->n_rows)
                                                 : array_view(self->x_t, self->n_dims, self->shape, ARRAY_FLOAT32);
    arguments[1] = copy_numbers(batch->timesteps, batch->n_rows, ARRAY_INT64);
    arguments[2] = copy_numbers(batch->time, batch->n_rows, ARRAY_FLOAT64);
    arguments[3] = copy_numbers(batch->condition, batch->n_rows, ARRAY_INT64);
    if (arguments[0] != NULL && arguments[1] != NULL && arguments[2] != NULL && arguments[3] != NULL)
        answer = PyObject_Vectorcall(self->callable, arguments, 4, NULL);
    for (int i = 0; i < 4; i++)
        Py_XDECREF(arguments[i]);
    return answer;
}

static int check_answer(trampoline *self, PyObject *answer)
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
        return tensor_make_rows_dense(state, t, self->backend, "the denoiser's prediction");
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
    PyObject *answer = call(self, batch);
    int ok = answer != NULL && check_answer(self, answer) == 0;
    Py_XDECREF(answer);
    if (!ok)
        tensor_clear(&self->prediction);
    drop_gil(self);
    if (!ok)
        return failed(err);
    *out = (dc_prediction){self->prediction.data, self->prediction.dtype, self->prediction.strides[0]};
    return DC_OK;
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

dc_denoiser trampoline_entry(trampoline *self)
{
    return (dc_denoiser){self, give_input, denoise, release};
}

void trampoline_clear(trampoline *self)
{
    tensor_clear(&self->prediction);
    tensor_clear(&self->x_t_memory);
    Py_CLEAR(self->x_t);
}
