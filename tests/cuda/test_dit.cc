/* The native DiT on the device of shim/, with products by the double of cuBLASLt: its forward pass and whole races against the
 * CPU's, and what becomes of them when something fails. */
#include "cuda/dit_context.h"
#include "device.h"
#include "lt_double.h"

extern "C" {
#include "dit/dit.h"
#include "method/loop.h"
}
#include "dit_files.h"

static const dc_precision PRECISIONS[] = {DC_PRECISION_FLOAT32, DC_PRECISION_TF32, DC_PRECISION_FLOAT16, DC_PRECISION_BFLOAT16};

/* Of the largest number that comes out.  Measured on these models: 1.2e-6, 1.1e-3, 1e-3 and 1e-2. */
static double bound_of(dc_precision precision)
{
    return precision == DC_PRECISION_FLOAT32 ? 1e-5 : precision == DC_PRECISION_BFLOAT16 ? 2e-2 : 2.5e-3;
}

/* size, patch, channels, hidden, depth, heads, perceptron, classes, learn_sigma, layout, eps */
static const dc_dit_config CONFIGS[] = {
    {8, 2, 1, 32, 2, 2, 64, 5, 0, DC_DIT_ORIGINAL, 1e-6f},     /* as the embedded model, smaller */
    {6, 2, 2, 15, 2, 3, 20, 3, 1, DC_DIT_ORIGINAL, 1e-6f},     /* nothing stands on a multiple of 16 bytes */
    {8, 4, 4, 40, 1, 1, 48, 4, 1, DC_DIT_ORIGINAL, 1e-6f},     /* heads wider than a warp */
    {4, 1, 3, 24, 3, 4, 96, 3, 0, DC_DIT_ORIGINAL, 1e-6f},     /* patches of a pixel */
    {8, 2, 4, 36, 3, 3, 72, 4, 1, DC_DIT_DIFFUSERS, 1e-5f},    /* an embedder in every block; eps of its own */
    {12, 2, 1, 16, 1, 2, 16, 6, 0, DC_DIT_DIFFUSERS, 1e-5f},   /* 36 tokens: two tiles of queries and keys */
};

static int64_t elements_in(const dc_dit_config &c)
{
    return c.in_channels * c.input_size * c.input_size;
}

struct batch_of {
    std::vector<float> x_t;
    std::vector<double> time;
    std::vector<int64_t> labels, timesteps, input_of_row;
    dc_batch batch;
};

/* Rows as the loop asks them: classes at one input are neighbours; the first rows of two inputs are the same but in the last
 * element. */
static batch_of rows_of(const dc_dit_config &c, int64_t n_rows)
{
    batch_of b;
    const int64_t n_elem = elements_in(c), n_inputs = (n_rows + 2) / 3;
    std::vector<float> inputs = random_floats(n_inputs * n_elem, 1.5f, 7);
    for (int64_t e = 0; e < n_elem && n_inputs > 1; e++)
        inputs[(size_t)(n_elem + e)] = inputs[(size_t)e] + (e == n_elem - 1 ? 0.5f : 0.0f);
    for (int64_t r = 0; r < n_rows; r++) {
        b.x_t.insert(b.x_t.end(), inputs.begin() + r / 3 * n_elem, inputs.begin() + (r / 3 + 1) * n_elem);
        b.time.push_back((double)(r / 6 % 4 * 331));
        b.timesteps.push_back(r / 6 % 4);
        b.labels.push_back((r % 3 + r / 3) % c.num_classes);
        b.input_of_row.push_back(r / 3);
    }
    b.batch = {};
    return b;
}

