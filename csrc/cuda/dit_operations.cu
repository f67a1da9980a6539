/* The DiT's operations beside product and attention: layer norm with modulation, embeddings, patches; and the table. */
#include "cuda/dit_context.h"

enum { LANES = 32, MODULATE_ROWS = 4, MODULATE_THREADS = MODULATE_ROWS * LANES, ELEMENT_THREADS = 256 };

static const unsigned EVERY_LANE = 0xffffffffu;

/* ---- layer norm and modulation ------------------------------------------------------------------------------------- */

typedef struct modulate_params {
    void *out;      /* (n_rows, hidden) narrow */
    const float *x; /* (n_rows, hidden) */
    const float *shift, *scale;
    const int64_t *row_of;
    int64_t stride, n_rows;
    unsigned hidden, n_tokens;
    float eps;
} modulate_params;

/* Over a warp's lanes, the same in each, always in this order. */
static __device__ __forceinline__ float sum_lanes(float value)
{
#pragma unroll
    for (int width = LANES / 2; width > 0; width /= 2)
        value += __shfl_xor_sync(EVERY_LANE, value, width);
    return value;
}

/* out (UNIT,) = elements e .. of a float32 row, 0 past its end. */
template <int UNIT> static __device__ __forceinline__ void read_floats(float *out, const float *row, unsigned e, unsigned n)
{
#pragma unroll
    for (int i = 0; i < UNIT; i += 4)
        dc_read4(out + i, row, e + i, n);
}

/* A warp a row.  It is read once: a lane keeps KEPT of its numbers in registers, which is all of them up to 32 KEPT; for
 * KEPT = 0 it reads its numbers again for the variance and for the answer. */
template <typename T, int KEPT> static __global__ void __launch_bounds__(MODULATE_THREADS) modulate_kernel(modulate_params params)
{
    constexpr int UNIT = DC_UNIT<T>;
    const int64_t row = (int64_t)blockIdx.x * MODULATE_ROWS + threadIdx.x / LANES;
    const unsigned hidden = params.hidden, first = threadIdx.x % LANES * UNIT;
    if (row >= params.n_rows)
        return;
    const unsigned n_units = KEPT > 0 ? KEPT / UNIT : (hidden + LANES * UNIT - 1) / (LANES * UNIT);
    const float *x = params.x + row * hidden;
    float kept[KEPT > 0 ? KEPT : UNIT], mean = 0.0f, variance = 0.0f;
#pragma unroll
    for (unsigned u = 0; u < n_units; u++) {
        float *own = kept + (KEPT > 0 ? u * UNIT : 0);
        read_floats<UNIT>(own, x, u * LANES * UNIT + first, hidden);
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            mean += own[i];
    }
    mean = sum_lanes(mean) / (float)hidden;
#pragma unroll
    for (unsigned u = 0; u < n_units; u++) {
        const unsigned e = u * LANES * UNIT + first;
        float *own = kept + (KEPT > 0 ? u * UNIT : 0);
        if (KEPT == 0)
            read_floats<UNIT>(own, x, e, hidden);
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            variance += e + i < hidden ? (own[i] - mean) * (own[i] - mean) : 0.0f;
    }
    const float inverse = 1.0f / sqrtf(sum_lanes(variance) / (float)hidden + params.eps);
    const int64_t chosen = params.row_of[(unsigned)row / params.n_tokens] * params.stride;
    T *out = (T *)params.out + row * hidden;
#pragma unroll
    for (unsigned u = 0; u < n_units; u++) {
        const unsigned e = u * LANES * UNIT + first;
        float *own = kept + (KEPT > 0 ? u * UNIT : 0), shift[UNIT], scale[UNIT];
        if (e >= hidden)
            break;
        if (KEPT == 0)
            read_floats<UNIT>(own, x, e, hidden);
        read_floats<UNIT>(shift, params.shift + chosen, e, hidden);
        read_floats<UNIT>(scale, params.scale + chosen, e, hidden);
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            own[i] = (own[i] - mean) * inverse * (1.0f + scale[i]) + shift[i];
        dc_write_unit(out, own, e, hidden);
    }
}

template <typename T> static void (*modulate_for(int64_t hidden))(modulate_params)
{
    return hidden <= 16 * LANES   ? modulate_kernel<T, 16> /* DiT-S: 384 */
           : hidden <= 24 * LANES ? modulate_kernel<T, 24> /* DiT-B: 768 */
           : hidden <= 40 * LANES ? modulate_kernel<T, 40> /* DiT-L and XL: 1024, 1152 */
                                  : modulate_kernel<T, 0>;
}

