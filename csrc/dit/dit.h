/* The native denoiser: DiT with adaLN-zero (Peebles and Xie, 2022), names as in the original.
 *
 * A model is immutable and may be shared by threads; a denoiser (method/loop.h) made from it has a workspace of its own. */
#ifndef DC_DIT_DIT_H
#define DC_DIT_DIT_H

#include "backend.h"
#include "dit/operations.h"
#include "dit/reader.h"
#include "method/loop.h"

enum { DC_FREQUENCIES = 256 }; /* frequency_embedding_size */

/* Whose names and details: the original code's, or those of diffusers' DiTTransformer2DModel, which
 *   - has an embedder of time and class in every block, and takes the first block's for the final layer;
 *   - spreads the embedding's frequencies from 1 to 1 / 10000 inclusive, the original leaves the last out;
 *   - keeps q, k and v apart, and makes pos_embed anew: sines and cosines of a patch's place. */
typedef enum dc_dit_layout { DC_DIT_ORIGINAL = 0, DC_DIT_DIFFUSERS } dc_dit_layout;

typedef struct dc_dit_config {
    int64_t input_size, patch_size, in_channels, hidden_size, depth, num_heads, mlp_hidden;
    int64_t num_classes; /* rows of the table, the null class among them where there is one */
    int learn_sigma;     /* twice the channels come out; the first half is the prediction */
    dc_dit_layout layout;
    float mlp_norm_eps;  /* of the layer norm before the perceptron; that of the others is 1e-6 */
} dc_dit_config;

/* c = t_embedder(time) + y_embedder(class). */
typedef struct dc_dit_embedder {
    dc_linear mlp_0, mlp_2;
    float *table; /* (num_classes, D) */
} dc_dit_embedder;

typedef struct dc_dit_block {
    dc_linear qkv, proj, fc1, fc2, adaLN_modulation;
    int64_t embedder; /* which of the model's */
} dc_dit_block;

typedef struct dc_dit {
    dc_dit_config config;
    int64_t n_tokens, out_channels;
    int64_t n_parameters; /* equal embedders are one */
    int64_t n_embedders;  /* one, or as many as differ; the first is the final layer's */
    dc_dit_embedder *embedders;
    dc_linear x_embedder, final_linear, final_adaLN_modulation;
    float *pos_embed;     /* (T, D) */
    dc_dit_block *blocks; /* (depth,) */
    const dc_backend *backend; /* whose device has the weights, borrowed; NULL: the host */
    dc_precision precision;
} dc_dit;

/* files: safetensors files with exactly the tensors that config calls for, together; copied.  *out: returns new. */
DC_MUST_USE dc_status dc_dit_new(dc_dit **out, const dc_bytes *files, int64_t n_files, const dc_dit_config *config,
                                 dc_error *err);
void dc_dit_free(dc_dit *model); /* takes; NULL is fine */

/* A copy of a host's model whose weights are on the backend's device, in `precision`: for every backend of that device, on
 * any stream.  Waits.  Borrows the backend.  *out: returns new. */
DC_MUST_USE dc_status dc_dit_place(dc_dit **out, const dc_dit *model, const dc_backend *backend, dc_precision precision,
                                   dc_error *err);

/* All layers one after another, the same order in every model of a config; NULL after the last. */
dc_linear *dc_dit_layer(const dc_dit *model, int64_t index);

/* Scratch memory of one thread, for chunks of `n_images` images and n_shared rows that share (dit/shared.h).  void arrays are
 * narrow: see dit/operations.h. */
typedef struct dc_dit_workspace {
    int64_t n_images;
    void *patches, *normed, *qkv, *hidden; /* (n_images T, ...) */
    float *x, *tokens, *scratch;           /* tokens: what comes out, before it is a picture */
    void *frequencies, *time_hidden, *c;   /* (n_shared, ...) */
    float *time_embedding;
} dc_dit_workspace;
DC_MUST_USE dc_status dc_dit_workspace_init(dc_dit_workspace *workspace, const dc_dit *model, const dc_backend *backend,
                                            int64_t n_images, int64_t n_shared, dc_error *err);
void dc_dit_workspace_clear(dc_dit_workspace *workspace, const dc_backend *backend);

/* out (n_images, out_channels, H, W) of rows first .. first + n_images - 1 of what `shared` was computed for: a straight
 * line of backend operations; n_images <= workspace's. */
typedef struct dc_dit_shared dc_dit_shared;
void dc_dit_forward(const dc_dit *model, const dc_backend *backend, dc_dit_workspace *workspace,
                    const dc_dit_shared *shared, float *out, int64_t first, int64_t n_images);

/* A denoiser for batches of at most max_rows, where the model's weights are; borrows model and backend.  *out: returns new. */
typedef struct dc_dit_denoiser dc_dit_denoiser;
DC_MUST_USE dc_status dc_dit_denoiser_new(dc_dit_denoiser **out, const dc_dit *model, const dc_backend *backend,
                                          int64_t max_rows, dc_error *err);
void dc_dit_denoiser_free(dc_dit_denoiser *denoiser); /* takes; NULL is fine */
dc_denoiser dc_dit_denoiser_entry(dc_dit_denoiser *denoiser);

#endif
