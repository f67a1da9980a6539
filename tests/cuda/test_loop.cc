/* The loop of csrc/method on the CUDA backend: whole races, equal to the CPU's to the bit, with one batch always under way;
 * and what becomes of them when the device fails. */
#include "races.h"

static void check_races_are_the_hosts(device *d, int with_noise)
{
    static const int64_t batch_sizes[] = {16, 1, 7, 64, 1000}, in_flight[] = {2, 1, 6, 3, 5};
    outcome host[IMAGES], other[IMAGES];
    setting *s = new setting;
    for (int i = -1; i < 5; i++) {
        setting_open(s, d, i >= 0, batch_sizes[i < 0 ? 0 : i], in_flight[i < 0 ? 0 : i]);
        if (with_noise)
            s->params.noise = s->noise, s->params.n_noise = POOL;
        shim_set_order((shim_order)((i + 3) % 3));
        CHECK(run_images(s, i < 0 ? host : other, NULL) == DC_OK);
        if (i >= 0)
            CHECK(memcmp(host, other, sizeof host) == 0);
        if (!shim_is_real() && in_flight[i < 0 ? 0 : i] > 1 && batch_sizes[i < 0 ? 0 : i] < 64)
            CHECK(s->net.deepest == (i < 0 ? 0 : 2)); /* the device always has the next batch */
        setting_close(s);
    }
    CHECK(shim_reports() == 0 && host[0].n_evals < POOL * CLASSES);
    delete s;
}

static void check_non_finite_is_named(device *d)
{
    dc_error err = {};
    outcome outcomes[IMAGES];
    setting *s = new setting;
    setting_open(s, d, 1, 16, 3);
    s->params.policy = {};
    s->params.policy.fill = 1;
    s->net.nan_condition = 3, s->net.nan_timestep = s->trials[5].timestep;
    CHECK(run_images(s, outcomes, &err) == DC_ERR_NONFINITE);
    CHECK(err.class_index == 3 && err.timestep == s->trials[5].timestep && err.noise_index == s->trials[5].noise_index);
    setting_close(s);
    delete s;
}

