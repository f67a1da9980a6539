/* The device of shim/ and the CPU backend side by side, for tests that hold one against the other. */
#ifndef DC_TEST_DEVICE_H
#define DC_TEST_DEVICE_H

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "shim/shim.h"

extern "C" {
#include "../c/backends.h"
}
#include "cuda/cuda.h"

/* Rows that are dense. */
static inline dc_prediction dense(const void *data, dc_dtype dtype, int64_t row_stride)
{
    return {data, dtype, row_stride, 0, 0};
}

/* Uniform in (-size, size), the same every time. */
static inline std::vector<float> random_floats(int64_t n, float size, uint32_t state)
{
    std::vector<float> values((size_t)n);
    fill(values.data(), n, state);
    for (float &value : values)
        value *= size;
    return values;
}

/* One CUDA backend on a stream of its own, and the memory that a test puts there. */
struct device {
    cudaStream_t stream;
    dc_backend *backend, *host; /* host: scalar, the oracle */
    std::vector<void *> memory;
};

static inline device device_open(int64_t max_rows, int64_t n_elem)
{
    device d = {};
    dc_error err = {};
    d.stream = shim_stream_new(0);
    CHECK(dc_cuda_backend_new(&d.backend, 0, (uint64_t)(uintptr_t)d.stream, &err) == DC_OK);
    CHECK(d.backend->device->reserve(d.backend, max_rows, n_elem, &err) == DC_OK);
    CHECK(dc_cpu_backend_new(&d.host, 1, "scalar", &err) == DC_OK);
    return d;
}

/* count items that nobody wrote, `offset` items behind a multiple of 16 bytes; they end where the memory ends. */
template <typename T> static T *device_new(device *d, int64_t count, int64_t offset = 0)
{
    void *memory = NULL;
    CHECK(shim_new(&memory, (size_t)(count + offset) * sizeof(T)) == cudaSuccess);
    d->memory.push_back(memory);
    return (T *)memory + offset;
}

template <typename T> static T *device_put(device *d, const T *from, int64_t count, int64_t offset = 0)
{
    T *to = device_new<T>(d, count, offset);
    dc_error err = {};
    CHECK(d->backend->device->upload(d->backend, to, from, count * (int64_t)sizeof(T), &err) == DC_OK);
    return to;
}

/* All that was begun is done, and neither the shim nor the backend saw anything wrong. */
static inline void device_finish(device *d)
{
    dc_error err = {};
    CHECK(cudaStreamSynchronize(d->stream) == cudaSuccess);
    CHECK(d->backend->device->check(d->backend, &err) == DC_OK);
    CHECK(shim_reports() == 0);
}

static inline void device_clear(device *d)
{
    for (void *memory : d->memory)
        d->backend->device->memory_free(d->backend, memory);
    d->memory.clear();
}

static inline void device_close(device *d)
{
    device_clear(d);
    dc_cuda_backend_free(d->backend);
    dc_cpu_backend_free(d->host);
}

/* main's last line: nothing was reported, nothing leaked. */
static inline int device_done()
{
    CHECK(shim_reports() == 0);
    CHECK(shim_live() == 0);
    return test_done();
}

#endif
