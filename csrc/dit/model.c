#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "dit/dit.h"
#include "dit/safetensors.h"

/* Reads tensors by name and counts them, so that one the model does not know is noticed at the end. */
typedef struct reader {
    dc_tensors tensors;
    int64_t n_read, n_parameters;
    dc_error *err;
} reader;

/* *out: returns new float32 items of the tensor `name`, whose shape must be exactly shape (n_dims,). */
static dc_status read_tensor(reader *r, float **out, const char *name, int n_dims, const int64_t *shape)
{
    void *memory;
    const dc_tensor *tensor = dc_tensors_find(&r->tensors, name);
    if (tensor == NULL)
        return dc_error_set(r->err, DC_ERR_FORMAT, "the weights file has no tensor %s", name);
    int same = tensor->n_dims == n_dims;
    for (int i = 0; same && i < n_dims; i++)
        same = tensor->shape[i] == shape[i];
    if (!same)
        return dc_error_set(r->err, DC_ERR_FORMAT,
                            "tensor %s has %d dimensions, the first %lld, must have %d, the first %lld", name,
                            tensor->n_dims, (long long)(tensor->n_dims ? tensor->shape[0] : 0), n_dims,
                            (long long)shape[0]);
    dc_status status = dc_alloc(&memory, tensor->n_items, sizeof(float), name, r->err);
    if (status != DC_OK)
        return status;
    *out = memory;
    r->n_read++;
    r->n_parameters += tensor->n_items;
    return dc_tensor_to_float(*out, tensor, r->err);
}

/* panels (ceil(n_out / 32), n_in, 32): column j of the output is lane j % 32 of panel j / 32. */
static dc_status pack(dc_linear *layer, const float *weight, dc_error *err)
{
    void *memory;
    int64_t n_panels = dc_panels(layer->n_out);
    dc_status status = dc_alloc(&memory, n_panels * layer->n_in * DC_PANEL, sizeof(float), "packed weights", err);
    if (status != DC_OK)
        return status;
    layer->panels = memory;
    for (int64_t j = 0; j < layer->n_out; j++)
        for (int64_t k = 0; k < layer->n_in; k++)
            layer->panels[(j / DC_PANEL * layer->n_in + k) * DC_PANEL + j % DC_PANEL] = weight[j * layer->n_in + k];
    return DC_OK;
}

/* `prefix`.weight of the given shape, n_out rows first, and `prefix`.bias (n_out,), packed. */
static dc_status read_layer(reader *r, dc_linear *layer, const char *prefix, int n_dims, const int64_t *shape)
{
    char name[DC_TENSOR_NAME];
    float *weight = NULL, *bias = NULL;
    void *memory;
    layer->n_out = shape[0];
    layer->n_in = 1;
    for (int i = 1; i < n_dims; i++)
        layer->n_in *= shape[i];
    snprintf(name, sizeof name, "%s.weight", prefix);
    dc_status status = read_tensor(r, &weight, name, n_dims, shape);
    if (status != DC_OK || (status = pack(layer, weight, r->err)) != DC_OK)
        goto done;
    snprintf(name, sizeof name, "%s.bias", prefix);
    if ((status = read_tensor(r, &bias, name, 1, shape)) != DC_OK ||
        (status = dc_alloc(&memory, (layer->n_out / DC_PANEL + 1) * DC_PANEL, sizeof(float), name, r->err)) != DC_OK)
        goto done;
    layer->bias = memory;
    memcpy(layer->bias, bias, (size_t)layer->n_out * sizeof *bias);
done:
    dc_free(bias);
    dc_free(weight);
    return status;
}

static dc_status read_linear(reader *r, dc_linear *layer, const char *prefix, int64_t n_out, int64_t n_in)
{
    return read_layer(r, layer, prefix, 2, (int64_t[]){n_out, n_in});
}

static dc_status read_block(reader *r, dc_dit_block *block, const dc_dit_config *config, int64_t index)
{
    int64_t d = config->hidden_size, m = config->mlp_hidden;
    const struct {
        dc_linear *layer;
        const char *name;
        int64_t n_out, n_in;
    } layers[] = {
        {&block->adaLN_modulation, "adaLN_modulation.1", 6 * d, d},
        {&block->qkv, "attn.qkv", 3 * d, d},
        {&block->proj, "attn.proj", d, d},
        {&block->fc1, "mlp.fc1", m, d},
        {&block->fc2, "mlp.fc2", d, m},
    };
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        char prefix[DC_TENSOR_NAME / 2];
        snprintf(prefix, sizeof prefix, "blocks.%lld.%s", (long long)index, layers[i].name);
        dc_status status = read_linear(r, layers[i].layer, prefix, layers[i].n_out, layers[i].n_in);
        if (status != DC_OK)
            return status;
    }
    return DC_OK;
}

