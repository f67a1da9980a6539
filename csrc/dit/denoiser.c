/* The native DiT as the loop's denoiser: the batch is cut into chunks of a few images, whose activations stay in the cache
 * of the core that works on them; on a device, chunks of many, whose activations fit in its memory.  Where the cuts fall
 * changes no number (dit/operations.h). */
#include "base/memory.h"
#include "dit/dit.h"
#include "dit/shared.h"
#include "method/storage.h"

/* Rows that share at a time, at least and a thread: enough to find what is shared, not enough to fill memory. */
enum { PORTION = 256, PORTION_A_THREAD = 64 };

struct dc_dit_denoiser {
    const dc_dit *model;
    const dc_backend *backend;
    int64_t max_rows, chunk, portion; /* images */
    float *x_t, *out;
    dc_dit_shared shared;
    dc_dit_workspace *workspaces; /* (backend's n_threads,) */
    const dc_batch *batch;        /* of the call under way, like the next two: the portion */
    int64_t first, n_rows;
};

static void compute_shared(void *argument, int64_t share)
{
    dc_dit_denoiser *denoiser = argument;
    const dc_batch *batch = denoiser->batch;
    dc_dit_shared_compute(&denoiser->shared, denoiser->model, &denoiser->workspaces[share],
                          batch->x_t + denoiser->first * batch->n_elem, share, denoiser->backend->n_threads);
}

static void denoise_share(void *argument, int64_t share)
{
    dc_dit_denoiser *denoiser = argument;
    const dc_dit *model = denoiser->model;
    int64_t n_shares = denoiser->backend->n_threads, n_rows = denoiser->n_rows;
    int64_t n_out = model->out_channels * model->config.input_size * model->config.input_size;
    int64_t end = n_rows * (share + 1) / n_shares;
    for (int64_t row = n_rows * share / n_shares; row < end; row += denoiser->chunk) {
        int64_t count = end - row < denoiser->chunk ? end - row : denoiser->chunk;
        dc_dit_forward(model, denoiser->backend, &denoiser->workspaces[share], &denoiser->shared,
                       denoiser->out + (denoiser->first + row) * n_out, row, count);
    }
}

/* First what rows share, then the rows. */
static void denoise_portion(dc_dit_denoiser *denoiser, int64_t first, int64_t n_rows)
{
    const dc_backend *backend = denoiser->backend;
    const dc_batch *batch = denoiser->batch;
    denoiser->first = first;
    denoiser->n_rows = n_rows;
    dc_dit_shared_find(&denoiser->shared, batch->time + first, batch->condition + first,
                       batch->input_of_row == NULL ? NULL : batch->input_of_row + first, n_rows);
    backend->parallel(backend, compute_shared, denoiser, backend->n_threads);
    backend->parallel(backend, denoise_share, denoiser, backend->n_threads);
}

static dc_status denoiser_input(void *context, float **x_t, int64_t n_rows, int64_t n_elem, dc_error *err)
{
    dc_dit_denoiser *denoiser = context;
    const dc_dit_config *config = &denoiser->model->config;
    int64_t wanted = config->in_channels * config->input_size * config->input_size;
    if (n_elem != wanted || n_rows > denoiser->max_rows)
        return dc_error_set(err, DC_ERR_SHAPE, "the batch has %lld rows of %lld elements, the DiT takes %lld of %lld",
                            (long long)n_rows, (long long)n_elem, (long long)denoiser->max_rows, (long long)wanted);
    *x_t = denoiser->x_t;
    return DC_OK;
}

static dc_status denoiser_denoise(void *context, const dc_batch *batch, dc_prediction *out, dc_error *err)
{
    dc_dit_denoiser *denoiser = context;
    int64_t num_classes = denoiser->model->config.num_classes;
    for (int64_t row = 0; row < batch->n_rows; row++)
        if (batch->condition[row] < 0 || batch->condition[row] >= num_classes)
            return dc_error_set(err, DC_ERR_VALUE, "class label %lld, must be 0 to %lld",
                                (long long)batch->condition[row], (long long)(num_classes - 1));
    denoiser->batch = batch;
    for (int64_t first = 0; first < batch->n_rows; first += denoiser->portion)
        denoise_portion(denoiser, first,
                        batch->n_rows - first < denoiser->portion ? batch->n_rows - first : denoiser->portion);
    denoiser->batch = NULL;
    int64_t out_elem = batch->n_elem * denoiser->model->out_channels / denoiser->model->config.in_channels;
    *out = (dc_prediction){.data = denoiser->out, .dtype = DC_FLOAT32, .row_stride = out_elem};
    return denoiser->backend->device != NULL ? denoiser->backend->device->check(denoiser->backend, err) : DC_OK;
}

