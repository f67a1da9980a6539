#include <math.h>
#include <stdio.h>

#include "base/memory.h"
#include "dit/dit.h"

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* Of layers and tables.  Those of a block and of an embedder follow a prefix. */
typedef struct names {
    const char *patch, *final_linear, *final_modulation;
    const char *pos_embed;         /* NULL: made */
    const char *blocks, *embedder; /* prefixes; embedder's stands inside of a block's, or NULL: the model has one */
    const char *mlp_0, *mlp_2, *table;
    const char *modulation, *proj, *fc1, *fc2;
    const char *qkv[3];
    int n_qkv;
} names;

static const names NAMES[] = {
    [DC_DIT_ORIGINAL] = {
        .patch = "x_embedder.proj",
        .final_linear = "final_layer.linear",
        .final_modulation = "final_layer.adaLN_modulation.1",
        .pos_embed = "pos_embed",
        .blocks = "blocks",
        .mlp_0 = "t_embedder.mlp.0",
        .mlp_2 = "t_embedder.mlp.2",
        .table = "y_embedder.embedding_table.weight",
        .modulation = "adaLN_modulation.1",
        .proj = "attn.proj",
        .fc1 = "mlp.fc1",
        .fc2 = "mlp.fc2",
        .qkv = {"attn.qkv"},
        .n_qkv = 1,
    },
    [DC_DIT_DIFFUSERS] = {
        .patch = "pos_embed.proj",
        .final_linear = "proj_out_2",
        .final_modulation = "proj_out_1",
        .blocks = "transformer_blocks",
        .embedder = "norm1.emb.",
        .mlp_0 = "timestep_embedder.linear_1",
        .mlp_2 = "timestep_embedder.linear_2",
        .table = "class_embedder.embedding_table.weight",
        .modulation = "norm1.linear",
        .proj = "attn1.to_out.0",
        .fc1 = "ff.net.0.proj",
        .fc2 = "ff.net.2",
        .qkv = {"attn1.to_q", "attn1.to_k", "attn1.to_v"},
        .n_qkv = 3,
    },
};

/* name[DC_TENSOR_NAME] = what `part` is called in a block. */
static void name_in_block(char *name, const names *called, int64_t block, const char *part)
{
    snprintf(name, DC_TENSOR_NAME, "%s.%lld.%s", called->blocks, (long long)block, part);
}