/* out: what the model says of them, on its backend. */
static dc_status denoise(std::vector<float> *out, const dc_dit *model, const dc_backend *backend, batch_of *b, int64_t max_rows,
                         dc_error *err)
{
    const dc_dit_config &c = model->config;
    const int64_t n_elem = elements_in(c), n_rows = (int64_t)b->labels.size(), n_out = n_elem / c.in_channels * model->out_channels;
    dc_dit_denoiser *denoiser;
    dc_prediction got = {};
    float *x_t;
    dc_status status = dc_dit_denoiser_new(&denoiser, model, backend, max_rows, err);
    if (status != DC_OK)
        return status;
    dc_denoiser entry = dc_dit_denoiser_entry(denoiser);
    status = entry.input(entry.context, &x_t, n_rows, n_elem, err);
    if (status == DC_OK && backend->device != NULL)
        status = backend->device->upload(backend, x_t, b->x_t.data(), n_rows * n_elem * (int64_t)sizeof(float), err);
    else if (status == DC_OK)
        memcpy(x_t, b->x_t.data(), b->x_t.size() * sizeof(float));
    b->batch.n_rows = n_rows, b->batch.n_elem = n_elem, b->batch.x_t = x_t, b->batch.timesteps = b->timesteps.data();
    b->batch.time = b->time.data(), b->batch.condition = b->labels.data(), b->batch.input_of_row = b->input_of_row.data();
    if (status == DC_OK)
        status = entry.denoise(entry.context, &b->batch, &got, err);
    if (status == DC_OK && backend->device != NULL && cudaStreamSynchronize((cudaStream_t)(uintptr_t)backend->stream) != cudaSuccess)
        status = dc_error_set(err, DC_ERR_DEVICE, "CUDA failed in the end");
    if (status == DC_OK && backend->device != NULL)
        status = backend->device->check(backend, err);
    if (status == DC_OK) {
        CHECK(got.row_stride == n_out && got.dtype == DC_FLOAT32);
        out->assign((const float *)got.data, (const float *)got.data + n_rows * n_out);
        entry.release(entry.context);
    }
    dc_dit_denoiser_free(denoiser);
    return status;
}

static void check_forward(device *d, const dc_dit_config &config, int64_t n_rows, dc_precision precision)
{
    dc_error err = {};
    dc_dit *model = dit_model(config), *placed = NULL;
    batch_of rows = rows_of(config, n_rows);
    std::vector<float> wanted, got;
    CHECK(dc_dit_place(&placed, model, d->backend, precision, &err) == DC_OK);
    CHECK(placed->n_parameters == model->n_parameters && placed->n_embedders == (config.layout == DC_DIT_DIFFUSERS ? config.depth : 1));
    CHECK(denoise(&wanted, model, d->host, &rows, n_rows, &err) == DC_OK);
    CHECK(denoise(&got, placed, d->backend, &rows, n_rows + 3, &err) == DC_OK);
    double worst = 0.0, largest = 0.0;
    for (size_t i = 0; i < wanted.size() && i < got.size(); i++) {
        double error = fabs((double)got[i] - wanted[i]);
        worst = error <= worst ? worst : error; /* a NaN is the worst */
        largest = fmax(largest, fabs(wanted[i]));
    }
    CHECK(got.size() == wanted.size());
    CHECK_CLOSE(worst, 0.0, bound_of(precision) * largest);
    if (getenv("DIT_FIGURES") != NULL)
        printf("hidden %lld, %lld rows, precision %d: %.2g of %.3g\n", (long long)config.hidden_size, (long long)n_rows, (int)precision,
               worst / largest, largest);
    dc_dit_free(placed);
    dc_dit_free(model);
    device_finish(d);
}

