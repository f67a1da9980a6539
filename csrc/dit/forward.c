#include <string.h>

#include "dit/dit.h"
#include "dit/shared.h"
#include "method/storage.h"

static dc_finish plain(dc_epilogue epilogue)
{
    return (dc_finish){.epilogue = epilogue};
}

static dc_finish gate(const float *gates, dc_choice choice, int64_t n_tokens)
{
    return (dc_finish){DC_EPILOGUE_GATE, gates, choice.stride, n_tokens, choice.row_of};
}

void dc_dit_forward(const dc_dit *model, const dc_backend *backend, dc_dit_workspace *workspace,
                    const dc_dit_shared *shared, float *out, int64_t first, int64_t n_images)
{
    const dc_dit_operations *op = backend->dit;
    const dc_dit_config *config = &model->config;
    int64_t d = config->hidden_size, t = model->n_tokens, rows = n_images * t;
    float *x = workspace->x, *scratch = workspace->scratch;
    void *normed = workspace->normed, *qkv = workspace->qkv, *hidden = workspace->hidden;
    dc_tokens tokens = {n_images, t, d, model->precision};
    dc_picture picture = {config->input_size, config->patch_size, model->out_channels};
    dc_choice of_pair = {shared->here.pair_of_row + first, 6 * d}, of_last = {of_pair.row_of, 2 * d};

    op->gather(backend, x, shared->embedded, shared->here.input_of_row + first, n_images, t * d);
    for (int64_t i = 0; i < config->depth; i++) {
        const dc_dit_block *block = &model->blocks[i];
        const float *modulation = dc_dit_shared_modulation(shared, model, i); /* a row is what follows, D each */
        const float *shift_msa = modulation, *scale_msa = modulation + d, *gate_msa = modulation + 2 * d;
        const float *shift_mlp = modulation + 3 * d, *scale_mlp = modulation + 4 * d, *gate_mlp = modulation + 5 * d;
        op->modulate(backend, normed, x, shift_msa, scale_msa, of_pair, 1e-6f, tokens);
        op->linear(backend, qkv, normed, &block->qkv, rows, plain(DC_EPILOGUE_NONE));
        op->attention(backend, normed, qkv, scratch, config->num_heads, tokens);
        op->linear(backend, x, normed, &block->proj, rows, gate(gate_msa, of_pair, t));
        op->modulate(backend, normed, x, shift_mlp, scale_mlp, of_pair, config->mlp_norm_eps, tokens);
        op->linear(backend, hidden, normed, &block->fc1, rows, plain(DC_EPILOGUE_GELU));
        op->linear(backend, x, hidden, &block->fc2, rows, gate(gate_mlp, of_pair, t));
    }
    const float *shift = dc_dit_shared_modulation(shared, model, config->depth), *scale = shift + d;
    op->modulate(backend, normed, x, shift, scale, of_last, 1e-6f, tokens);
    op->linear(backend, workspace->tokens, normed, &model->final_linear, rows, plain(DC_EPILOGUE_WIDE));
    op->unpatchify(backend, out, workspace->tokens, n_images, picture);
}

dc_status dc_dit_workspace_init(dc_dit_workspace *workspace, const dc_dit *model, const dc_backend *backend,
                                int64_t n_images, int64_t n_shared, dc_error *err)
{
    const dc_dit_config *config = &model->config;
    int64_t d = config->hidden_size, t = model->n_tokens, p2 = config->patch_size * config->patch_size;
    int64_t narrow = dc_precision_bytes(model->precision), wide = (int64_t)sizeof(float);
    int64_t scratch = backend->device == NULL ? dc_attention_scratch(t, d / config->num_heads) : 0;
    struct {
        void *member; /* a pointer to memory */
        int64_t per_row, item_bytes, n;
    } arrays[] = {
        {&workspace->patches, t * p2 * config->in_channels, narrow, n_images},
        {&workspace->normed, t * d, narrow, n_images},
        {&workspace->qkv, t * 3 * d, narrow, n_images},
        {&workspace->hidden, t * config->mlp_hidden, narrow, n_images},
        {&workspace->x, t * d, wide, n_images},
        {&workspace->tokens, t * p2 * model->out_channels, wide, n_images},
        {&workspace->scratch, scratch, wide, 1},
        {&workspace->frequencies, DC_FREQUENCIES, narrow, n_shared},
        {&workspace->time_hidden, d, narrow, n_shared},
        {&workspace->c, d, narrow, n_shared},
        {&workspace->time_embedding, d, wide, n_shared},
    };
    *workspace = (dc_dit_workspace){.n_images = n_images};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        void *memory;
        dc_status status =
            dc_memory_new(backend, &memory, arrays[i].n, arrays[i].per_row * arrays[i].item_bytes, "the DiT's workspace", err);
        if (status != DC_OK) {
            dc_dit_workspace_clear(workspace, backend);
            return status;
        }
        memcpy(arrays[i].member, &memory, sizeof memory);
    }
    return DC_OK;
}

void dc_dit_workspace_clear(dc_dit_workspace *workspace, const dc_backend *backend)
{
    dc_memory_free(backend, workspace->patches);
    dc_memory_free(backend, workspace->normed);
    dc_memory_free(backend, workspace->qkv);
    dc_memory_free(backend, workspace->hidden);
    dc_memory_free(backend, workspace->x);
    dc_memory_free(backend, workspace->tokens);
    dc_memory_free(backend, workspace->scratch);
    dc_memory_free(backend, workspace->frequencies);
    dc_memory_free(backend, workspace->time_hidden);
    dc_memory_free(backend, workspace->c);
    dc_memory_free(backend, workspace->time_embedding);
    *workspace = (dc_dit_workspace){0};
}
