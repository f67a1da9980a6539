/* The loop of csrc/method on the CUDA backend: whole races, equal to the CPU's to the bit, with one batch always under way;
 * and what becomes of them when the device fails. */
#include "device.h"

extern "C" {
#include "method/loop.h"
}

enum { N_ELEM = 37, T = 20, POOL = 40, CLASSES = 5, IMAGES = 7 };

/* A denoiser on either side: answers x_t (0.5 + t / 40) + 0.02 (1 + class) sin(element).  On the device it is work in the
 * stream, as a framework's would be, so it runs when the loop has long gone on. */
struct model {
    device *d; /* NULL: the host's */
    float *x_t, *answer;
    int64_t n_calls, n_waiting, deepest; /* batches asked and not yet run */
    int64_t nan_condition, nan_timestep;
};

static void denoise_rows(const model *self, const float *x_t, int64_t n_rows, const std::vector<int64_t> &timesteps,
                         const std::vector<int64_t> &condition)
{
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t e = 0; e < N_ELEM; e++) {
            int64_t t = timesteps[(size_t)r], c = condition[(size_t)r];
            float slope = 0.5f + (float)t / 40.0f, own = 0.02f * (float)(1 + c) * sinf((float)e);
            self->answer[r * N_ELEM + e] = c == self->nan_condition && t == self->nan_timestep ? NAN
                                                                                              : x_t[r * N_ELEM + e] * slope + own;
        }
}

static dc_status model_input(void *context, float **x_t, int64_t, int64_t, dc_error *)
{
    *x_t = ((model *)context)->x_t;
    return DC_OK;
}

static dc_status model_denoise(void *context, const dc_batch *batch, dc_prediction *out, dc_error *)
{
    model *self = (model *)context;
    std::vector<int64_t> timesteps(batch->timesteps, batch->timesteps + batch->n_rows);
    std::vector<int64_t> condition(batch->condition, batch->condition + batch->n_rows);
    self->n_calls++;
    *out = dense(self->answer, DC_FLOAT32, N_ELEM);
    if (self->d == NULL) {
        denoise_rows(self, batch->x_t, batch->n_rows, timesteps, condition);
        return DC_OK;
    }
    self->n_waiting++;
    self->deepest = self->n_waiting > self->deepest ? self->n_waiting : self->deepest;
    const float *x_t = batch->x_t;
    int64_t n_rows = batch->n_rows;
    shim_enqueue(self->d->stream, [=] {
        denoise_rows(self, x_t, n_rows, timesteps, condition);
        self->n_waiting--;
    });
    return DC_OK;
}

static void model_release(void *) {}

struct setting {
    double alpha[T], sigma[T], time[T], p[T], q[T];
    dc_trial trials[POOL];
    int64_t condition_offset[CLASSES + 1], conditions[CLASSES];
    float images[IMAGES][N_ELEM], noise[POOL * N_ELEM];
    model net;
    dc_loop_params params;
};

static void setting_open(setting *s, device *d, int on_device, int64_t batch_size, int64_t in_flight)
{
    const int64_t ROWS_MAX = 1000;
    *s = {};
    for (int t = 0; t < T; t++) {
        double u = (double)(t + 1) / (double)(T + 1);
        s->alpha[t] = sqrt(1.0 - u), s->sigma[t] = sqrt(u), s->time[t] = t, s->q[t] = 1.0;
    }
    CHECK(dc_trials_pool(s->trials, POOL, T, NULL, NULL, 1, NULL) == DC_OK); /* antithetic pairs */
    for (int i = 0; i < IMAGES; i++)
        for (int e = 0; e < N_ELEM; e++)
            s->images[i][e] = sinf((float)(i * N_ELEM + 3 * e));
    for (int i = 0; i < POOL * N_ELEM; i++)
        s->noise[i] = cosf((float)i);
    for (int i = 0; i < CLASSES; i++)
        s->condition_offset[i] = s->conditions[i] = i;
    s->condition_offset[CLASSES] = CLASSES;
    s->net.d = on_device ? d : NULL;
    s->net.nan_condition = -1;
    if (on_device) {
        std::vector<float> zeros((size_t)ROWS_MAX * N_ELEM); /* the framework's writes are none that the shim sees */
        s->net.x_t = device_new<float>(d, ROWS_MAX * N_ELEM);
        s->net.answer = device_put(d, zeros.data(), ROWS_MAX * N_ELEM);
    } else {
        s->net.x_t = (float *)malloc((size_t)(ROWS_MAX * N_ELEM) * sizeof(float));
        s->net.answer = (float *)malloc((size_t)(ROWS_MAX * N_ELEM) * sizeof(float));
    }
    s->params = {};
    s->params.backend = on_device ? d->backend : d->host;
    s->params.denoiser = {&s->net, model_input, model_denoise, model_release, NULL, NULL};
    s->params.n_elem = N_ELEM;
    s->params.n_timesteps = T;
    s->params.alpha = s->alpha, s->params.sigma = s->sigma, s->params.time = s->time, s->params.p = s->p, s->params.q = s->q;
    s->params.arms.n_arms = s->params.arms.n_classes = CLASSES;
    s->params.condition_offset = s->condition_offset;
    s->params.conditions = s->conditions;
    s->params.trials = s->trials;
    s->params.n_trials = POOL;
    s->params.policy.risk = 0.05, s->params.policy.n_min = 4, s->params.policy.fill = 10, s->params.policy.prior_weight = 4.0;
    s->params.loss = DC_LOSS_L2;
    s->params.delta = 1.0f;
    s->params.seed = 11;
    s->params.batch_size = batch_size;
    s->params.max_in_flight = in_flight;
}

static void setting_close(setting *s)
{
    if (s->net.d == NULL) {
        free(s->net.x_t);
        free(s->net.answer);
    } else {
        device_clear(s->net.d);
    }
}

struct outcome {
    double losses[CLASSES], stderrs[CLASSES], excess[CLASSES], p_disagree;
    int64_t n_trials[CLASSES], index, n_evals;
};

static void read_race(outcome *out, const dc_race *race)
{
    dc_race_result result = {};
    result.losses = out->losses, result.stderrs = out->stderrs, result.excess = out->excess, result.n_trials = out->n_trials;
    CHECK(dc_race_read(race, &result, NULL) == DC_OK);
    out->index = result.index, out->n_evals = result.n_evals, out->p_disagree = result.p_disagree;
}

/* All images through one loop; stops at the first failure. */
static dc_status run_images(setting *s, outcome *outcomes, dc_error *err)
{
    dc_loop *loop;
    const dc_race *race;
    int64_t tag, n_added = 0, n_done = 0;
    memset(outcomes, 0, IMAGES * sizeof *outcomes);
    dc_status status = dc_loop_new(&loop, &s->params, err);
    while (status == DC_OK && n_done < IMAGES) {
        while (status == DC_OK && n_added < IMAGES && dc_loop_wants_image(loop)) {
            status = dc_loop_add(loop, s->images[n_added], NULL, 0, n_added, err);
            n_added++;
        }
        if (status == DC_OK)
            status = dc_loop_advance(loop, n_added == IMAGES, &race, &tag, err);
        if (status == DC_OK && race != NULL) {
            read_race(&outcomes[tag], race);
            n_done++;
        }
    }
    dc_loop_free(loop);
    return status;
}

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
        if (in_flight[i < 0 ? 0 : i] > 1 && batch_sizes[i < 0 ? 0 : i] < 64)
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
    check_failures();
    check_devices();
    check_second_device();
    check_reserved();
    return device_done();
}