/* Weights and backend have to be at one place. */
static void check_places(device *d)
{
    dc_error err = {};
    dc_dit *model = dit_model(CONFIGS[0]), *placed = NULL, *other = NULL;
    dc_dit_denoiser *denoiser;
    CHECK(dc_dit_place(&other, model, d->host, DC_PRECISION_FLOAT32, &err) == DC_ERR_DEVICE && other == NULL);
    CHECK(dc_dit_place(&placed, model, d->backend, DC_PRECISION_FLOAT32, &err) == DC_OK);
    CHECK(dc_dit_place(&other, placed, d->backend, DC_PRECISION_FLOAT32, &err) == DC_ERR_DEVICE && other == NULL);
    CHECK(dc_dit_denoiser_new(&denoiser, model, d->backend, 4, &err) == DC_ERR_DEVICE && denoiser == NULL);
    CHECK(strstr(err.message, "weights are on the host, the backend computes on cuda:0") != NULL);
    CHECK(dc_dit_denoiser_new(&denoiser, placed, d->host, 4, &err) == DC_ERR_DEVICE && denoiser == NULL);
    CHECK(strstr(err.message, "weights are on cuda:0, the backend computes elsewhere") != NULL);
    device bare = device_open(1, 1);
    CHECK(dc_dit_denoiser_new(&denoiser, placed, bare.backend, 4, &err) == DC_ERR_DEVICE);
    CHECK(strstr(err.message, "no operations for the native DiT") != NULL);
    /* another stream of the same device is the same place */
    dc_lt lt = lt_double();
    batch_of rows = rows_of(CONFIGS[0], 5);
    std::vector<float> here, there;
    CHECK(dc_cuda_dit_open(bare.backend, &lt, &err) == DC_OK);
    CHECK(denoise(&here, placed, d->backend, &rows, 5, &err) == DC_OK);
    CHECK(denoise(&there, placed, bare.backend, &rows, 5, &err) == DC_OK);
    CHECK(here == there);
    rows.labels[4] = 5;
    CHECK(denoise(&here, placed, d->backend, &rows, 5, &err) == DC_ERR_VALUE && strstr(err.message, "must be 0 to 4") != NULL);
    device_close(&bare);
    dc_dit_free(placed);
    dc_dit_free(model);
}

/* ---- the loop ------------------------------------------------------------------------------------------------------ */

enum { T = 20, POOL = 12, CLASSES = 5, IMAGES = 4, N_ELEM = 64 };

struct outcome {
    double losses[CLASSES], stderrs[CLASSES], excess[CLASSES];
    int64_t n_trials[CLASSES], index, n_evals;
};

struct setting {
    double alpha[T], sigma[T], time[T], p[T], q[T];
    dc_trial trials[POOL];
    int64_t condition_offset[CLASSES + 1], conditions[CLASSES];
    float images[IMAGES][N_ELEM];
};

static void setting_open(setting *s)
{
    for (int t = 0; t < T; t++) {
        double u = (double)(t + 1) / (double)(T + 1);
        s->alpha[t] = sqrt(1.0 - u), s->sigma[t] = sqrt(u), s->time[t] = 50.0 * t, s->p[t] = 0.0, s->q[t] = 1.0;
    }
    CHECK(dc_trials_pool(s->trials, POOL, T, NULL, NULL, 0, NULL) == DC_OK);
    for (int i = 0; i < IMAGES; i++)
        fill(s->images[i], N_ELEM, (uint32_t)(40 + i));
    for (int i = 0; i <= CLASSES; i++)
        s->condition_offset[i] = i;
    for (int i = 0; i < CLASSES; i++)
        s->conditions[i] = i;
}

static dc_status run_race(outcome *outcomes, setting *s, const dc_dit *model, const dc_backend *backend, int64_t batch_size,
                          dc_error *err)
{
    dc_loop_params params = {};
    dc_loop *loop = NULL;
    dc_dit_denoiser *denoiser;
    const dc_race *race;
    int64_t tag, n_added = 0, n_done = 0;
    dc_status status = dc_dit_denoiser_new(&denoiser, model, backend, batch_size, err);
    if (status != DC_OK)
        return status;
    params.backend = backend, params.denoiser = dc_dit_denoiser_entry(denoiser), params.n_elem = N_ELEM, params.n_timesteps = T;
    params.alpha = s->alpha, params.sigma = s->sigma, params.time = s->time, params.p = s->p, params.q = s->q;
    params.arms.n_arms = params.arms.n_classes = CLASSES;
    params.condition_offset = s->condition_offset, params.conditions = s->conditions;
    params.trials = s->trials, params.n_trials = POOL;
    params.policy.risk = 0.2, params.policy.n_min = 3, params.policy.fill = 3, params.policy.prior_weight = 1.0;
    params.delta = 1.0f, params.seed = 3, params.batch_size = batch_size, params.max_in_flight = 2;
    status = dc_loop_new(&loop, &params, err);
    while (status == DC_OK && n_done < IMAGES) {
        while (status == DC_OK && n_added < IMAGES && dc_loop_wants_image(loop)) {
            status = dc_loop_add(loop, s->images[n_added], NULL, 0, n_added, err);
            n_added++;
        }
        if (status == DC_OK)
            status = dc_loop_advance(loop, n_added == IMAGES, &race, &tag, err);
        if (status == DC_OK && race != NULL) {
            dc_race_result result = {};
            outcome *out = &outcomes[tag];
            result.losses = out->losses, result.stderrs = out->stderrs, result.excess = out->excess, result.n_trials = out->n_trials;
            CHECK(dc_race_read(race, &result, NULL) == DC_OK);
            out->index = result.index, out->n_evals = result.n_evals;
            n_done++;
        }
    }
    dc_loop_free(loop);
    dc_dit_denoiser_free(denoiser);
    return status;
}

