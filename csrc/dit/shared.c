#include "dit/shared.h"

#include "base/memory.h"
#include "method/storage.h"

/* ---- life -------------------------------------------------------------------------------------------------------- */

enum { N_INDICES = 6 };

int64_t dc_dit_shared_bytes(int64_t max_rows)
{
    return max_rows * N_INDICES * (int64_t)sizeof(int64_t);
}

/* Its arrays one after another. */
static dc_dit_indices cut(void *memory, int64_t max_rows)
{
    int64_t *numbers = (int64_t *)memory + max_rows;
    return (dc_dit_indices){memory, numbers, numbers + max_rows, numbers + 2 * max_rows, numbers + 3 * max_rows,
                            numbers + 4 * max_rows};
}

/* Floats of a block's modulation: whole lines of memory, so that every block's is aligned. */
static int64_t modulation_stride(const dc_dit_shared *shared, const dc_dit *model)
{
    const int64_t line = 64;
    return (shared->max_rows * 6 * model->config.hidden_size + line - 1) / line * line;
}

dc_status dc_dit_shared_init(dc_dit_shared *shared, const dc_dit *model, const dc_backend *backend, int64_t max_rows,
                             dc_error *err)
{
    const dc_dit_config *config = &model->config;
    const char *what = "what a batch shares";
    int64_t d = config->hidden_size;
    void *memory;
    *shared = (dc_dit_shared){.backend = backend, .max_rows = max_rows};
    dc_status status = dc_alloc(&memory, dc_dit_shared_bytes(max_rows), 1, what, err);
    if (status != DC_OK)
        goto done;
    shared->host = cut(memory, max_rows);
    shared->here = shared->host;
    if (backend->device != NULL) {
        shared->here = (dc_dit_indices){0};
        if ((status = dc_memory_new(backend, &memory, dc_dit_shared_bytes(max_rows), 1, what, err)) != DC_OK)
            goto done;
        shared->here = cut(memory, max_rows);
    }
    if ((status = dc_alloc(&memory, max_rows, sizeof(int64_t), what, err)) != DC_OK)
        goto done;
    shared->previous_pair = memory;
    if ((status = dc_alloc(&memory, config->num_classes, sizeof(int64_t), what, err)) != DC_OK)
        goto done;
    shared->last_pair = memory;
    if ((status = dc_memory_new(backend, &memory, max_rows, model->n_tokens * d * (int64_t)sizeof(float), what, err)) != DC_OK)
        goto done;
    shared->embedded = memory;
    if ((status = dc_memory_new(backend, &memory, modulation_stride(shared, model), (config->depth + 1) * (int64_t)sizeof(float),
                                what, err)) != DC_OK)
        goto done;
    shared->modulation = memory;
done:
    if (status != DC_OK)
        dc_dit_shared_clear(shared);
    return status;
}

void dc_dit_shared_clear(dc_dit_shared *shared)
{
    if (shared->backend == NULL)
        return;
    if (shared->here.times != shared->host.times)
        dc_memory_free(shared->backend, shared->here.times);
    dc_free(shared->host.times);
    dc_free(shared->previous_pair);
    dc_free(shared->last_pair);
    dc_memory_free(shared->backend, shared->embedded);
    dc_memory_free(shared->backend, shared->modulation);
    *shared = (dc_dit_shared){0};
}

/* ---- what differs ------------------------------------------------------------------------------------------------ */

static int64_t find_time(dc_dit_shared *shared, double time)
{
    int64_t i = shared->n_times - 1; /* neighbours have the same: backwards */
    while (i >= 0 && shared->host.times[i] != time)
        i--;
    if (i >= 0)
        return i;
    shared->host.times[shared->n_times] = time;
    return shared->n_times++;
}

static int64_t find_pair(dc_dit_shared *shared, int64_t time, int64_t class_label)
{
    int64_t pair = shared->last_pair[class_label];
    while (pair >= 0 && shared->host.time_of_pair[pair] != time)
        pair = shared->previous_pair[pair];
    if (pair >= 0)
        return pair;
    pair = shared->n_pairs++;
    shared->host.time_of_pair[pair] = time;
    shared->host.class_of_pair[pair] = class_label;
    shared->previous_pair[pair] = shared->last_pair[class_label];
    shared->last_pair[class_label] = pair;
    return pair;
}