static void modulate_cuda(const dc_backend *self, void *out, const float *x, const float *shift, const float *scale,
                          dc_choice choice, float eps, dc_tokens tokens)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    int64_t n_rows = tokens.n_images * tokens.n_tokens, hidden = tokens.hidden;
    modulate_params params = {out, x, shift, scale, choice.row_of, choice.stride, n_rows, (unsigned)hidden,
                              (unsigned)tokens.n_tokens, eps};
    dc_cuda_launch(cuda, dc_narrow_kernel(tokens.precision, modulate_for<float>(hidden), modulate_for<half_bits>(hidden),
                                          modulate_for<bfloat_bits>(hidden)),
                   params, (n_rows + MODULATE_ROWS - 1) / MODULATE_ROWS, MODULATE_THREADS, 0, "modulate");
    dc_cuda_leave(before);
}

/* ---- embeddings: a thread an element, few of them ------------------------------------------------------------------ */

typedef struct embedding_params {
    void *out;          /* (n_rows, size) narrow */
    const double *time; /* (n_rows,) */
    int64_t n_rows;
    int size;
    float exponent; /* frequency i is exp(i exponent) */
} embedding_params;

/* Frequency and angle are rounded as on the CPU; cosine and sine are of the angle over pi, whose periods are taken off
 * exactly, so no angle is too large. */
template <typename T> static __global__ void __launch_bounds__(ELEMENT_THREADS) embedding_kernel(embedding_params params)
{
    const double INVERSE_PI = 0.31830988618379067154;
    const int half = params.size / 2;
    const int64_t item = (int64_t)blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    if (item >= params.n_rows * half)
        return;
    const int64_t row = item / half;
    const int i = (int)(item % half);
    const float frequency = (float)exp((double)DC_MUL((float)i, params.exponent));
    const double angle = (double)DC_MUL((float)params.time[row], frequency);
    double sine, cosine;
    sincospi(angle * INVERSE_PI, &sine, &cosine);
    T *out = (T *)params.out + row * params.size;
    dc_narrow(out + i, (float)cosine);
    dc_narrow(out + half + i, (float)sine);
}

static void timestep_embedding_cuda(const dc_backend *self, void *out, const double *time, int64_t n_images, int64_t size,
                                    int shift, dc_precision precision)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    embedding_params params = {out, time, n_images, (int)size, (float)(-log(10000.0) / (double)(size / 2 - shift))};
    dc_cuda_launch(cuda, dc_narrow_kernel(precision, embedding_kernel<float>, embedding_kernel<half_bits>,
                                          embedding_kernel<bfloat_bits>),
                   params, (n_images * (size / 2) + ELEMENT_THREADS - 1) / ELEMENT_THREADS, ELEMENT_THREADS, 0,
                   "timestep_embedding");
    dc_cuda_leave(before);
}

typedef struct condition_params {
    void *c; /* (n_pairs, hidden) narrow */
    const float *of_time, *table;
    const int64_t *time_of_pair, *class_of_pair;
    int64_t n_pairs, hidden;
} condition_params;

template <typename T> static __global__ void __launch_bounds__(ELEMENT_THREADS) condition_kernel(condition_params params)
{
    const int64_t item = (int64_t)blockIdx.x * ELEMENT_THREADS + threadIdx.x, hidden = params.hidden;
    if (item >= params.n_pairs * hidden)
        return;
    const int64_t pair = item / hidden, e = item % hidden;
    const float sum = params.of_time[params.time_of_pair[pair] * hidden + e] + params.table[params.class_of_pair[pair] * hidden + e];
    dc_narrow((T *)params.c + item, sum / (1.0f + expf(-sum)));
}

static void condition_cuda(const dc_backend *self, void *c, const float *of_time, const float *table,
                           const int64_t *time_of_pair, const int64_t *class_of_pair, int64_t n_pairs, int64_t hidden,
                           dc_precision precision)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    condition_params params = {c, of_time, table, time_of_pair, class_of_pair, n_pairs, hidden};
    dc_cuda_launch(cuda, dc_narrow_kernel(precision, condition_kernel<float>, condition_kernel<half_bits>,
                                          condition_kernel<bfloat_bits>),
                   params, (n_pairs * hidden + ELEMENT_THREADS - 1) / ELEMENT_THREADS, ELEMENT_THREADS, 0, "condition");
    dc_cuda_leave(before);
}

/* ---- pictures ------------------------------------------------------------------------------------------------------ */

