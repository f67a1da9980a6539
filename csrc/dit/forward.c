#include <string.h>

#include "base/memory.h"
#include "dit/dit.h"
#include "dit/shared.h"

static dc_finish plain(dc_epilogue epilogue)
{
    return (dc_finish){.epilogue = epilogue};
}

static dc_finish gate(const float *gates, int64_t stride, int64_t n_tokens)
{
    return (dc_finish){DC_EPILOGUE_GATE, gates, stride, n_tokens};
}

/* out (N, C, H, W) from tokens (N T, p p C). */
static void unpatchify(float *out, const float *tokens, const dc_dit *model, int64_t n_images)
{
    int64_t size = model->config.input_size, p = model->config.patch_size, side = size / p, c_out = model->out_channels;
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t h = 0; h < side; h++)
            for (int64_t w = 0; w < side; w++)
                for (int64_t i = 0; i < p; i++)
                    for (int64_t j = 0; j < p; j++)
                        for (int64_t c = 0; c < c_out; c++)
                            out[((n * c_out + c) * size + h * p + i) * size + w * p + j] = *tokens++;
}

/* modulation (n_images, width): each image's row of what its pair of time and class has in block i. */
static void gather_modulation(float *modulation, const dc_dit_shared *shared, const dc_dit *model, int64_t i,
                              int64_t width, int64_t first, int64_t n_images)
{
    const float *from = dc_dit_shared_modulation(shared, model, i);
    for (int64_t n = 0; n < n_images; n++)
        memcpy(modulation + n * width, from + shared->pair_of_row[first + n] * width, (size_t)width * sizeof *from);
}

void dc_dit_forward(const dc_dit *model, const dc_backend *backend, dc_dit_workspace *workspace,
                    const dc_dit_shared *shared, float *out, int64_t first, int64_t n_images)
{
    const dc_dit_operations *op = backend->dit;
    const dc_dit_config *config = &model->config;
    int64_t d = config->hidden_size, t = model->n_tokens, rows = n_images * t;
    float *x = workspace->x, *normed = workspace->normed, *qkv = workspace->qkv, *hidden = workspace->hidden;
    float *modulation = workspace->modulation;
    const float *shift_msa = modulation, *scale_msa = modulation + d, *gate_msa = modulation + 2 * d;
    const float *shift_mlp = modulation + 3 * d, *scale_mlp = modulation + 4 * d, *gate_mlp = modulation + 5 * d;

    for (int64_t n = 0; n < n_images; n++)
        memcpy(x + n * t * d, shared->embedded + shared->input_of_row[first + n] * t * d, (size_t)(t * d) * sizeof *x);
    for (int64_t i = 0; i < config->depth; i++) {
        const dc_dit_block *block = &model->blocks[i];
        gather_modulation(modulation, shared, model, i, 6 * d, first, n_images);
        op->modulate(backend, normed, x, shift_msa, scale_msa, 6 * d, 1e-6f, n_images, t, d);
        op->linear(backend, qkv, normed, &block->qkv, rows, plain(DC_EPILOGUE_NONE));
        op->attention(backend, normed, qkv, workspace->scratch, n_images, t, d, config->num_heads);
        op->linear(backend, x, normed, &block->proj, rows, gate(gate_msa, 6 * d, t));
        op->modulate(backend, normed, x, shift_mlp, scale_mlp, 6 * d, config->mlp_norm_eps, n_images, t, d);
        op->linear(backend, hidden, normed, &block->fc1, rows, plain(DC_EPILOGUE_GELU));
        op->linear(backend, x, hidden, &block->fc2, rows, gate(gate_mlp, 6 * d, t));
    }
    gather_modulation(modulation, shared, model, config->depth, 2 * d, first, n_images);
    op->modulate(backend, normed, x, modulation, modulation + d, 2 * d, 1e-6f, n_images, t, d);
    op->linear(backend, hidden, normed, &model->final_linear, rows, plain(DC_EPILOGUE_NONE));
    unpatchify(out, hidden, model, n_images);
}

static int64_t largest(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

dc_status dc_dit_workspace_init(dc_dit_workspace *workspace, const dc_dit *model, int64_t n_images, int64_t n_shared,
                                dc_error *err)
{
    const dc_dit_config *config = &model->config;
    int64_t d = config->hidden_size, t = model->n_tokens, p2 = config->patch_size * config->patch_size;
    int64_t widest = largest(largest(config->mlp_hidden, d), p2 * model->out_channels);
    struct {
        float **member;
        int64_t per_image, n;
    } arrays[] = {
        {&workspace->patches, t * p2 * config->in_channels, n_images},
        {&workspace->x, t * d, n_images},
        {&workspace->normed, t * d, n_images},
        {&workspace->qkv, t * 3 * d, n_images},
        {&workspace->hidden, t * widest, n_images},
        {&workspace->scratch, dc_attention_scratch(t, d / config->num_heads), n_images},
        {&workspace->modulation, 6 * d, n_images},
        {&workspace->frequencies, DC_FREQUENCIES, n_shared},
        {&workspace->time_hidden, d, n_shared},
        {&workspace->time_embedding, d, n_shared},
        {&workspace->c, d, n_shared},
    };
    *workspace = (dc_dit_workspace){.n_images = n_images};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        void *memory;
        int64_t count;
        if (!dc_size_mul(&count, arrays[i].per_image, arrays[i].n)) {
            dc_dit_workspace_clear(workspace);
            return dc_error_set(err, DC_ERR_NOMEM, "a workspace for %lld images does not fit in memory",
                                (long long)arrays[i].n);
        }
        dc_status status = dc_alloc(&memory, count, sizeof(float), "the DiT's workspace", err);
        if (status != DC_OK) {
            dc_dit_workspace_clear(workspace);
            return status;
        }
        *arrays[i].member = memory;
    }
    return DC_OK;
}

void dc_dit_workspace_clear(dc_dit_workspace *workspace)
{
    dc_free(workspace->patches);
    dc_free(workspace->x);
    dc_free(workspace->normed);
    dc_free(workspace->qkv);
    dc_free(workspace->hidden);
    dc_free(workspace->scratch);
    dc_free(workspace->frequencies);
    dc_free(workspace->time_hidden);
    dc_free(workspace->time_embedding);
    dc_free(workspace->c);
    dc_free(workspace->modulation);
    *workspace = (dc_dit_workspace){0};
}
