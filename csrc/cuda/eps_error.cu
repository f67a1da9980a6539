/* Mean of rho(prediction - target) a row, target = p * x_start + q * eps with eps made again from its counter.
 *
 * A block of threads keeps the target of its 1024 elements in registers and sweeps the rows of its piece over it, four at a
 * time: every prediction is read once, sixteen bytes a thread.  Terms change hands in shared memory, so that each warp adds
 * up one row and its 32 lanes are the lanes of backend.h's order.  A second kernel adds up the blocks. */
#include "cuda/context.h"

enum { LANES = 32, ROWS = 4, EPS_ERROR_THREADS = ROWS * LANES, PER_THREAD = DC_BLOCK / EPS_ERROR_THREADS, MEAN_THREADS = 128 };

static const unsigned EVERY_LANE = 0xffffffffu;

typedef struct eps_error_params {
    double *sums; /* (rows, n_blocks) */
    const void *prediction;
    int64_t row_stride, n_positions, position_stride; /* elements, as dc_prediction's */
    const dc_piece *pieces;
    int64_t n_elem;
    unsigned n_blocks;
    dc_loss loss;
    float delta;
} eps_error_params;

typedef struct mean_params {
    double *errors;     /* (n_rows,) */
    const double *sums; /* (n_rows, n_blocks) */
    int64_t n_rows, n_blocks, n_elem;
} mean_params;

/* ---- one block of elements ----------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float term(float prediction, float target, dc_loss loss, float delta)
{
    float difference = DC_ADD(prediction, -target);
    return loss == DC_LOSS_L2   ? dc_loss_l2(difference)
           : loss == DC_LOSS_L1 ? dc_loss_l1(difference)
                                : dc_loss_huber(difference, delta);
}

/* out (4,): the target's elements e .. e + 3. */
static __device__ __forceinline__ void target4(float *out, const dc_piece *piece, int64_t e, int64_t n_elem)
{
    if (piece->b != 0.0f) {
        dc_mix4(out, piece, e, n_elem);
        return;
    }
    dc_read4(out, piece->x_start, e, n_elem); /* x_start itself: no noise to make */
#pragma unroll
    for (int i = 0; i < 4; i++)
        out[i] = DC_MUL(piece->a, out[i]);
}

/* A warp's sum of terms (DC_BLOCK,): its lanes are those of the order, and they meet in the float64 tree; lane 0 has it. */
static __device__ __forceinline__ double sum_block(const float *terms, int lane)
{
    float sum = 0.0f;
#pragma unroll
    for (int e = 0; e < DC_BLOCK; e += LANES)
        sum = DC_ADD(sum, terms[e + lane]);
    double total = sum;
#pragma unroll
    for (int width = LANES / 2; width > 0; width /= 2)
        total += __shfl_down_sync(EVERY_LANE, total, width);
    return total;
}

/* Whether rows have their channels last is a constant, so that the kernel of dense rows does not pay for it. */
template <typename T, bool IS_LAST>
static __global__ void __launch_bounds__(EPS_ERROR_THREADS) eps_error_kernel(eps_error_params params)
{
    extern __shared__ __align__(16) float dc_terms[]; /* (ROWS, DC_BLOCK) */
    const dc_piece piece = params.pieces[blockIdx.x / params.n_blocks];
    const unsigned block = blockIdx.x % params.n_blocks;
    const int thread = threadIdx.x, warp = thread / LANES, lane = thread % LANES;
    const int64_t n_elem = params.n_elem;
    float target[PER_THREAD], prediction[ROWS][PER_THREAD];
    if (piece.n_rows == 0)
        return;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i += 4) { /* unit i / DC_UNIT of this thread, and in it the fours */
        int in_block = (i / DC_UNIT<T> * EPS_ERROR_THREADS + thread) * DC_UNIT<T> + i % DC_UNIT<T>;
        target4(target + i, &piece, (int64_t)block * DC_BLOCK + in_block, n_elem);
    }
    for (int64_t row = 0; row < piece.n_rows; row += ROWS) {
        const int rows = piece.n_rows - row < ROWS ? (int)(piece.n_rows - row) : ROWS;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const T *data = (const T *)params.prediction + (piece.first_row + row + r) * params.row_stride;
            const bool is_aligned = dc_is_aligned(data);
#pragma unroll
            for (int i = 0; i < PER_THREAD && r < rows; i += DC_UNIT<T>) {
                int in_block = (i / DC_UNIT<T> * EPS_ERROR_THREADS + thread) * DC_UNIT<T>;
                int64_t e = (int64_t)block * DC_BLOCK + in_block;
                if (IS_LAST)
                    dc_read_last(prediction[r] + i, data, e, n_elem, params.n_positions, params.position_stride);
                else
                    dc_read_unit(prediction[r] + i, data, e, n_elem, is_aligned);
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int i = 0; i < PER_THREAD && r < rows; i += 4) {
                int in_block = (i / DC_UNIT<T> * EPS_ERROR_THREADS + thread) * DC_UNIT<T> + i % DC_UNIT<T>;
                float terms[4];
#pragma unroll
                for (int j = 0; j < 4; j++) /* past the end a term is 0, which changes no sum */
                    terms[j] = (int64_t)block * DC_BLOCK + in_block + j < n_elem
                                   ? term(prediction[r][i + j], target[i + j], params.loss, params.delta)
                                   : 0.0f;
                *(float4 *)(dc_terms + r * DC_BLOCK + in_block) = dc_pack4(terms);
            }
        }
        __syncthreads();
        if (warp < rows) {
            double sum = sum_block(dc_terms + warp * DC_BLOCK, lane);
            if (lane == 0)
                params.sums[(piece.first_row + row + warp) * params.n_blocks + block] = sum;
        }
        __syncthreads(); /* terms are written again */
    }
}

