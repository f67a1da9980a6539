/* The operations of a DiT: the second half of the backend's table.
 *
 * All are called for a chunk of images by one thread; arrays are dense and in the backend's memory, tokens are rows.  N images,
 * T tokens an image, D hidden size.  float arrays are float32 everywhere: the residual stream, what modulates it, what comes
 * out.  void arrays are *narrow*, in the model's precision: what a product reads.  On the CPU every output element is one
 * chain of additions in a fixed order, whatever N is and wherever the image stands in the batch: the forward pass is
 * batch-invariant.  On a device that holds for all but linear, whose products are a library's. */
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
    return n - first < DC_PANEL ? n - first : (int64_t)DC_PANEL;
}

/* Floats of scratch memory that attention asks for. */
static inline int64_t dc_attention_scratch(int64_t n_tokens, int64_t head_dim)
{
    int64_t scores = DC_TILE_ROWS_MAX * dc_panels(n_tokens) * DC_PANEL, keys = head_dim * dc_panels(n_tokens) * DC_PANEL;
    return scores + keys + n_tokens * dc_panels(head_dim) * DC_PANEL;
}

/* Of what products read and of their weights; they add up in float32 in any case. */
typedef enum dc_precision {
    DC_PRECISION_FLOAT32 = 0,
    DC_PRECISION_TF32, /* float32 in memory, ten bits of mantissa in a product */
    DC_PRECISION_FLOAT16,
    DC_PRECISION_BFLOAT16,
} dc_precision;

static inline int64_t dc_precision_bytes(dc_precision precision)
{
    return precision == DC_PRECISION_FLOAT32 || precision == DC_PRECISION_TF32 ? 4 : 2;
}

/* y = x weight^T + bias. */
typedef struct dc_linear {
    int64_t n_in, n_out;
    float *panels; /* the host's: the weight (n_out, n_in) column by column, (ceil(n_out / 32), n_in, 32), zero-padded */
    float *bias;   /* (n_out,), on the host (ceil(n_out / 32) * 32,) and zero-padded */
    void *weight, *narrow_bias; /* a device's: (n_out, n_in) and (n_out,) in `precision` */
    dc_precision precision;
} dc_linear;

typedef enum dc_epilogue {
    DC_EPILOGUE_NONE = 0, /* y = v, narrow */
    DC_EPILOGUE_WIDE,     /* y = v, float32 like the last two */
    DC_EPILOGUE_GELU,     /* y = gelu(v), tanh form (Hendrycks and Gimpel, 2016), narrow */
    DC_EPILOGUE_SILU,     /* y = v sigmoid(v), narrow */
    DC_EPILOGUE_ADD,      /* y = v + other[row mod rows_per_other] */
    DC_EPILOGUE_GATE,     /* y += other[other_of[row / rows_per_other]] * v: adaLN's gated residual */
} dc_epilogue;

/* What follows the product; other has rows of n_out elements, other_stride apart. */
typedef struct dc_finish {
    dc_epilogue epilogue;
    const float *other;
    int64_t other_stride, rows_per_other;
    const int64_t *other_of;
} dc_finish;

/* Image n has row row_of[n] of a table whose rows are stride apart. */
typedef struct dc_choice {
    const int64_t *row_of;
    int64_t stride;
} dc_choice;

/* A chunk's tokens: (n_images n_tokens, hidden). */
typedef struct dc_tokens {
    int64_t n_images, n_tokens, hidden;
    dc_precision precision;
} dc_tokens;

/* Pictures (channels, size, size) cut into patches of patch x patch. */
typedef struct dc_picture {
    int64_t size, patch, channels;
} dc_picture;

typedef struct dc_dit_operations {
    int64_t chunk_tokens; /* of a chunk: as many as keep the backend busy, no more than its nearest memory wants */

    /* y (n_rows, n_out), x (n_rows, n_in) narrow. */
    void (*linear)(const dc_backend *self, void *y, const void *x, const dc_linear *layer, int64_t n_rows,
                   dc_finish finish);
    /* out = (1 + scale) * norm(x) + shift, norm(x) = (x - mean) / sqrt(variance + eps); shift and scale (D,) are in the row
     * of the image's choice. */
    void (*modulate)(const dc_backend *self, void *out, const float *x, const float *shift, const float *scale,
                     dc_choice choice, float eps, dc_tokens tokens);
    /* out (N T, D), qkv (N T, 3 D) narrow, each of q, k, v split into heads; scratch (attention_scratch,), the host's. */
    void (*attention)(const dc_backend *self, void *out, const void *qkv, float *scratch, int64_t n_heads,
                      dc_tokens tokens);
    /* out (N, size): cosines, then sines, of time / 10000^(i / (size / 2 - shift)), shift 0 or 1. */
    void (*timestep_embedding)(const dc_backend *self, void *out, const double *time, int64_t n_images, int64_t size,
                               int shift, dc_precision precision);
    /* c (n_pairs, D) = silu(of_time[time_of_pair] + table[class_of_pair]). */
    void (*condition)(const dc_backend *self, void *c, const float *of_time, const float *table,
                      const int64_t *time_of_pair, const int64_t *class_of_pair, int64_t n_pairs, int64_t hidden,
                      dc_precision precision);
    /* patches (N T, C p p) in the order of a convolution's weight, of row row_of[n] of x_t (, C, H, W). */
    void (*patchify)(const dc_backend *self, void *patches, const float *x_t, const int64_t *row_of, int64_t n_images,
                     dc_picture picture, dc_precision precision);
    /* out (N, C, H, W) from tokens (N T, p p C). */
    void (*unpatchify)(const dc_backend *self, float *out, const float *tokens, int64_t n_images, dc_picture picture);
    /* out (n_rows, n_elem): row row_of[n] of `from` each. */
    void (*gather)(const dc_backend *self, float *out, const float *from, const int64_t *row_of, int64_t n_rows,
                   int64_t n_elem);

    /* A device's; NULL on the host.  place: *out, zeroed, becomes the device's copy of a host's layer, memory of its own
     * also when it fails.  reserve: room for a gated product of so many bytes, narrow (n_rows, n_out), and for `send` of so
     * many, so that no operation allocates.  send: copies to the device in the order of the operations and does not wait; `from` may be
     * written again at once. */
    dc_status (*place)(const dc_backend *self, dc_linear *out, const dc_linear *host, dc_precision precision, dc_error *err);
    dc_status (*reserve)(const dc_backend *self, int64_t scratch_bytes, int64_t send_bytes, dc_error *err);
    void (*send)(const dc_backend *self, void *to, const void *from, int64_t n_bytes);
} dc_dit_operations;

#endif
