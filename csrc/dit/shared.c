#include "dit/shared.h"

#include <string.h>

#include "base/memory.h"

/* ---- life -------------------------------------------------------------------------------------------------------- */

dc_status dc_dit_shared_init(dc_dit_shared *shared, const dc_dit *model, int64_t max_rows, dc_error *err)
{
    const dc_dit_config *config = &model->config;
    int64_t d = config->hidden_size;
    *shared = (dc_dit_shared){.max_rows = max_rows};
    const struct {
        void *member;
        int64_t count;
        size_t item_bytes;
    } arrays[] = {
        {&shared->times, max_rows, sizeof *shared->times},
        {&shared->time_of_pair, max_rows, sizeof(int64_t)},
        {&shared->class_of_pair, max_rows, sizeof(int64_t)},
        {&shared->previous_pair, max_rows, sizeof(int64_t)},
        {&shared->last_pair, config->num_classes, sizeof(int64_t)},
        {&shared->pair_of_row, max_rows, sizeof(int64_t)},
        {&shared->input_of_row, max_rows, sizeof(int64_t)},
        {&shared->row_of_input, max_rows, sizeof(int64_t)},
        {&shared->embedded, max_rows, (size_t)(model->n_tokens * d) * sizeof(float)},
        {&shared->modulation, max_rows, (size_t)((6 * config->depth + 2) * d) * sizeof(float)},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        void *memory;
        dc_status status = dc_alloc(&memory, arrays[i].count, arrays[i].item_bytes, "what a batch shares", err);
        if (status != DC_OK) {
            dc_dit_shared_clear(shared);
            return status;
        }
        memcpy(arrays[i].member, &memory, sizeof memory);
    }
    return DC_OK;
}

void dc_dit_shared_clear(dc_dit_shared *shared)
{
    dc_free(shared->times);
    dc_free(shared->time_of_pair);
    dc_free(shared->class_of_pair);
    dc_free(shared->previous_pair);
    dc_free(shared->last_pair);
    dc_free(shared->pair_of_row);
    dc_free(shared->input_of_row);
    dc_free(shared->row_of_input);
    dc_free(shared->embedded);
    dc_free(shared->modulation);
    *shared = (dc_dit_shared){0};
}

/* ---- what differs ------------------------------------------------------------------------------------------------ */

static int64_t find_time(dc_dit_shared *shared, double time)
{
    int64_t i = shared->n_times - 1; /* neighbours have the same: backwards */
    while (i >= 0 && shared->times[i] != time)
        i--;
    if (i >= 0)
        return i;
    shared->times[shared->n_times] = time;
    return shared->n_times++;
}

static int64_t find_pair(dc_dit_shared *shared, int64_t time, int64_t class_label)
{
    int64_t pair = shared->last_pair[class_label];
    while (pair >= 0 && shared->time_of_pair[pair] != time)
        pair = shared->previous_pair[pair];
    if (pair >= 0)
        return pair;
    pair = shared->n_pairs++;
    shared->time_of_pair[pair] = time;
    shared->class_of_pair[pair] = class_label;
    shared->previous_pair[pair] = shared->last_pair[class_label];
    shared->last_pair[class_label] = pair;
    return pair;
}

void dc_dit_shared_find(dc_dit_shared *shared, const float *x_t, const double *time, const int64_t *class_labels,
                        int64_t n_rows, int64_t n_elem)
{
    shared->n_times = shared->n_pairs = shared->n_inputs = 0;
    for (int64_t r = 0; r < n_rows; r++)
        shared->last_pair[class_labels[r]] = -1;
    for (int64_t r = 0; r < n_rows; r++) {
        const float *row = x_t + r * n_elem;
        shared->pair_of_row[r] = find_pair(shared, find_time(shared, time[r]), class_labels[r]);
        if (r == 0 || memcmp(row, row - n_elem, (size_t)n_elem * sizeof *row) != 0)
            shared->row_of_input[shared->n_inputs++] = r;
        shared->input_of_row[r] = shared->n_inputs - 1;
    }
}