/* A warp a row: blocks are read side by side and added in order. */
static __global__ void __launch_bounds__(MEAN_THREADS) mean_kernel(mean_params params)
{
    const int64_t row = (int64_t)blockIdx.x * (MEAN_THREADS / LANES) + threadIdx.x / LANES;
    const int lane = threadIdx.x % LANES;
    if (row >= params.n_rows)
        return;
    const double *sums = params.sums + row * params.n_blocks;
    double total = 0.0;
    for (int64_t first = 0; first < params.n_blocks; first += LANES) {
        const int count = params.n_blocks - first < LANES ? (int)(params.n_blocks - first) : LANES;
        const double sum = lane < count ? sums[first + lane] : 0.0;
        for (int i = 0; i < count; i++)
            total += __shfl_sync(EVERY_LANE, sum, i);
    }
    if (lane == 0)
        params.errors[row] = total / (double)params.n_elem;
}

/* ---- launch -------------------------------------------------------------------------------------------------------- */

typedef void (*eps_error_entry)(eps_error_params);

template <typename T> static eps_error_entry kernel_of(dc_prediction prediction)
{
    return prediction.n_positions != 0 ? eps_error_kernel<T, true> : eps_error_kernel<T, false>;
}

void dc_eps_error_cuda(const dc_backend *self, double *errors, dc_prediction prediction, const dc_group *groups,
                       int64_t n_groups, int64_t n_elem, dc_loss loss, float delta)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    int64_t n_blocks = dc_blocks(n_elem), n_rows = 0;
    const dc_piece *pieces = NULL;
    int64_t n_pieces = dc_pieces_send(cuda, &pieces, groups, n_groups, n_elem, true);
    eps_error_params params = {cuda->sums,
                               prediction.data,
                               prediction.row_stride,
                               prediction.n_positions,
                               prediction.position_stride,
                               pieces,
                               n_elem,
                               (unsigned)n_blocks,
                               loss,
                               delta};
    eps_error_entry kernel = prediction.dtype == DC_FLOAT32   ? kernel_of<float>(prediction)
                                       : prediction.dtype == DC_FLOAT64 ? kernel_of<double>(prediction)
                                       : prediction.dtype == DC_FLOAT16 ? kernel_of<half_bits>(prediction)
                                                                        : kernel_of<bfloat_bits>(prediction);
    for (int64_t g = 0; g < n_groups; g++)
        n_rows += groups[g].n_rows;
    dc_cuda_launch(cuda, kernel, params, n_pieces * n_blocks, EPS_ERROR_THREADS, ROWS * DC_BLOCK * sizeof(float),
                   "eps_error");
    mean_params mean = {errors, cuda->sums, n_rows, n_blocks, n_elem};
    const int rows_a_block = MEAN_THREADS / LANES;
    dc_cuda_launch(cuda, mean_kernel, mean, (n_rows + rows_a_block - 1) / rows_a_block, MEAN_THREADS, 0, "eps_error");
    dc_cuda_leave(before);
}
