/* softmax(q k^T / sqrt(head_dim)) v of every head, without ever storing a score: the online softmax of Milakov and Gimelshein
 * (2018), in tiles as of Dao et al. (2022).
 *
 * A block of threads has 32 queries of one head, eight to a warp, and meets the keys 32 at a time: a lane has one key's scores
 * with its warp's queries, then one column of v (or up to four).  Keys, queries and v go through shared memory in float32
 * whatever they are; slabs of 32 head dimensions let any head_dim through.  Sums are float32 and in the order of the keys,
 * whatever the batch is.
 *
 * By cuBLASLt it would be two products a head with all scores in memory between them, for a head is a strided matrix in qkv
 * and images and heads are not one stride; that wins only where tensor cores would outrun the traffic, and nothing is measured
 * yet. */
#include "cuda/dit_context.h"

enum {
    LANES = 32,
    WARPS = 4,
    ATTENTION_THREADS = WARPS * LANES,
    QUERIES = 32,               /* of a block of threads */
    OWN_QUERIES = QUERIES / WARPS,
    KEYS = LANES,               /* of a tile */
    SLAB = 32,                  /* head dimensions at a time */
    PADDED = SLAB + 4,          /* rows stay on multiples of 16 bytes, and eight of them meet all banks */
    COLUMNS_MAX = 4,            /* of v, a lane: 128 head dimensions a block of threads; wider heads take several */
};

static const unsigned EVERY_LANE = 0xffffffffu;

typedef struct attention_params {
    void *out;       /* (images n_tokens, hidden) */
    const void *qkv; /* (images n_tokens, 3 hidden) */
    int n_tokens, hidden, n_heads, head_dim;
    unsigned n_tiles, n_parts; /* of queries; of v's columns */
    float scale;               /* 1 / sqrt(head_dim) */
} attention_params;

/* Rows first .. first + 31 of `from` (n_rows, n_columns), rows stride apart, columns column .. column + WIDTH - 1, into
 * to (32, row_stride); 0 where there is none.  A warp reads a row's columns side by side. */
template <typename T, int WIDTH>
static __device__ __forceinline__ void load_tile(float *to, int row_stride, const T *from, int64_t stride, int first, int n_rows,
                                                 int column, int n_columns)
{
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
#pragma unroll 2
    for (int row = warp; row < KEYS; row += WARPS) {
        const T *at = from + (first + row) * stride + column + lane;
#pragma unroll
        for (int i = 0; i < WIDTH; i += LANES)
            to[row * row_stride + i + lane] =
                first + row < n_rows && column + i + lane < n_columns ? dc_widen(at[i]) : 0.0f;
    }
}

/* scores[r] += over one slab of the head's dimensions: the warp's query r with the lane's key. */
static __device__ __forceinline__ void add_scores(float *scores, const float *queries, const float *keys, int warp, int lane)
{
#pragma unroll
    for (int d = 0; d < SLAB; d += 4) {
        const float4 key = *(const float4 *)(keys + lane * PADDED + d);
#pragma unroll
        for (int r = 0; r < OWN_QUERIES; r++) {
            const float4 query = *(const float4 *)(queries + (warp * OWN_QUERIES + r) * PADDED + d);
            scores[r] += query.x * key.x + query.y * key.y + query.z * key.z + query.w * key.w;
        }
    }
}

