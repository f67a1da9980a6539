/* The operations of a DiT: the second half of the backend's table.
 *
 * All are called for a chunk of images by one thread; arrays are dense float32, tokens are rows.  N images, T tokens an
 * image, D hidden size.  Every output element is one chain of additions in a fixed order, whatever N is and wherever the
 * image stands in the batch: the forward pass is batch-invariant. */
#ifndef DC_DIT_OPERATIONS_H
#define DC_DIT_OPERATIONS_H

#include "backend.h"

enum {
    DC_PANEL = 32,        /* columns of a packed panel */
    DC_TILE_ROWS_MAX = 8, /* rows that a backend multiplies at a time, at most */
};

/* Panels that n columns fill, and how many of their columns stand in the panel that begins at `first`. */
static inline int64_t dc_panels(int64_t n)
{
    return (n + DC_PANEL - 1) / DC_PANEL;
}

static inline int64_t dc_panel_width(int64_t n, int64_t first)
{
    return n - first < DC_PANEL ? n - first : DC_PANEL;
}

/* Floats of scratch memory that attention asks for. */
static inline int64_t dc_attention_scratch(int64_t n_tokens, int64_t head_dim)
{
    int64_t scores = DC_TILE_ROWS_MAX * dc_panels(n_tokens) * DC_PANEL, keys = head_dim * dc_panels(n_tokens) * DC_PANEL;
    return scores + keys + n_tokens * dc_panels(head_dim) * DC_PANEL;
}

/* y = x weight^T + bias.  panels (ceil(n_out / 32), n_in, 32) hold the
 * weight (n_out, n_in) column by column, zero-padded; bias
 * (ceil(n_out / 32) * 32,), zero-padded. */
typedef struct dc_linear {
    int64_t n_in, n_out;
    float *panels, *bias;
} dc_linear;

typedef enum dc_epilogue {
    DC_EPILOGUE_NONE = 0, /* y = v */
    DC_EPILOGUE_GELU,     /* y = gelu(v), tanh form (Hendrycks and Gimpel, 2016) */
    DC_EPILOGUE_SILU,     /* y = v sigmoid(v) */
    DC_EPILOGUE_ADD,      /* y = v + other[row mod rows_per_other] */
    DC_EPILOGUE_GATE,     /* y += other[row / rows_per_other] * v: adaLN's gated residual */
} dc_epilogue;

/* What follows the product; other has rows of n_out elements, other_stride apart. */
typedef struct dc_finish {
    dc_epilogue epilogue;
    const float *other;
    int64_t other_stride, rows_per_other;
} dc_finish;

typedef struct dc_dit_operations {
    /* y (n_rows, n_out), x (n_rows, n_in). */
    void (*linear)(const dc_backend *self, float *y, const float *x, const dc_linear *layer, int64_t n_rows,
                   dc_finish finish);
    /* out = (1 + scale) * norm(x) + shift, norm(x) = (x - mean) / sqrt(variance + eps); x, out (N T, D), shift and scale
     * rows of D, stride apart, one an image. */
    void (*modulate)(const dc_backend *self, float *out, const float *x, const float *shift, const float *scale,
                     int64_t stride, float eps, int64_t n_images, int64_t n_tokens, int64_t hidden);
    /* out (N T, D), qkv (N T, 3 D), each of q, k, v split into heads; scratch (dc_attention_scratch,). */
    void (*attention)(const dc_backend *self, float *out, const float *qkv, float *scratch, int64_t n_images,
                      int64_t n_tokens, int64_t hidden, int64_t n_heads);
    /* x = x sigmoid(x), n items in place. */
    void (*silu)(const dc_backend *self, float *x, int64_t n);
    /* out (N, size): cosines, then sines, of time / 10000^(i / (size / 2 - shift)), shift 0 or 1. */
    void (*timestep_embedding)(const dc_backend *self, float *out, const double *time, int64_t n_images, int64_t size,
                               int shift);
} dc_dit_operations;

#endif
