#include "method/storage.h"

#include <string.h>

#include "base/memory.h"

dc_status dc_memory_new(const dc_backend *backend, void **out, int64_t count, int64_t item_bytes, const char *what,
                        dc_error *err)
{
    int64_t n_bytes;
    *out = NULL;
    if (!dc_size_mul(&n_bytes, count, item_bytes))
        return dc_error_set(err, DC_ERR_NOMEM, "%s: %lld items are too many for memory", what, (long long)count);
    return backend->device != NULL ? backend->device->memory_new(backend, out, n_bytes, err)
                                   : dc_alloc(out, count, (size_t)item_bytes, what, err);
}

void dc_memory_free(const dc_backend *backend, void *memory)
{
    if (backend->device != NULL)
        backend->device->memory_free(backend, memory);
    else
        dc_free(memory);
}

dc_status dc_floats_new(const dc_backend *backend, float **out, const float *from, int64_t count, const char *what,
                        dc_error *err)
{
    void *memory;
    dc_status status = dc_memory_new(backend, &memory, count, (int64_t)sizeof(float), what, err);
    *out = memory;
    return status == DC_OK && from != NULL ? dc_floats_put(backend, *out, from, count, err) : status;
}

dc_status dc_floats_put(const dc_backend *backend, float *to, const float *from, int64_t count, dc_error *err)
{
    if (backend->device != NULL)
        return backend->device->upload(backend, to, from, count * (int64_t)sizeof(float), err);
    memcpy(to, from, (size_t)count * sizeof(float));
    return DC_OK;
}

void dc_floats_free(const dc_backend *backend, float *floats)
{
    dc_memory_free(backend, floats);
}

dc_status dc_results_new(const dc_backend *backend, dc_results *out, int64_t max_rows, int64_t n_elem, dc_error *err)
{
    void *memory = NULL;
    dc_status status;
    if (backend->device != NULL) {
        status = backend->device->reserve(backend, max_rows, n_elem, err);
        return status == DC_OK ? backend->device->results_new(backend, out, max_rows, err) : status;
    }
    status = dc_alloc(&memory, max_rows, sizeof(double), "the batch", err);
    *out = (dc_results){memory, NULL};
    return status;
}

void dc_results_free(const dc_backend *backend, dc_results *results)
{
    if (backend->device != NULL)
        backend->device->results_free(backend, results);
    else
        dc_free(results->errors);
    *results = (dc_results){NULL, NULL};
}
