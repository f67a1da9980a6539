/* A model's copy on a device, and the end of a model wherever it is. */
#include "base/memory.h"
#include "dit/dit.h"
#include "method/storage.h"

enum { EMBEDDER_LAYERS = 2, BLOCK_LAYERS = 5 };

dc_linear *dc_dit_layer(const dc_dit *model, int64_t index)
{
    dc_dit *own = (dc_dit *)model; /* what the caller may do with it, it may do with the layer */
    if (index < 3)
        return index == 0 ? &own->x_embedder : index == 1 ? &own->final_linear : &own->final_adaLN_modulation;
    index -= 3;
    if (index < EMBEDDER_LAYERS * model->n_embedders) {
        dc_dit_embedder *embedder = model->embedders != NULL ? &model->embedders[index / EMBEDDER_LAYERS] : NULL;
        return embedder == NULL ? NULL : index % EMBEDDER_LAYERS == 0 ? &embedder->mlp_0 : &embedder->mlp_2;
    }
    index -= EMBEDDER_LAYERS * model->n_embedders;
    if (model->blocks == NULL || index >= BLOCK_LAYERS * model->config.depth)
        return NULL;
    dc_dit_block *block = &model->blocks[index / BLOCK_LAYERS];
    dc_linear *const layers[BLOCK_LAYERS] = {&block->qkv, &block->proj, &block->fc1, &block->fc2, &block->adaLN_modulation};
    return layers[index % BLOCK_LAYERS];
}

static dc_status place_tables(dc_dit *placed, const dc_dit *model, dc_error *err)
{
    const dc_backend *backend = placed->backend;
    int64_t d = model->config.hidden_size;
    dc_status status =
        dc_floats_new(backend, &placed->pos_embed, model->pos_embed, model->n_tokens * d, "pos_embed", err);
    for (int64_t i = 0; i < model->n_embedders && status == DC_OK; i++)
        status = dc_floats_new(backend, &placed->embedders[i].table, model->embedders[i].table,
                               model->config.num_classes * d, "the class table", err);
    return status;
}

dc_status dc_dit_place(dc_dit **out, const dc_dit *model, const dc_backend *backend, dc_precision precision, dc_error *err)
{
    void *memory;
    dc_dit *placed = NULL;
    *out = NULL;
    if (model->backend != NULL || backend->device == NULL || backend->dit == NULL)
        return dc_error_set(err, DC_ERR_DEVICE, "only weights on the host can be placed on a device, only where products are");
    dc_status status = dc_alloc(&memory, 1, sizeof *placed, "the DiT", err);
    if (status != DC_OK)
        return status;
    placed = memory;
    *placed = *model;
    placed->backend = backend;
    placed->precision = precision;
    placed->x_embedder = placed->final_linear = placed->final_adaLN_modulation = (dc_linear){0};
    placed->pos_embed = NULL;
    placed->blocks = NULL;
    placed->embedders = NULL;
    if ((status = dc_alloc(&memory, model->config.depth, sizeof *placed->blocks, "the DiT's blocks", err)) != DC_OK)
        goto done;
    placed->blocks = memory;
    for (int64_t i = 0; i < model->config.depth; i++)
        placed->blocks[i].embedder = model->blocks[i].embedder;
    if ((status = dc_alloc(&memory, model->n_embedders, sizeof *placed->embedders, "the DiT's embedders", err)) != DC_OK)
        goto done;
    placed->embedders = memory;
    if ((status = place_tables(placed, model, err)) != DC_OK)
        goto done;
    const dc_linear *layer;
    for (int64_t i = 0; (layer = dc_dit_layer(model, i)) != NULL; i++)
        if ((status = backend->dit->place(backend, dc_dit_layer(placed, i), layer, precision, err)) != DC_OK)
            goto done;
    *out = placed;
    placed = NULL;
done:
    dc_dit_free(placed);
    return status;
}

static void free_layer(const dc_backend *backend, dc_linear *layer)
{
    if (backend == NULL) {
        dc_linear_clear(layer);
        return;
    }
    dc_memory_free(backend, layer->weight);
    dc_memory_free(backend, layer->narrow_bias);
    dc_memory_free(backend, layer->bias);
}

static void free_floats(const dc_backend *backend, float *floats)
{
    if (backend == NULL)
        dc_free(floats);
    else
        dc_floats_free(backend, floats);
}

void dc_dit_free(dc_dit *model)
{
    if (model == NULL)
        return;
    dc_linear *layer;
    for (int64_t i = 0; (layer = dc_dit_layer(model, i)) != NULL; i++)
        free_layer(model->backend, layer);
    for (int64_t i = 0; model->embedders != NULL && i < model->n_embedders; i++)
        free_floats(model->backend, model->embedders[i].table);
    free_floats(model->backend, model->pos_embed);
    dc_free(model->embedders);
    dc_free(model->blocks);
    dc_free(model);
}