void dc_dit_shared_find(dc_dit_shared *shared, const double *time, const int64_t *class_labels,
                        const int64_t *input_of_row, int64_t n_rows)
{
    const dc_backend *backend = shared->backend;
    dc_dit_indices *host = &shared->host;
    shared->n_times = shared->n_pairs = shared->n_inputs = 0;
    for (int64_t r = 0; r < n_rows; r++)
        shared->last_pair[class_labels[r]] = -1;
    for (int64_t r = 0; r < n_rows; r++) {
        host->pair_of_row[r] = find_pair(shared, find_time(shared, time[r]), class_labels[r]);
        if (r == 0 || input_of_row == NULL || input_of_row[r] != input_of_row[r - 1])
            host->row_of_input[shared->n_inputs++] = r;
        host->input_of_row[r] = shared->n_inputs - 1;
    }
    if (backend->device != NULL)
        backend->dit->send(backend, shared->here.times, host->times, dc_dit_shared_bytes(shared->max_rows));
}

/* ---- computed once ----------------------------------------------------------------------------------------------- */

/* c (n_pairs, D) = silu(t_embedder(time) + y_embedder(class)): every adaLN_modulation begins with that silu. */
static void condition(const dc_dit_shared *shared, const dc_dit *model, dc_dit_workspace *workspace,
                      const dc_dit_embedder *embedder)
{
    const dc_backend *backend = shared->backend;
    const dc_dit_operations *op = backend->dit;
    op->linear(backend, workspace->time_hidden, workspace->frequencies, &embedder->mlp_0, shared->n_times,
               (dc_finish){.epilogue = DC_EPILOGUE_SILU});
    op->linear(backend, workspace->time_embedding, workspace->time_hidden, &embedder->mlp_2, shared->n_times,
               (dc_finish){.epilogue = DC_EPILOGUE_WIDE});
    op->condition(backend, workspace->c, workspace->time_embedding, embedder->table, shared->here.time_of_pair,
                  shared->here.class_of_pair, shared->n_pairs, model->config.hidden_size, model->precision);
}

float *dc_dit_shared_modulation(const dc_dit_shared *shared, const dc_dit *model, int64_t i)
{
    return shared->modulation + i * modulation_stride(shared, model);
}

void dc_dit_shared_compute(dc_dit_shared *shared, const dc_dit *model, dc_dit_workspace *workspace, const float *x_t,
                           int64_t share, int64_t n_shares)
{
    const dc_backend *backend = shared->backend;
    const dc_dit_operations *op = backend->dit;
    const dc_dit_config *config = &model->config;
    int64_t t = model->n_tokens, d = config->hidden_size, depth = config->depth;
    dc_picture picture = {config->input_size, config->patch_size, config->in_channels};
    int64_t end = shared->n_inputs * (share + 1) / n_shares;
    for (int64_t input = shared->n_inputs * share / n_shares; input < end; input += workspace->n_images) {
        int64_t count = end - input < workspace->n_images ? end - input : workspace->n_images;
        op->patchify(backend, workspace->patches, x_t, shared->here.row_of_input + input, count, picture, model->precision);
        op->linear(backend, shared->embedded + input * t * d, workspace->patches, &model->x_embedder, count * t,
                   (dc_finish){.epilogue = DC_EPILOGUE_ADD, .other = model->pos_embed, .other_stride = d, .rows_per_other = t});
    }
    if (share > depth)
        return;
    op->timestep_embedding(backend, workspace->frequencies, shared->here.times, shared->n_times, DC_FREQUENCIES,
                           config->layout == DC_DIT_DIFFUSERS, model->precision);
    int64_t current = -1;
    for (int64_t i = share; i <= depth; i += n_shares) {
        int64_t embedder = i < depth ? model->blocks[i].embedder : 0;
        const dc_linear *layer = i < depth ? &model->blocks[i].adaLN_modulation : &model->final_adaLN_modulation;
        if (embedder != current)
            condition(shared, model, workspace, &model->embedders[embedder]);
        current = embedder;
        op->linear(backend, dc_dit_shared_modulation(shared, model, i), workspace->c, layer, shared->n_pairs,
                   (dc_finish){.epilogue = DC_EPILOGUE_WIDE});
    }
}
