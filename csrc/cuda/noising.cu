/* x_t = alpha * x_start + sigma * eps: a thread makes a unit of elements once and writes it to every row of the piece, in the
 * dtype and at the place where the denoiser wants it. */
#include "cuda/context.h"

typedef struct noising_params {
    void *x_t; /* (rows, n_elem) */
    const dc_piece *pieces;
    int64_t n_elem;
    unsigned n_blocks;   /* of elements */
    int64_t n_positions; /* 0: in the order of x_start; else channels last */
} noising_params;

template <typename T> constexpr int NOISING_THREADS = DC_BLOCK / DC_UNIT<T>;

/* Whether rows have their channels last is a constant, so that the kernel of dense rows does not pay for it. */
template <typename T, bool IS_LAST>
static __global__ void __launch_bounds__(NOISING_THREADS<T>) noising_kernel(noising_params params)
{
    const dc_piece piece = params.pieces[blockIdx.x / params.n_blocks];
    const int64_t n_elem = params.n_elem;
    int64_t e = (int64_t)(blockIdx.x % params.n_blocks) * DC_BLOCK + DC_UNIT<T> * threadIdx.x;
    float x_t[DC_UNIT<T>];
    if (e >= n_elem || piece.n_rows == 0)
        return;
#pragma unroll
    for (int i = 0; i < DC_UNIT<T>; i += 4)
        dc_mix4(x_t + i, &piece, e + i, n_elem);
    for (int64_t row = piece.first_row; row < piece.first_row + piece.n_rows; row++) {
        T *data = (T *)params.x_t + row * n_elem;
        if (IS_LAST)
            dc_write_last(data, x_t, e, n_elem, params.n_positions);
        else
            dc_write_unit(data, x_t, e, n_elem);
    }
}

template <typename T> static void launch(dc_cuda *cuda, noising_params params, int64_t n_blocks)
{
    dc_cuda_launch(cuda, params.n_positions != 0 ? noising_kernel<T, true> : noising_kernel<T, false>, params, n_blocks,
                   NOISING_THREADS<T>, 0, "noising");
}

void dc_noising_cuda(const dc_backend *self, void *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem,
                     dc_layout layout)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    noising_params params = {x_t, NULL, n_elem, (unsigned)dc_blocks(n_elem), layout.n_positions};
    int64_t n_blocks = dc_pieces_send(cuda, &params.pieces, groups, n_groups, n_elem, false) * dc_blocks(n_elem);
    if (layout.dtype == DC_FLOAT32)
        launch<float>(cuda, params, n_blocks);
    else if (layout.dtype == DC_FLOAT64)
        launch<double>(cuda, params, n_blocks);
    else if (layout.dtype == DC_FLOAT16)
        launch<half_bits>(cuda, params, n_blocks);
    else
        launch<bfloat_bits>(cuda, params, n_blocks);
    dc_cuda_leave(before);
}