/* ---- computed once ----------------------------------------------------------------------------------------------- */

/* patches (T, C p p) in the order of the convolution's weight, from x (C, H, W). */
static void patchify(float *patches, const float *x, const dc_dit_config *config)
{
    int64_t size = config->input_size, p = config->patch_size, side = size / p;
    for (int64_t h = 0; h < side; h++)
        for (int64_t w = 0; w < side; w++)
            for (int64_t c = 0; c < config->in_channels; c++)
                for (int64_t i = 0; i < p; i++, patches += p)
                    memcpy(patches, x + (c * size + h * p + i) * size + w * p, (size_t)p * sizeof *x);
}

/* c (n_pairs, D) = silu(t_embedder(time) + y_embedder(class)): every adaLN_modulation begins with that silu. */
static void condition(const dc_dit_shared *shared, const dc_dit *model, const dc_backend *backend,
                      dc_dit_workspace *workspace, const dc_dit_embedder *embedder)
{
    const dc_dit_operations *op = backend->dit;
    int64_t d = model->config.hidden_size;
    float *embedding = workspace->time_embedding, *hidden = workspace->time_hidden;
    op->linear(backend, hidden, workspace->frequencies, &embedder->mlp_0, shared->n_times,
               (dc_finish){.epilogue = DC_EPILOGUE_SILU});
    op->linear(backend, embedding, hidden, &embedder->mlp_2, shared->n_times, (dc_finish){.epilogue = DC_EPILOGUE_NONE});
    for (int64_t pair = 0; pair < shared->n_pairs; pair++) {
        const float *of_time = embedding + shared->time_of_pair[pair] * d;
        const float *of_class = embedder->table + shared->class_of_pair[pair] * d;
        for (int64_t i = 0; i < d; i++)
            workspace->c[pair * d + i] = of_time[i] + of_class[i];
    }
    op->silu(backend, workspace->c, shared->n_pairs * d);
}

float *dc_dit_shared_modulation(const dc_dit_shared *shared, const dc_dit *model, int64_t i)
{
    return shared->modulation + i * shared->max_rows * 6 * model->config.hidden_size;
}

void dc_dit_shared_compute(dc_dit_shared *shared, const dc_dit *model, const dc_backend *backend,
                           dc_dit_workspace *workspace, const float *x_t, int64_t share, int64_t n_shares)
{
    const dc_dit_operations *op = backend->dit;
    const dc_dit_config *config = &model->config;
    int64_t t = model->n_tokens, d = config->hidden_size, depth = config->depth;
    int64_t n_elem = config->in_channels * config->input_size * config->input_size;
    int64_t end = shared->n_inputs * (share + 1) / n_shares;
    for (int64_t input = shared->n_inputs * share / n_shares; input < end; input++) {
        patchify(workspace->patches, x_t + shared->row_of_input[input] * n_elem, config);
        op->linear(backend, shared->embedded + input * t * d, workspace->patches, &model->x_embedder, t,
                   (dc_finish){DC_EPILOGUE_ADD, model->pos_embed, d, t});
    }
    if (share > depth)
        return;
    op->timestep_embedding(backend, workspace->frequencies, shared->times, shared->n_times, DC_FREQUENCIES,
                           config->layout == DC_DIT_DIFFUSERS);
    int64_t current = -1;
    for (int64_t i = share; i <= depth; i += n_shares) {
        int64_t embedder = i < depth ? model->blocks[i].embedder : 0;
        const dc_linear *layer = i < depth ? &model->blocks[i].adaLN_modulation : &model->final_adaLN_modulation;
        if (embedder != current)
            condition(shared, model, backend, workspace, &model->embedders[embedder]);
        current = embedder;
        op->linear(backend, dc_dit_shared_modulation(shared, model, i), workspace->c, layer, shared->n_pairs,
                   (dc_finish){.epilogue = DC_EPILOGUE_NONE});
    }
}
