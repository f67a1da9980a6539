/* x_t = alpha * x_start + sigma * eps: a thread makes four elements once and writes them to every row of the piece. */
#include "cuda/context.h"

enum { NOISING_THREADS = DC_BLOCK / 4 };

typedef struct noising_params {
    float *x_t; /* (rows, n_elem) */
    const dc_piece *pieces;
    int64_t n_elem;
    unsigned n_blocks; /* of elements */
} noising_params;

static __global__ void __launch_bounds__(NOISING_THREADS) noising_kernel(noising_params params)
{
    const dc_piece piece = params.pieces[blockIdx.x / params.n_blocks];
    int64_t e = (int64_t)(blockIdx.x % params.n_blocks) * DC_BLOCK + 4 * threadIdx.x;
    float x_t[4];
    if (e >= params.n_elem)
        return;
    dc_mix4(x_t, &piece, e, params.n_elem);
    for (int64_t row = piece.first_row; row < piece.first_row + piece.n_rows; row++)
        dc_write4(params.x_t + row * params.n_elem, x_t, e, params.n_elem);
}

void dc_noising_cuda(const dc_backend *self, float *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    noising_params params = {x_t, NULL, n_elem, (unsigned)dc_blocks(n_elem)};
    int64_t n_pieces = dc_pieces_send(cuda, &params.pieces, groups, n_groups, n_elem, false);
    dc_cuda_launch(cuda, noising_kernel, params, n_pieces * dc_blocks(n_elem), NOISING_THREADS, 0, "noising");
    dc_cuda_leave(before);
}
