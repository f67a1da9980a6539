/* The native denoiser: DiT with adaLN-zero (Peebles and Xie, 2022), names as in the original.
 *
 * A model is immutable and may be shared by threads; a denoiser (method/loop.h) made from it has a workspace of its own. */
#ifndef DC_DIT_DIT_H
#define DC_DIT_DIT_H

#include "backend.h"
#include "dit/operations.h"
#include "method/loop.h"

enum { DC_FREQUENCIES = 256 }; /* frequency_embedding_size */

typedef struct dc_dit_config {
    int64_t input_size, patch_size, in_channels, hidden_size, depth, num_heads, mlp_hidden, num_classes;
    int learn_sigma; /* twice the channels come out; the first half is the prediction */
} dc_dit_config;

typedef struct dc_dit_block {
    dc_linear qkv, proj, fc1, fc2, adaLN_modulation;
} dc_dit_block;

typedef struct dc_dit {
    dc_dit_config config;
    int64_t n_tokens, out_channels, n_parameters;
    dc_linear x_embedder, t_embedder_0, t_embedder_2, final_linear, final_adaLN_modulation;
    float *embedding_table; /* (num_classes, D) */
    float *pos_embed;       /* (T, D) */
    dc_dit_block *blocks;   /* (depth,) */
} dc_dit;

/* file (n_bytes,): a safetensors file with exactly the tensors that config calls for; copied.  *out: returns new. */
DC_MUST_USE dc_status dc_dit_new(dc_dit **out, const void *file, int64_t n_bytes, const dc_dit_config *config,
                                 dc_error *err);
void dc_dit_free(dc_dit *model); /* takes; NULL is fine */

/* Scratch memory for `n_images` images at a time. */
typedef struct dc_dit_workspace {
    int64_t n_images;
    float *patches, *x, *normed, *qkv, *hidden, *scratch, *frequencies, *c, *modulation;
} dc_dit_workspace;
DC_MUST_USE dc_status dc_dit_workspace_init(dc_dit_workspace *workspace, const dc_dit *model, int64_t n_images,
                                            dc_error *err);
void dc_dit_workspace_clear(dc_dit_workspace *workspace);

/* out (N, out_channels, H, W) from x_t (N, C, H, W), time (N,), class_labels (N,) in [0, num_classes): a straight line of
 * backend operations; N <= workspace's n_images. */
void dc_dit_forward(const dc_dit *model, const dc_backend *backend, dc_dit_workspace *workspace, float *out,
                    const float *x_t, const double *time, const int64_t *class_labels, int64_t n_images);

/* A denoiser for batches of at most max_rows; borrows model and backend.  *out: returns new. */
typedef struct dc_dit_denoiser dc_dit_denoiser;
DC_MUST_USE dc_status dc_dit_denoiser_new(dc_dit_denoiser **out, const dc_dit *model, const dc_backend *backend,
                                          int64_t max_rows, dc_error *err);
void dc_dit_denoiser_free(dc_dit_denoiser *denoiser); /* takes; NULL is fine */
dc_denoiser dc_dit_denoiser_entry(dc_dit_denoiser *denoiser);

#endif