static dc_status read_model(reader *r, dc_dit *model)
{
    const dc_dit_config *config = &model->config;
    int64_t d = config->hidden_size, p2 = config->patch_size * config->patch_size;
    const struct {
        dc_linear *layer;
        const char *name;
        int64_t n_out, n_in;
    } layers[] = {
        {&model->t_embedder_0, "t_embedder.mlp.0", d, DC_FREQUENCIES},
        {&model->t_embedder_2, "t_embedder.mlp.2", d, d},
        {&model->final_linear, "final_layer.linear", p2 * model->out_channels, d},
        {&model->final_adaLN_modulation, "final_layer.adaLN_modulation.1", 2 * d, d},
    };
    const int64_t patch[] = {d, config->in_channels, config->patch_size, config->patch_size}; /* a convolution's */
    dc_status status = read_layer(r, &model->x_embedder, "x_embedder.proj", 4, patch);
    for (size_t i = 0; i < sizeof layers / sizeof *layers && status == DC_OK; i++)
        status = read_linear(r, layers[i].layer, layers[i].name, layers[i].n_out, layers[i].n_in);
    if (status == DC_OK)
        status = read_tensor(r, &model->embedding_table, "y_embedder.embedding_table.weight", 2,
                             (int64_t[]){config->num_classes, d});
    if (status == DC_OK)
        status = read_tensor(r, &model->pos_embed, "pos_embed", 3, (int64_t[]){1, model->n_tokens, d});
    for (int64_t i = 0; i < config->depth && status == DC_OK; i++)
        status = read_block(r, &model->blocks[i], config, i);
    if (status == DC_OK && r->n_read != r->tensors.n)
        status = dc_error_set(r->err, DC_ERR_FORMAT, "the weights file has %lld tensors, the model has %lld",
                              (long long)r->tensors.n, (long long)r->n_read);
    return status;
}

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
    return DC_OK;
}

dc_status dc_dit_new(dc_dit **out, const void *file, int64_t n_bytes, const dc_dit_config *config, dc_error *err)
{
    void *memory = NULL;
    dc_dit *model = NULL;
    reader r = {.err = err};
    *out = NULL;
    dc_status status = check_config(config, err);
    if (status != DC_OK || (status = dc_tensors_read(&r.tensors, file, n_bytes, err)) != DC_OK)
        return status;
    if ((status = dc_alloc(&memory, 1, sizeof *model, "the DiT", err)) != DC_OK)
        goto done;
    model = memory;
    model->config = *config;
    model->n_tokens = (config->input_size / config->patch_size) * (config->input_size / config->patch_size);
    model->out_channels = config->in_channels * (config->learn_sigma ? 2 : 1);
    if ((status = dc_alloc(&memory, config->depth, sizeof(dc_dit_block), "the DiT's blocks", err)) != DC_OK)
        goto done;
    model->blocks = memory;
    if ((status = read_model(&r, model)) != DC_OK)
        goto done;
    model->n_parameters = r.n_parameters;
    *out = model;
    model = NULL;
done:
    dc_dit_free(model);
    dc_tensors_clear(&r.tensors);
    return status;
}

static void clear_linear(dc_linear *layer)
{
    dc_free(layer->panels);
    dc_free(layer->bias);
}

void dc_dit_free(dc_dit *model)
{
    if (model == NULL)
        return;
    for (int64_t i = 0; model->blocks != NULL && i < model->config.depth; i++) {
        dc_dit_block *block = &model->blocks[i];
        clear_linear(&block->qkv);
        clear_linear(&block->proj);
        clear_linear(&block->fc1);
        clear_linear(&block->fc2);
        clear_linear(&block->adaLN_modulation);
    }
    clear_linear(&model->x_embedder);
    clear_linear(&model->t_embedder_0);
    clear_linear(&model->t_embedder_2);
    clear_linear(&model->final_linear);
    clear_linear(&model->final_adaLN_modulation);
    dc_free(model->embedding_table);
    dc_free(model->pos_embed);
    dc_free(model->blocks);
    dc_free(model);
}