static void denoiser_release(void *context)
{
    (void)context; /* the prediction lives in the denoiser */
}

/* The model's weights and the backend's memory are the same. */
static dc_status check_place(const dc_dit *model, const dc_backend *backend, dc_error *err)
{
    if (backend->dit == NULL)
        return dc_error_set(err, DC_ERR_DEVICE, "the backend has no operations for the native DiT");
    if ((model->backend == NULL) == (backend->device == NULL) &&
        (model->backend == NULL || model->backend->device_index == backend->device_index))
        return DC_OK;
    if (model->backend == NULL)
        return dc_error_set(err, DC_ERR_DEVICE, "the DiT's weights are on the host, the backend computes on %s:%d",
                            backend->name, backend->device_index);
    return dc_error_set(err, DC_ERR_DEVICE, "the DiT's weights are on %s:%d, the backend computes elsewhere",
                        model->backend->name, model->backend->device_index);
}

dc_status dc_dit_denoiser_new(dc_dit_denoiser **out, const dc_dit *model, const dc_backend *backend, int64_t max_rows,
                              dc_error *err)
{
    void *memory = NULL;
    dc_dit_denoiser *denoiser = NULL;
    int64_t n_elem = model->config.in_channels * model->config.input_size * model->config.input_size, n_x, n_out;
    *out = NULL;
    if (max_rows < 1 || !dc_size_mul(&n_x, n_elem, max_rows) ||
        !dc_size_mul(&n_out, n_elem * model->out_channels / model->config.in_channels, max_rows))
        return dc_error_set(err, DC_ERR_VALUE, "max_rows is %lld, must be positive and fit in memory",
                            (long long)max_rows);
    dc_status status = check_place(model, backend, err);
    if (status != DC_OK || (status = dc_alloc(&memory, 1, sizeof *denoiser, "the denoiser", err)) != DC_OK)
        return status;
    denoiser = memory;
    denoiser->model = model;
    denoiser->backend = backend;
    denoiser->max_rows = max_rows;
    int64_t chunk = backend->dit->chunk_tokens / model->n_tokens;
    int64_t portion = (int64_t)backend->n_threads * PORTION_A_THREAD;
    portion = portion < PORTION ? PORTION : portion;
    denoiser->portion = portion > max_rows ? max_rows : portion;
    denoiser->chunk = chunk < 1 ? 1 : chunk > denoiser->portion ? denoiser->portion : chunk;
    if ((status = dc_memory_new(backend, &memory, n_x, sizeof(float), "x_t", err)) != DC_OK)
        goto done;
    denoiser->x_t = memory;
    if ((status = dc_memory_new(backend, &memory, n_out, sizeof(float), "predictions", err)) != DC_OK)
        goto done;
    denoiser->out = memory;
    if ((status = dc_dit_shared_init(&denoiser->shared, model, backend, denoiser->portion, err)) != DC_OK)
        goto done;
    int64_t chunk_bytes = denoiser->chunk * model->n_tokens * model->config.hidden_size * dc_precision_bytes(model->precision);
    if (backend->device != NULL &&
        (status = backend->dit->reserve(backend, chunk_bytes, dc_dit_shared_bytes(denoiser->portion), err)) != DC_OK)
        goto done;
    if ((status = dc_alloc(&memory, backend->n_threads, sizeof(dc_dit_workspace), "workspaces", err)) != DC_OK)
        goto done;
    denoiser->workspaces = memory;
    for (int i = 0; i < backend->n_threads; i++)
        if ((status = dc_dit_workspace_init(&denoiser->workspaces[i], model, backend, denoiser->chunk, denoiser->portion,
                                            err)) != DC_OK)
            goto done;
    *out = denoiser;
    denoiser = NULL;
done:
    dc_dit_denoiser_free(denoiser);
    return status;
}

void dc_dit_denoiser_free(dc_dit_denoiser *denoiser)
{
    if (denoiser == NULL)
        return;
    for (int i = 0; denoiser->workspaces != NULL && i < denoiser->backend->n_threads; i++)
        dc_dit_workspace_clear(&denoiser->workspaces[i], denoiser->backend);
    dc_free(denoiser->workspaces);
    dc_dit_shared_clear(&denoiser->shared);
    dc_memory_free(denoiser->backend, denoiser->out);
    dc_memory_free(denoiser->backend, denoiser->x_t);
    dc_free(denoiser);
}

dc_denoiser dc_dit_denoiser_entry(dc_dit_denoiser *denoiser)
{
    return (dc_denoiser){
        .context = denoiser, .input = denoiser_input, .denoise = denoiser_denoise, .release = denoiser_release};
}