typedef struct picture_params {
    void *out;
    const float *from;
    const int64_t *row_of; /* of patchify */
    int64_t n_items;       /* of out */
    dc_picture picture;
} picture_params;

/* A thread an item of patches (N, side, side, C, p, p). */
template <typename T> static __global__ void __launch_bounds__(ELEMENT_THREADS) patchify_kernel(picture_params params)
{
    const int64_t item = (int64_t)blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    if (item >= params.n_items)
        return;
    const unsigned size = (unsigned)params.picture.size, p = (unsigned)params.picture.patch, side = size / p;
    const unsigned channels = (unsigned)params.picture.channels, n_elem = channels * size * size;
    unsigned rest = (unsigned)(item % n_elem);
    const unsigned j = rest % p, i = (rest /= p) % p, c = (rest /= p) % channels, w = (rest /= channels) % side, h = rest / side;
    const float *x = params.from + params.row_of[item / n_elem] * n_elem;
    dc_narrow((T *)params.out + item, x[(c * size + h * p + i) * size + w * p + j]);
}

/* A thread an item of out (N, C, H, W). */
static __global__ void __launch_bounds__(ELEMENT_THREADS) unpatchify_kernel(picture_params params)
{
    const int64_t item = (int64_t)blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    if (item >= params.n_items)
        return;
    const unsigned size = (unsigned)params.picture.size, p = (unsigned)params.picture.patch, side = size / p;
    const unsigned channels = (unsigned)params.picture.channels, n_elem = channels * size * size;
    const unsigned rest = (unsigned)(item % n_elem), column = rest % size, row = rest / size % size, c = rest / size / size;
    const unsigned token = row / p * side + column / p;
    ((float *)params.out)[item] =
        params.from[item / n_elem * n_elem + ((token * p + row % p) * p + column % p) * channels + c];
}

static void patchify_cuda(const dc_backend *self, void *patches, const float *x_t, const int64_t *row_of, int64_t n_images,
                          dc_picture picture, dc_precision precision)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    picture_params params = {patches, x_t, row_of, n_images * picture.channels * picture.size * picture.size, picture};
    dc_cuda_launch(cuda, dc_narrow_kernel(precision, patchify_kernel<float>, patchify_kernel<half_bits>,
                                          patchify_kernel<bfloat_bits>),
                   params, (params.n_items + ELEMENT_THREADS - 1) / ELEMENT_THREADS, ELEMENT_THREADS, 0, "patchify");
    dc_cuda_leave(before);
}

static void unpatchify_cuda(const dc_backend *self, float *out, const float *tokens, int64_t n_images, dc_picture picture)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    picture_params params = {out, tokens, NULL, n_images * picture.channels * picture.size * picture.size, picture};
    dc_cuda_launch(cuda, unpatchify_kernel, params, (params.n_items + ELEMENT_THREADS - 1) / ELEMENT_THREADS, ELEMENT_THREADS,
                   0, "unpatchify");
    dc_cuda_leave(before);
}

typedef struct gather_params {
    float *out;
    const float *from;
    const int64_t *row_of;
    int64_t n_elem;
    unsigned n_blocks; /* of a row */
} gather_params;

static __global__ void __launch_bounds__(ELEMENT_THREADS) gather_kernel(gather_params params)
{
    const int64_t row = blockIdx.x / params.n_blocks;
    const int64_t e = ((int64_t)(blockIdx.x % params.n_blocks) * ELEMENT_THREADS + threadIdx.x) * 4;
    float items[4];
    if (e >= params.n_elem)
        return;
    dc_read4(items, params.from + params.row_of[row] * params.n_elem, e, params.n_elem);
    dc_write_unit(params.out + row * params.n_elem, items, e, params.n_elem);
}

static void gather_cuda(const dc_backend *self, float *out, const float *from, const int64_t *row_of, int64_t n_rows,
                        int64_t n_elem)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    int64_t n_blocks = (n_elem + 4 * ELEMENT_THREADS - 1) / (4 * ELEMENT_THREADS);
    gather_params params = {out, from, row_of, n_elem, (unsigned)n_blocks};
    dc_cuda_launch(cuda, gather_kernel, params, n_rows * n_blocks, ELEMENT_THREADS, 0, "gather");
    dc_cuda_leave(before);
}

const dc_dit_operations dc_cuda_dit_operations = {
    DC_CHUNK_TOKENS,         dc_linear_cuda, modulate_cuda, dc_attention_cuda, timestep_embedding_cuda, condition_cuda,
    patchify_cuda,           unpatchify_cuda, gather_cuda,   dc_place_cuda,     dc_reserve_cuda,         dc_send_cuda,
};
