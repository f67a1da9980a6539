/* How the rows of a tensor stand in memory: dense, with channels last, or neither. */
#include "base/memory.h"
#include "python/arrays.h"

#include <string.h>

static int is_aligned(const tensor *t)
{
    return (uintptr_t)t->data % dc_dtype_bytes(t->dtype) == 0;
}

int64_t tensor_items(const tensor *t)
{
    int64_t items = 1;
    for (int i = 0; i < t->n_dims; i++)
        items *= t->shape[i];
    return items;
}

/* From the last axis up to `first_axis`; what has no items is. */
static int is_dense(const tensor *t, int first_axis)
{
    int64_t expected = 1;
    for (int i = t->n_dims - 1; i >= first_axis; i--) {
        if (t->shape[i] > 1 && t->strides[i] != expected)
            return tensor_items(t) == 0;
        expected *= t->shape[i];
    }
    return 1;
}

int tensor_dense(core_state *state, tensor *out, PyObject *object, const dc_backend *backend, dc_dtype dtype, int is_written,
                 const char *name)
{
    const char *words = NULL;
    if (tensor_from_object(state, out, object, backend, name, state->exceptions[DC_ERR_DTYPE]) < 0)
        return -1;
    PyObject *exception = state->exceptions[DC_ERR_SHAPE];
    if (out->dtype != dtype) {
        exception = state->exceptions[DC_ERR_DTYPE];
        words = dtype == DC_FLOAT64 ? "of float64" : "of float32";
    } else if (out->n_dims < 1) {
        words = "of one axis or more";
    } else if (!is_dense(out, 0) || !is_aligned(out)) {
        words = "C-contiguous and aligned";
    } else if (is_written && out->is_read_only) {
        exception = state->exceptions[DC_ERR_VALUE];
        words = "writeable";
    }
    if (words == NULL)
        return 0;
    PyErr_Format(exception, "%s must be %s", name, words);
    tensor_clear(out);
    return -1;
}

/* Rows (C, ...) whose channels are neighbours and whose positions follow each other at one distance; axes of one item stand
 * anywhere. */
static int has_channels_last(const tensor *t, int64_t *n_positions, int64_t *position_stride)
{
    *n_positions = 1;
    *position_stride = 0;
    if (t->n_dims < 3 || (t->shape[1] > 1 && t->strides[1] != 1))
        return 0;
    for (int i = t->n_dims - 1; i >= 2; i--) {
        if (t->shape[i] > 1 && *position_stride == 0)
            *position_stride = t->strides[i];
        else if (t->shape[i] > 1 && t->strides[i] != *position_stride * *n_positions)
            return 0;
        *n_positions *= t->shape[i];
    }
    return *position_stride >= t->shape[1];
}

static void copy_dense(char **to, const char *from, const int64_t *shape, const int64_t *strides, int n_dims, size_t item)
{
    if (n_dims == 0) {
        memcpy(*to, from, item);
        *to += item;
        return;
    }
    for (int64_t i = 0; i < shape[0]; i++)
        copy_dense(to, from + i * strides[0] * (int64_t)item, shape + 1, strides + 1, n_dims - 1, item);
}

static int copy_rows(core_state *state, tensor *t)
{
    dc_error err = {0};
    int64_t stride = 1;
    if (dc_alloc(&t->copy, tensor_items(t), dc_dtype_bytes(t->dtype), "a dense copy", &err) != DC_OK) {
        core_raise(state, &err);
        return -1;
    }
    char *to = t->copy;
    copy_dense(&to, t->data, t->shape, t->strides, t->n_dims, dc_dtype_bytes(t->dtype));
    t->data = t->copy;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        t->strides[i] = stride;
        stride *= t->shape[i];
    }
    return 0;
}

int tensor_rows(core_state *state, dc_prediction *out, tensor *t, const dc_backend *backend, const char *name)
{
    int64_t n_positions, position_stride;
    int is_usable = is_aligned(t) && (t->n_dims == 0 || t->strides[0] >= 0), is_last = 0;
    if (is_usable && !is_dense(t, 1))
        is_usable = is_last = has_channels_last(t, &n_positions, &position_stride);
    if (!is_usable && backend->device != NULL) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s must have C-contiguous or channels-last, aligned rows on cuda:%d",
                     name, backend->device_index);
        return -1;
    }
    if (!is_usable && copy_rows(state, t) < 0)
        return -1;
    *out = (dc_prediction){.data = t->data, .dtype = t->dtype, .row_stride = t->n_dims > 0 ? t->strides[0] : 0};
    if (is_last) {
        out->n_positions = n_positions;
        out->position_stride = position_stride;
    }
    return 0;
}

int tensor_layout(core_state *state, dc_layout *out, tensor *t, const dc_backend *backend, const char *name)
{
    dc_prediction rows;
    if (tensor_rows(state, &rows, t, backend, name) < 0)
        return -1;
    int64_t n_elem = t->shape[0] > 0 ? tensor_items(t) / t->shape[0] : 0;
    if (t->is_read_only) {
        PyErr_Format(state->exceptions[DC_ERR_VALUE], "%s must be writeable", name);
        return -1;
    }
    if (t->copy != NULL || (t->shape[0] > 1 && rows.row_stride != n_elem) ||
        (rows.n_positions != 0 && rows.position_stride * rows.n_positions != n_elem)) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "%s must have dense rows, one behind the other", name);
        return -1;
    }
    *out = (dc_layout){rows.dtype, rows.n_positions};
    return 0;
}