/* The same winners after as many evaluations, with losses that differ by what the products do; and the device always has the
 * next batch while the one before is read. */
static void check_races(device *d)
{
    setting *s = new setting();
    outcome host[IMAGES] = {}, other[IMAGES] = {};
    dc_error err = {};
    dc_dit *model = dit_model(CONFIGS[0]), *placed;
    setting_open(s);
    CHECK(run_race(host, s, model, d->host, 16, &err) == DC_OK);
    for (dc_precision precision : PRECISIONS)
        for (int64_t batch_size : {(int64_t)16, (int64_t)7}) {
            if (batch_size == 7 && precision != DC_PRECISION_FLOAT32)
                continue;
            CHECK(dc_dit_place(&placed, model, d->backend, precision, &err) == DC_OK);
            CHECK(run_race(other, s, placed, d->backend, batch_size, &err) == DC_OK);
            for (int i = 0; i < IMAGES; i++) {
                CHECK(other[i].index == host[i].index && other[i].n_evals == host[i].n_evals);
                for (int k = 0; k < CLASSES; k++)
                    CHECK_CLOSE(other[i].losses[k] / host[i].losses[k], 1.0, 2.0 * bound_of(precision));
            }
            dc_dit_free(placed);
        }
    CHECK(host[0].n_evals < POOL * CLASSES); /* somebody is dropped */
    dc_dit_free(model);
    device_finish(d);
    delete s;
}

/* Every call of the runtime and of the library fails once, early and late: one clear error, nothing leaked, and the next run
 * is as if nothing had happened. */
