#include "dit/reader.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"

dc_status dc_reader_open(dc_reader *out, const dc_bytes *files, int64_t n_files, dc_error *err)
{
    void *memory;
    *out = (dc_reader){.err = err};
    dc_status status = dc_alloc(&memory, n_files, sizeof *out->files, "the weights files", err);
    if (status != DC_OK)
        return status;
    out->files = memory;
    for (int64_t i = 0; i < n_files; i++) {
        if ((status = dc_tensors_read(&out->files[i], files[i].data, files[i].n_bytes, err)) != DC_OK) {
            dc_reader_close(out);
            return status;
        }
        out->n_files++;
    }
    return DC_OK;
}

void dc_reader_close(dc_reader *reader)
{
    for (int64_t i = 0; i < reader->n_files; i++)
        dc_tensors_clear(&reader->files[i]);
    dc_free(reader->files);
    *reader = (dc_reader){0};
}

static const dc_tensor *find(const dc_reader *reader, const char *name)
{
    const dc_tensor *found = NULL;
    for (int64_t i = 0; found == NULL && i < reader->n_files; i++)
        found = dc_tensors_find(&reader->files[i], name);
    return found;
}

/* *out: the tensor `name`, of exactly this shape; borrowed.  It counts as read. */
static dc_status take(dc_reader *reader, const dc_tensor **out, const char *name, int n_dims, const int64_t *shape)
{
    const dc_tensor *tensor = *out = find(reader, name);
    if (tensor == NULL)
        return dc_error_set(reader->err, DC_ERR_FORMAT, "the weights file has no tensor %s", name);
    int same = tensor->n_dims == n_dims;
    for (int i = 0; same && i < n_dims; i++)
        same = tensor->shape[i] == shape[i];
    if (!same)
        return dc_error_set(reader->err, DC_ERR_FORMAT,
                            "tensor %s has %d dimensions, the first %lld, must have %d, the first %lld", name,
                            tensor->n_dims, (long long)(tensor->n_dims ? tensor->shape[0] : 0), n_dims,
                            (long long)shape[0]);
    reader->n_read++;
    reader->n_parameters += tensor->n_items;
    return DC_OK;
}

dc_status dc_reader_floats(dc_reader *reader, float **out, const char *name, int n_dims, const int64_t *shape)
{
    void *memory;
    const dc_tensor *tensor;
    dc_status status = take(reader, &tensor, name, n_dims, shape);
    if (status != DC_OK || (status = dc_alloc(&memory, tensor->n_items, sizeof(float), name, reader->err)) != DC_OK)
        return status;
    *out = memory;
    return dc_tensor_to_float(*out, tensor, 0, tensor->n_items, reader->err);
}

/* Rows of a weight (n, n_in) as columns `first` and following of panels (ceil(n_out / 32), n_in, 32): column j of the output
 * is lane j % 32 of panel j / 32.  row (n_in,) is overwritten. */
static dc_status pack(dc_linear *layer, const dc_tensor *weight, int64_t first, int64_t n, float *row, dc_error *err)
{
    int64_t n_in = layer->n_in;
    for (int64_t r = 0; r < n; r++) {
        int64_t j = first + r;
        float *lane = layer->panels + j / DC_PANEL * n_in * DC_PANEL + j % DC_PANEL;
        dc_status status = dc_tensor_to_float(row, weight, r * n_in, n_in, err);
        if (status != DC_OK)
            return status;
        for (int64_t k = 0; k < n_in; k++)
            lane[k * DC_PANEL] = row[k];
    }
    return DC_OK;
}

static dc_status alloc_layer(dc_linear *layer, dc_error *err)
{
    void *memory;
    int64_t n_columns = dc_panels(layer->n_out) * DC_PANEL;
    dc_status status = dc_alloc(&memory, n_columns * layer->n_in, sizeof(float), "packed weights", err);
    if (status != DC_OK)
        return status;
    layer->panels = memory;
    if ((status = dc_alloc(&memory, n_columns, sizeof(float), "a bias", err)) == DC_OK)
        layer->bias = memory;
    return status;
}

dc_status dc_reader_layer(dc_reader *reader, dc_linear *layer, const char *const *parts, int n_parts, int n_dims,
                          const int64_t *shape)
{
    char name[DC_TENSOR_NAME];
    const dc_tensor *tensor;
    void *memory;
    layer->n_out = shape[0] * n_parts;
    layer->n_in = 1;
    for (int i = 1; i < n_dims; i++)
        layer->n_in *= shape[i];
    dc_status status = dc_alloc(&memory, layer->n_in, sizeof(float), "a row of weights", reader->err);
    if (status != DC_OK)
        return status;
    float *row = memory;
    if ((status = alloc_layer(layer, reader->err)) != DC_OK)
        goto done;
    for (int i = 0; i < n_parts; i++) {
        int64_t first = i * shape[0];
        snprintf(name, sizeof name, "%s.weight", parts[i]);
        if ((status = take(reader, &tensor, name, n_dims, shape)) != DC_OK ||
            (status = pack(layer, tensor, first, shape[0], row, reader->err)) != DC_OK)
            goto done;
        snprintf(name, sizeof name, "%s.bias", parts[i]);
        if ((status = take(reader, &tensor, name, 1, shape)) != DC_OK ||
            (status = dc_tensor_to_float(layer->bias + first, tensor, 0, shape[0], reader->err)) != DC_OK)
            goto done;
    }
done:
    dc_free(row);
    return status;
}

void dc_linear_clear(dc_linear *layer)
{
    dc_free(layer->panels);
    dc_free(layer->bias);
    *layer = (dc_linear){0};
}

int dc_reader_is_copy(dc_reader *reader, const char *name, const char *of)
{
    const dc_tensor *a = find(reader, name), *b = find(reader, of);
    if (a == NULL || b == NULL || a->dtype != b->dtype || a->n_dims != b->n_dims ||
        memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape) != 0 ||
        memcmp(a->data, b->data, (size_t)a->n_items * dc_dtype_bytes(a->dtype)) != 0)
        return 0;
    reader->n_read++;
    return 1;
}

dc_status dc_reader_end(const dc_reader *reader)
{
    int64_t n = 0;
    for (int64_t i = 0; i < reader->n_files; i++)
        n += reader->files[i].n;
    if (n == reader->n_read)
        return DC_OK;
    return dc_error_set(reader->err, DC_ERR_FORMAT, "the weights file has %lld tensors, the model has %lld", (long long)n,
                        (long long)reader->n_read);
}