template <typename T, int COLUMNS>
static __global__ void __launch_bounds__(ATTENTION_THREADS, 3) attention_kernel(attention_params params)
{
    extern __shared__ __align__(16) float dc_terms[];
    float *queries = dc_terms, *keys = queries + QUERIES * PADDED, *weights = keys + KEYS * PADDED; /* (32, PADDED) each */
    float *values = weights + QUERIES * PADDED;                                                     /* (KEYS, 32 COLUMNS) */
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    unsigned rest = blockIdx.x;
    const int part = rest % params.n_parts, tile = (rest /= params.n_parts) % params.n_tiles;
    const int head = (rest /= params.n_tiles) % params.n_heads, image = rest / params.n_heads;
    const int column = part * COLUMNS * LANES, first_query = tile * QUERIES;
    const int64_t stride = 3 * params.hidden;
    const T *q = (const T *)params.qkv + image * params.n_tokens * stride + head * params.head_dim;
    const T *k = q + params.hidden, *v = k + params.hidden;
    float highest[OWN_QUERIES], total[OWN_QUERIES], sums[OWN_QUERIES][COLUMNS];
#pragma unroll
    for (int r = 0; r < OWN_QUERIES; r++) {
        highest[r] = -INFINITY;
        total[r] = 0.0f; /* of the lane's own keys, until the end */
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            sums[r][c] = 0.0f;
    }
    for (int first_key = 0; first_key < params.n_tokens; first_key += KEYS) {
        float scores[OWN_QUERIES] = {};
        for (int d = 0; d < params.head_dim; d += SLAB) {
            load_tile<T, SLAB>(queries, PADDED, q, stride, first_query, params.n_tokens, d, params.head_dim);
            load_tile<T, SLAB>(keys, PADDED, k, stride, first_key, params.n_tokens, d, params.head_dim);
            __syncthreads(); /* the slab is there */
            add_scores(scores, queries, keys, warp, lane);
            __syncthreads(); /* it may be written again */
        }
#pragma unroll
        for (int r = 0; r < OWN_QUERIES; r++) {
            float score = first_key + lane < params.n_tokens ? scores[r] * params.scale : -INFINITY, top = score;
#pragma unroll
            for (int width = LANES / 2; width > 0; width /= 2)
                top = fmaxf(top, __shfl_xor_sync(EVERY_LANE, top, width));
            top = fmaxf(top, highest[r]);
            const float shrink = expf(highest[r] - top), weight = expf(score - top); /* 0 at first, for -infinity */
            highest[r] = top;
            total[r] = total[r] * shrink + weight;
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                sums[r][c] *= shrink;
            weights[(warp * OWN_QUERIES + r) * PADDED + lane] = weight;
        }
        load_tile<T, COLUMNS * LANES>(values, COLUMNS * LANES, v, stride, first_key, params.n_tokens, column, params.head_dim);
        __syncthreads(); /* weights and values are there; they are written again behind the next slab's first barrier */
        for (int key = 0; key < KEYS; key += 4) {
            float own[4][COLUMNS];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int c = 0; c < COLUMNS; c++)
                    own[i][c] = values[(key + i) * COLUMNS * LANES + c * LANES + lane];
#pragma unroll
            for (int r = 0; r < OWN_QUERIES; r++) {
                const float4 weight = *(const float4 *)(weights + (warp * OWN_QUERIES + r) * PADDED + key);
#pragma unroll
                for (int c = 0; c < COLUMNS; c++)
                    sums[r][c] += weight.x * own[0][c] + weight.y * own[1][c] + weight.z * own[2][c] + weight.w * own[3][c];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < OWN_QUERIES; r++) {
        const int query = first_query + warp * OWN_QUERIES + r;
#pragma unroll
        for (int width = LANES / 2; width > 0; width /= 2)
            total[r] += __shfl_xor_sync(EVERY_LANE, total[r], width);
        T *out = (T *)params.out + ((int64_t)image * params.n_tokens + query) * params.hidden + head * params.head_dim;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            if (query < params.n_tokens && column + c * LANES + lane < params.head_dim)
                dc_narrow(out + column + c * LANES + lane, sums[r][c] / total[r]);
    }
}

template <typename T> static void (*attention_for(int columns))(attention_params)
{
    return columns == 1   ? attention_kernel<T, 1>
           : columns == 2 ? attention_kernel<T, 2>
           : columns == 3 ? attention_kernel<T, 3>
                          : attention_kernel<T, COLUMNS_MAX>;
}

void dc_attention_cuda(const dc_backend *self, void *out, const void *qkv, float *scratch, int64_t n_heads, dc_tokens tokens)
{
    dc_cuda *cuda = dc_cuda_of(self);
    (void)scratch;
    int before = dc_cuda_enter(cuda);
    const int n_tokens = (int)tokens.n_tokens, hidden = (int)tokens.hidden, head_dim = hidden / (int)n_heads;
    const int n_columns = (head_dim + LANES - 1) / LANES, columns = n_columns < COLUMNS_MAX ? n_columns : COLUMNS_MAX;
    attention_params params = {out, qkv, n_tokens, hidden, (int)n_heads, head_dim, (unsigned)((n_tokens + QUERIES - 1) / QUERIES),
                               (unsigned)((n_columns + columns - 1) / columns), 1.0f / sqrtf((float)head_dim)};
    const size_t shared_bytes = (size_t)(3 * QUERIES * PADDED + KEYS * LANES * columns) * sizeof(float);
    dc_cuda_launch(cuda, dc_narrow_kernel(tokens.precision, attention_for<float>(columns), attention_for<half_bits>(columns),
                                          attention_for<bfloat_bits>(columns)),
                   params, tokens.n_images * n_heads * params.n_tiles * params.n_parts, ATTENTION_THREADS, shared_bytes,
                   "attention");
    dc_cuda_leave(before);
}