static void check_failures()
{
    static const struct {
        const char *function;
        int after;
        int status;
        dc_status wanted;
        const char *words;
    } faults[] = {
        {"cublasLtCreate", 0, 1, DC_ERR_DEVICE, "cuBLASLt does not start: its status is 1"},
        {"cublasLtMatmulDescCreate", 0, 3, DC_ERR_NOMEM, "CUDA failed in a product of cuBLASLt"},
        {"cublasLtMatmulDescSetAttribute", 2, 7, DC_ERR_DEVICE, "a product that cuBLASLt says is inconsistent"},
        {"cublasLtMatmulDescSetAttribute", 4, 14, DC_ERR_DEVICE, "a product of cuBLASLt"},
        {"cublasLtMatrixLayoutCreate", 2, 3, DC_ERR_NOMEM, "a product of cuBLASLt"},
        {"cublasLtMatrixLayoutSetAttribute", 1, 7, DC_ERR_DEVICE, "inconsistent"},
        {"cublasLtMatmulPreferenceCreate", 1, 3, DC_ERR_NOMEM, "a product of cuBLASLt"},
        {"cublasLtMatmulAlgoGetHeuristic", 3, 15, DC_ERR_DEVICE, "this cuBLASLt has no algorithm for"},
        {"cublasLtMatmul", 0, 13, DC_ERR_DEVICE, "a product of cuBLASLt"},
        {"cublasLtMatmul", 14, 15, DC_ERR_DEVICE, "no algorithm for"},
        {"cudaMalloc", 0, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "opening cuBLASLt"}, /* its workspace */
        {"cudaMalloc", 1, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "allocating device memory"},
        {"cudaMalloc", 9, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "allocating device memory"},
        {"cudaMalloc", 67, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "allocating device memory"},
        {"cudaMalloc", 68, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "allocating the DiT's scratch memory"},
        {"cudaMalloc", 72, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "allocating device memory"},
        {"cudaMallocHost", 0, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "scratch memory"},
        {"cudaMallocHost", 5, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "scratch memory"},
        {"cudaEventCreateWithFlags", 4, cudaErrorMemoryAllocation, DC_ERR_NOMEM, "opening cuBLASLt"},
        {"cudaEventCreateWithFlags", 7, cudaErrorInvalidValue, DC_ERR_DEVICE, "opening cuBLASLt"},
        {"cudaMemcpyAsync", 2, cudaErrorInvalidValue, DC_ERR_DEVICE, "copying to the device"},
        {"cudaMemcpyAsync", 33, cudaErrorInvalidValue, DC_ERR_DEVICE, "sending a batch's numbers"},
        {"cudaEventRecord", 0, cudaErrorInvalidValue, DC_ERR_DEVICE, "sending a batch's numbers"},
        {"cudaEventSynchronize", 0, cudaErrorInvalidValue, DC_ERR_DEVICE, "an earlier batch"},
        {"cudaLaunchKernelEx", 0, cudaErrorInvalidValue, DC_ERR_DEVICE, "placing a layer"},
        {"cudaLaunchKernelEx", 30, cudaErrorInvalidValue, DC_ERR_DEVICE, "CUDA failed in "},
        {"execution", 3, cudaErrorIllegalAddress, DC_ERR_DEVICE, "placing a layer"},
        {"execution", 40, cudaErrorIllegalAddress, DC_ERR_DEVICE, "CUDA failed in "},
    };
    dc_dit *model = dit_model(CONFIGS[0]);
    batch_of rows = rows_of(CONFIGS[0], 7);
    dc_lt lt = lt_double();
    for (const auto &fault : faults) {
        dc_error err = {};
        dc_dit *placed = NULL;
        std::vector<float> got;
        int64_t live = shim_live(), live_lt = lt_double_live();
        device d = device_open(1, 1);
        shim_fail(fault.function, fault.after, (cudaError_t)fault.status);
        dc_status status = dc_cuda_dit_open(d.backend, &lt, &err);
        CHECK(status != DC_OK || d.backend->dit != NULL);
        if (status == DC_OK)
            status = dc_dit_place(&placed, model, d.backend, DC_PRECISION_FLOAT32, &err);
        if (status == DC_OK)
            status = denoise(&got, placed, d.backend, &rows, 7, &err);
        CHECK(status == fault.wanted && strstr(err.message, fault.words) != NULL);
        if (status != fault.wanted || strstr(err.message, fault.words) == NULL)
            printf("after %d of %s: status %d, %s\n", fault.after, fault.function, (int)status, err.message);
        dc_dit_free(placed);
        device_close(&d);
        shim_reset();
        CHECK(shim_live() == live && lt_double_live() == live_lt);
        if (shim_live() != live || lt_double_live() != live_lt)
            printf("after %d of %s: %lld and %lld are left\n", fault.after, fault.function, (long long)(shim_live() - live),
                   (long long)(lt_double_live() - live_lt));
    }
    dc_dit_free(model);
}

int main()
{
    device d = device_open(64, 1024);
    dc_lt lt = lt_double();
    dc_error err = {};
    int order = 0;
    CHECK(dc_cuda_dit_open(d.backend, &lt, &err) == DC_OK);
    for (const dc_dit_config &config : CONFIGS)
        for (dc_precision precision : PRECISIONS) {
            shim_set_order((shim_order)(order++ % 3));
            check_forward(&d, config, 1 + (order + order / 4) % 2 * 6, precision);
        }
    const dc_dit_config tiny = {2, 1, 1, 4, 1, 1, 4, 3, 0, DC_DIT_ORIGINAL, 1e-6f};
    check_forward(&d, tiny, 301, DC_PRECISION_FLOAT32); /* more rows than share at once */
    shim_set_order(SHIM_FORWARD);
    check_places(&d);
    check_races(&d);
    device_close(&d);
    check_failures();
    CHECK(lt_double_live() == 0);
    return device_done();
}