/* Every call of the runtime fails once, at its first and at a later use: one clear error, nothing leaked. */
static void check_failures()
{
    static const struct {
        const char *function;
        int after;
        cudaError_t status;
        dc_status wanted;
    } faults[] = {
        {"cudaMalloc", 0, cudaErrorMemoryAllocation, DC_ERR_NOMEM},
        {"cudaMalloc", 5, cudaErrorMemoryAllocation, DC_ERR_NOMEM},
        {"cudaMallocHost", 0, cudaErrorMemoryAllocation, DC_ERR_NOMEM},
        {"cudaMallocHost", 4, cudaErrorMemoryAllocation, DC_ERR_NOMEM},
        {"cudaMallocHost", 5, cudaErrorMemoryAllocation, DC_ERR_NOMEM},
        {"cudaEventCreateWithFlags", 0, cudaErrorMemoryAllocation, DC_ERR_NOMEM},
        {"cudaEventCreateWithFlags", 5, cudaErrorMemoryAllocation, DC_ERR_NOMEM},
        {"cudaDeviceGetAttribute", 0, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaMemcpyAsync", 1, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaMemcpyAsync", 9, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaPointerGetAttributes", 0, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaEventRecord", 3, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaEventSynchronize", 7, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaStreamSynchronize", 0, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaLaunchKernelEx", 0, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"cudaLaunchKernelEx", 7, cudaErrorInvalidValue, DC_ERR_DEVICE},
        {"execution", 0, cudaErrorIllegalAddress, DC_ERR_DEVICE},
        {"execution", 11, cudaErrorIllegalAddress, DC_ERR_DEVICE}, /* and the device is lost from there on */
    };
    outcome outcomes[IMAGES];
    setting *s = new setting;
    for (const auto &fault : faults) {
        device d = {};
        dc_error err = {};
        int64_t live = shim_live();
        d.stream = shim_stream_new(0);
        shim_fail(fault.function, fault.after, fault.status);
        dc_status status = dc_cuda_backend_new(&d.backend, 0, (uint64_t)(uintptr_t)d.stream, &err);
        void *buffers[2] = {malloc(64 * N_ELEM * sizeof(float)), malloc(64 * N_ELEM * sizeof(float))};
        if (status == DC_OK) {
            setting_open(s, &d, 0, 16, 3);
            free(s->net.x_t), free(s->net.answer);
            for (void *buffer : buffers)
                shim_memory(buffer, 64 * N_ELEM * sizeof(float), 0);
            s->net.d = &d, s->net.x_t = (float *)buffers[0], s->net.answer = (float *)buffers[1];
            s->params.backend = d.backend;
            s->params.noise = s->noise, s->params.n_noise = POOL;
            status = run_images(s, outcomes, &err);
        }
        CHECK(status == fault.wanted);
        CHECK(status != DC_ERR_DEVICE || strstr(err.message, "CUDA failed in ") != NULL);
        CHECK(strcmp(fault.function, "execution") == 0 || cudaGetLastError() == cudaSuccess); /* told, and nobody finds it again */
        dc_cuda_backend_free(d.backend);
        shim_reset();
        if (d.backend != NULL)
            for (void *buffer : buffers)
                CHECK(cudaFree(buffer) == cudaSuccess);
        for (void *buffer : buffers)
            free(buffer);
        CHECK(shim_live() == live);
        if (status != fault.wanted || shim_live() != live)
            printf("after %d of %s: status %d, %lld live, %s\n", fault.after, fault.function, (int)status,
                   (long long)(shim_live() - live), err.message);
    }
    delete s;
}

static void check_devices()
{
    dc_backend *backend;
    dc_error err = {};
    int n;
    shim_set_devices(0, 0);
    CHECK(dc_cuda_device_count(&n, &err) == DC_ERR_DEVICE && n == 0 && strstr(err.message, "no NVIDIA driver") != NULL);
    shim_set_devices(1, 12040);
    CHECK(dc_cuda_device_count(&n, &err) == DC_ERR_DEVICE && strstr(err.message, "CUDA 12.4, this build needs 13.0") != NULL);
    shim_set_devices(0, 13000);
    CHECK(dc_cuda_backend_new(&backend, 0, 1, &err) == DC_ERR_DEVICE && strstr(err.message, "finds no device") != NULL);
    CHECK(backend == NULL);
    shim_set_devices(2, 13000);
    CHECK(dc_cuda_device_count(&n, &err) == DC_OK && n == 2);
    for (int device : {-1, 2})
        CHECK(dc_cuda_backend_new(&backend, device, 1, &err) == DC_ERR_DEVICE && strstr(err.message, "there are 2") != NULL);
    dc_cuda_backend_free(NULL);
}

/* A backend of the second device works there, whatever the calling thread's device is, and leaves that as it was. */
static void check_second_device()
{
    float eps[5], *out;
    void *memory;
    dc_error err = {};
    dc_backend *backend;
    int now = -1;
    cudaStream_t stream = shim_stream_new(1);
    CHECK(dc_cuda_backend_new(&backend, 1, (uint64_t)(uintptr_t)stream, &err) == DC_OK);
    dc_results results = {};
    CHECK(backend->device->results_new(backend, &results, 4, &err) == DC_OK);
    CHECK(backend->device->memory_new(backend, &memory, sizeof eps, &err) == DC_OK);
    out = (float *)memory;
    backend->noise(backend, out, {1, 2, 3}, 0, 5);
    backend->device->mark(backend, &results);
    CHECK(backend->device->wait(backend, &results, &err) == DC_OK);
    CHECK(cudaGetDevice(&now) == cudaSuccess && now == 0);
    device d = device_open(1, 1);
    d.host->noise(d.host, eps, {1, 2, 3}, 0, 5);
    CHECK(memcmp(out, eps, sizeof eps) == 0);
    device_close(&d);
    backend->device->memory_free(backend, memory);
    backend->device->results_free(backend, &results);
    dc_cuda_backend_free(backend);
}

/* More than was reserved is an error, not a crash. */
static void check_reserved()
{
    device d = device_open(2, 1024);
    dc_error err = {};
    dc_group group = {};
    group.n_rows = 3;
    d.backend->noising(d.backend, NULL, &group, 1, 1024, PLAIN);
    CHECK(d.backend->device->check(d.backend, &err) == DC_ERR_DEVICE && strstr(err.message, "larger than what was reserved") != NULL);
    CHECK(d.backend->device->reserve(d.backend, INT64_MAX / 2, 1 << 20, &err) == DC_ERR_NOMEM);
    device_close(&d);
}

int main()
{
    device d = device_open(1, 1);
    check_races_are_the_hosts(&d, 0);
    check_races_are_the_hosts(&d, 1);
    check_non_finite_is_named(&d);
    device_close(&d);
    check_reserved();
    if (!shim_is_real()) {
        check_failures();
        check_devices();
        check_second_device();
    }
    return device_done();
}
