/* Weights files of small DiTs, every item random, in either layout; and the models that are read from them. */
#ifndef DC_TEST_DIT_FILES_H
#define DC_TEST_DIT_FILES_H

#include <string>
#include <vector>

extern "C" {
#include "dit/dit.h"
}

struct dit_file {
    std::string header, data;
    uint32_t n;
};

static inline void add_tensor(dit_file *file, const std::string &name, const std::vector<int64_t> &shape, float size)
{
    int64_t count = 1;
    std::string sizes;
    for (int64_t extent : shape) {
        count *= extent;
        sizes += (sizes.empty() ? "" : ", ") + std::to_string(extent);
    }
    std::vector<float> items = random_floats(count, size, 100 + file->n);
    size_t begin = file->data.size(), end = begin + items.size() * sizeof(float);
    file->header += (file->n++ ? ", \"" : "{\"") + name + "\": {\"dtype\": \"F32\", \"shape\": [" + sizes + "], \"data_offsets\": [" +
                    std::to_string(begin) + ", " + std::to_string(end) + "]}";
    file->data.append((const char *)items.data(), items.size() * sizeof(float));
}

/* Weights of variance near 1 / n_in keep activations of the order of one. */
static inline void add_layer(dit_file *file, const std::string &name, int64_t n_out, int64_t n_in)
{
    add_tensor(file, name + ".weight", {n_out, n_in}, 1.7f / std::sqrt((float)n_in));
    add_tensor(file, name + ".bias", {n_out}, 0.5f);
}

static inline void add_embedder(dit_file *file, const dc_dit_config &c, const std::string names[3])
{
    add_layer(file, names[0], c.hidden_size, DC_FREQUENCIES);
    add_layer(file, names[1], c.hidden_size, c.hidden_size);
    add_tensor(file, names[2] + ".embedding_table.weight", {c.num_classes, c.hidden_size}, 1.0f);
}

static inline void add_block(dit_file *file, const dc_dit_config &c, int64_t index)
{
    const int64_t d = c.hidden_size;
    const bool is_original = c.layout == DC_DIT_ORIGINAL;
    const std::string prefix = (is_original ? "blocks." : "transformer_blocks.") + std::to_string(index) + ".";
    if (is_original) {
        add_layer(file, prefix + "attn.qkv", 3 * d, d);
    } else {
        const std::string names[] = {prefix + "norm1.emb.timestep_embedder.linear_1", prefix + "norm1.emb.timestep_embedder.linear_2",
                                     prefix + "norm1.emb.class_embedder"};
        add_embedder(file, c, names);
        for (const char *part : {"q", "k", "v"})
            add_layer(file, prefix + "attn1.to_" + part, d, d);
    }
    add_layer(file, prefix + (is_original ? "attn.proj" : "attn1.to_out.0"), d, d);
    add_layer(file, prefix + (is_original ? "mlp.fc1" : "ff.net.0.proj"), c.mlp_hidden, d);
    add_layer(file, prefix + (is_original ? "mlp.fc2" : "ff.net.2"), d, c.mlp_hidden);
    add_layer(file, prefix + (is_original ? "adaLN_modulation.1" : "norm1.linear"), 6 * d, d);
}

/* A model with random weights, on the host. */
static inline dc_dit *dit_model(const dc_dit_config &c)
{
    dit_file file = {};
    const int64_t d = c.hidden_size, p = c.patch_size, side = c.input_size / p, c_out = c.in_channels * (c.learn_sigma ? 2 : 1);
    const bool is_original = c.layout == DC_DIT_ORIGINAL;
    add_tensor(&file, is_original ? "x_embedder.proj.weight" : "pos_embed.proj.weight", {d, c.in_channels, p, p}, 0.5f);
    add_tensor(&file, is_original ? "x_embedder.proj.bias" : "pos_embed.proj.bias", {d}, 0.5f);
    if (is_original) {
        const std::string names[] = {"t_embedder.mlp.0", "t_embedder.mlp.2", "y_embedder"};
        add_tensor(&file, "pos_embed", {1, side * side, d}, 0.5f);
        add_embedder(&file, c, names);
    }
    for (int64_t i = 0; i < c.depth; i++)
        add_block(&file, c, i);
    add_layer(&file, is_original ? "final_layer.linear" : "proj_out_2", p * p * c_out, d);
    add_layer(&file, is_original ? "final_layer.adaLN_modulation.1" : "proj_out_1", 2 * d, d);
    file.header += "}";
    uint64_t n_header = file.header.size();
    std::string all((const char *)&n_header, sizeof n_header);
    all += file.header + file.data;
    dc_bytes bytes = {all.data(), (int64_t)all.size()};
    dc_dit *model = NULL;
    dc_error err = {};
    CHECK(dc_dit_new(&model, &bytes, 1, &c, &err) == DC_OK);
    if (model == NULL)
        printf("%s\n", err.message);
    return model;
}

#endif
