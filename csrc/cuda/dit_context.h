/* What the CUDA backend keeps for the native DiT: cuBLASLt with its plans, scratch memory, and numbers on their way. */
#ifndef DC_CUDA_DIT_CONTEXT_H
#define DC_CUDA_DIT_CONTEXT_H

#include "cuda/blas.h"
#include "cuda/context.h"
#include "cuda/element.h"
#include "dit/operations.h"

enum {
    DC_SENDS = 8,  /* under way at most; more wait for the first */
    DC_PLANS = 32, /* a DiT has ten kinds of products */
    DC_CHUNK_TOKENS = 1 << 15, /* rows of a product: DiT-XL's activations of a chunk are 0.8 GB in sixteen bits */
};

/* One kind of product, whatever its number of rows: what the library was told, and what it chose. */
typedef struct dc_plan {
    int64_t n_in, n_out;
    dc_precision precision;
    bool is_gelu, is_wide, is_aligned; /* y is float32; x and y stand on multiples of 16 bytes */
    void *desc, *weight, *x, *y;       /* the library's; NULL: none */
    dc_lt_algorithm algorithm;
} dc_plan;

/* Pinned memory that a copy in the stream takes over. */
typedef struct dc_sending {
    void *host;
    cudaEvent_t copied; /* passed: host may be written again */
} dc_sending;

struct dc_cuda_dit {
    dc_lt lt;
    void *handle, *workspace; /* the library's */
    dc_plan plans[DC_PLANS];
    int64_t n_plans; /* made so far; the oldest gives way */
    void *scratch;   /* a gated product before it meets the residual */
    int64_t scratch_bytes;
    dc_sending sends[DC_SENDS];
    int64_t next_send, send_bytes;
};

/* Gives the backend its operations of the native DiT, with products by `functions`, copied.  DC_OK when it has them already. */
DC_MUST_USE dc_status dc_cuda_dit_open(dc_backend *backend, const dc_lt *functions, dc_error *err);
void dc_cuda_dit_close(dc_cuda *cuda); /* nothing is under way; none is fine */

/* The operations; comments in dit/operations.h. */
extern const dc_dit_operations dc_cuda_dit_operations;
void dc_linear_cuda(const dc_backend *self, void *y, const void *x, const dc_linear *layer, int64_t n_rows,
                    dc_finish finish);
void dc_attention_cuda(const dc_backend *self, void *out, const void *qkv, float *scratch, int64_t n_heads,
                       dc_tokens tokens);
dc_status dc_place_cuda(const dc_backend *self, dc_linear *out, const dc_linear *host, dc_precision precision,
                        dc_error *err);
dc_status dc_reserve_cuda(const dc_backend *self, int64_t scratch_bytes, int64_t send_bytes, dc_error *err);
void dc_send_cuda(const dc_backend *self, void *to, const void *from, int64_t n_bytes);

void dc_plan_clear(const dc_lt *lt, dc_plan *plan);

/* The instance of a kernel for what is narrow in `precision`. */
template <typename Params>
static void (*dc_narrow_kernel(dc_precision precision, void (*of_float)(Params), void (*of_half)(Params),
                               void (*of_bfloat)(Params)))(Params)
{
    return precision == DC_PRECISION_FLOAT16 ? of_half : precision == DC_PRECISION_BFLOAT16 ? of_bfloat : of_float;
}

#endif