/* What the part of an embedder is called; `block` counts where every block has one. */
static void name_in_embedder(char *name, const names *called, int64_t block, const char *part)
{
    if (called->embedder != NULL)
        snprintf(name, DC_TENSOR_NAME, "%s.%lld.%s%s", called->blocks, (long long)block, called->embedder, part);
    else
        snprintf(name, DC_TENSOR_NAME, "%s", part);
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static dc_status read_linear(dc_reader *r, dc_linear *layer, const char *name, int64_t n_out, int64_t n_in)
{
    return dc_reader_layer(r, layer, &name, 1, 2, (int64_t[]){n_out, n_in});
}

static dc_status read_embedder(dc_reader *r, dc_dit_embedder *embedder, const dc_dit *model, int64_t block)
{
    const names *called = &NAMES[model->config.layout];
    int64_t d = model->config.hidden_size;
    char name[DC_TENSOR_NAME];
    name_in_embedder(name, called, block, called->mlp_0);
    dc_status status = read_linear(r, &embedder->mlp_0, name, d, DC_FREQUENCIES);
    if (status != DC_OK)
        return status;
    name_in_embedder(name, called, block, called->mlp_2);
    if ((status = read_linear(r, &embedder->mlp_2, name, d, d)) != DC_OK)
        return status;
    name_in_embedder(name, called, block, called->table);
    return dc_reader_floats(r, &embedder->table, name, 2, (int64_t[]){model->config.num_classes, d});
}

/* Whether the block's embedder is the first block's, bit for bit; then it is passed over. */
static int is_first_embedder(dc_reader *r, const names *called, int64_t block)
{
    const char *const parts[] = {called->mlp_0, called->mlp_2};
    static const char *const kinds[] = {"weight", "bias"};
    char part[DC_TENSOR_NAME / 2], name[DC_TENSOR_NAME], first[DC_TENSOR_NAME];
    int64_t n_read = r->n_read;
    int same = 1;
    for (int i = 0; i < 4 && same; i++) {
        snprintf(part, sizeof part, "%s.%s", parts[i / 2], kinds[i % 2]);
        name_in_embedder(name, called, block, part);
        name_in_embedder(first, called, 0, part);
        same = dc_reader_is_copy(r, name, first);
    }
    name_in_embedder(name, called, block, called->table);
    name_in_embedder(first, called, 0, called->table);
    same = same && dc_reader_is_copy(r, name, first);
    if (!same)
        r->n_read = n_read;
    return same;
}

static dc_status read_embedders(dc_reader *r, dc_dit *model)
{
    const names *called = &NAMES[model->config.layout];
    model->n_embedders = 1;
    dc_status status = read_embedder(r, &model->embedders[0], model, 0);
        for (int64_t i = 1; i < model->config.depth && called->embedder != NULL && status == DC_OK; i++) {
        if (is_first_embedder(r, called, i))
            continue;
        model->blocks[i].embedder = model->n_embedders++;
        status = read_embedder(r, &model->embedders[model->blocks[i].embedder], model, i);
    }
    return status;
}

static dc_status read_block(dc_reader *r, dc_dit_block *block, const dc_dit_config *config, int64_t index)
{
    const names *called = &NAMES[config->layout];
    int64_t d = config->hidden_size, m = config->mlp_hidden;
    const struct {
        dc_linear *layer;
        const char *name;
        int64_t n_out, n_in;
    } layers[] = {
        {&block->adaLN_modulation, called->modulation, 6 * d, d},
        {&block->proj, called->proj, d, d},
        {&block->fc1, called->fc1, m, d},
        {&block->fc2, called->fc2, d, m},
    };
    char qkv[3][DC_TENSOR_NAME];
    for (int i = 0; i < called->n_qkv; i++)
        name_in_block(qkv[i], called, index, called->qkv[i]);
    dc_status status = dc_reader_layer(r, &block->qkv, (const char *const[]){qkv[0], qkv[1], qkv[2]}, called->n_qkv, 2,
                                       (int64_t[]){3 / called->n_qkv * d, d});
    for (size_t i = 0; i < sizeof layers / sizeof *layers && status == DC_OK; i++) {
        char name[DC_TENSOR_NAME];
        name_in_block(name, called, index, layers[i].name);
        status = read_linear(r, layers[i].layer, name, layers[i].n_out, layers[i].n_in);
    }
    return status;
}

/* pos_embed (side side, D) of a patch in row h, column w: a quarter of D each for sin, cos of w and sin, cos of h times
 * 10000^(-i / (D / 4)) (He et al., 2022). */
static dc_status make_pos_embed(dc_dit *model, dc_error *err)
{
    void *memory;
    int64_t d = model->config.hidden_size, quarter = d / 4, side = model->config.input_size / model->config.patch_size;
    dc_status status = dc_alloc(&memory, model->n_tokens * d, sizeof(float), "pos_embed", err);
    if (status != DC_OK)
        return status;
    model->pos_embed = memory;
    for (int64_t t = 0; t < model->n_tokens; t++) {
        for (int64_t i = 0; i < quarter; i++) {
            double omega = pow(10000.0, -(double)i / (double)quarter);
            float *at = model->pos_embed + t * d + i;
            at[0] = (float)sin((double)(t % side) * omega);
            at[quarter] = (float)cos((double)(t % side) * omega);
            at[2 * quarter] = (float)sin((double)(t / side) * omega);
            at[3 * quarter] = (float)cos((double)(t / side) * omega);
        }
    }
    return DC_OK;
}

static dc_status read_model(dc_reader *r, dc_dit *model)
{
    const dc_dit_config *config = &model->config;
    const names *called = &NAMES[config->layout];
    int64_t d = config->hidden_size, p = config->patch_size;
    dc_status status = dc_reader_layer(r, &model->x_embedder, &called->patch, 1, 4,
                                       (int64_t[]){d, config->in_channels, p, p}); /* a convolution's */
    if (status == DC_OK)
        status = called->pos_embed == NULL
                     ? make_pos_embed(model, r->err)
                     : dc_reader_floats(r, &model->pos_embed, called->pos_embed, 3, (int64_t[]){1, model->n_tokens, d});
    if (status == DC_OK)
        status = read_embedders(r, model);
    for (int64_t i = 0; i < config->depth && status == DC_OK; i++)
        status = read_block(r, &model->blocks[i], config, i);
    if (status == DC_OK)
        status = read_linear(r, &model->final_linear, called->final_linear, p * p * model->out_channels, d);
    if (status == DC_OK)
        status = read_linear(r, &model->final_adaLN_modulation, called->final_modulation, 2 * d, d);
    return status == DC_OK ? dc_reader_end(r) : status;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static dc_status check_config(const dc_dit_config *config, dc_error *err)
{
    const struct {
        const char *name;
        int64_t value, max;
    } numbers[] = {
        {"input_size", config->input_size, 4096},   {"patch_size", config->patch_size, 256},
        {"in_channels", config->in_channels, 256},  {"hidden_size", config->hidden_size, 16384},
        {"depth", config->depth, 256},              {"num_heads", config->num_heads, 256},
        {"mlp_hidden", config->mlp_hidden, 131072}, {"num_classes", config->num_classes, 1 << 20},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value < 1 || numbers[i].value > numbers[i].max)
            return dc_error_set(err, DC_ERR_VALUE, "%s is %lld, must be 1 to %lld", numbers[i].name,
                                (long long)numbers[i].value, (long long)numbers[i].max);
    if (config->input_size % config->patch_size != 0)
        return dc_error_set(err, DC_ERR_VALUE, "input_size %lld is not a multiple of patch_size %lld",
                            (long long)config->input_size, (long long)config->patch_size);
    if (config->hidden_size % config->num_heads != 0)
        return dc_error_set(err, DC_ERR_VALUE, "hidden_size %lld is not a multiple of num_heads %lld",
                            (long long)config->hidden_size, (long long)config->num_heads);
    if (config->layout == DC_DIT_DIFFUSERS && config->hidden_size % 4 != 0)
        return dc_error_set(err, DC_ERR_VALUE, "hidden_size %lld is not a multiple of 4, which pos_embed needs",
                            (long long)config->hidden_size);
    if (!(config->mlp_norm_eps > 0.0f && config->mlp_norm_eps <= 1.0f))
        return dc_error_set(err, DC_ERR_VALUE, "mlp_norm_eps is %g, must be in (0, 1]", (double)config->mlp_norm_eps);
    return DC_OK;
}

dc_status dc_dit_new(dc_dit **out, const dc_bytes *files, int64_t n_files, const dc_dit_config *config, dc_error *err)
{
    void *memory = NULL;
    dc_dit *model = NULL;
    dc_reader r;
    *out = NULL;
    dc_status status = check_config(config, err);
    if (status != DC_OK || (status = dc_reader_open(&r, files, n_files, err)) != DC_OK)
        return status;
    if ((status = dc_alloc(&memory, 1, sizeof *model, "the DiT", err)) != DC_OK)
        goto done;
    model = memory;
    model->config = *config;
    model->n_tokens = (config->input_size / config->patch_size) * (config->input_size / config->patch_size);
    model->out_channels = config->in_channels * (config->learn_sigma ? 2 : 1);
    if ((status = dc_alloc(&memory, config->depth, sizeof *model->blocks, "the DiT's blocks", err)) != DC_OK)
        goto done;
    model->blocks = memory;
    if ((status = dc_alloc(&memory, config->depth, sizeof *model->embedders, "the DiT's embedders", err)) != DC_OK)
        goto done;
    model->embedders = memory;
    if ((status = read_model(&r, model)) != DC_OK)
        goto done;
    model->n_parameters = r.n_parameters;
    *out = model;
    model = NULL;
done:
    dc_dit_free(model);
    dc_reader_close(&r);
    return status;
}
