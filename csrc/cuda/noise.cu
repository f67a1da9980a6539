/* eps of any slice of the stream: a thread makes one Philox block of four and keeps what the slice has of it. */
#include "cuda/context.h"

enum { NOISE_THREADS = 256 };

typedef struct noise_params {
    float *eps; /* (count,) */
    dc_noise_key key;
    int64_t first, count;
} noise_params;

static __global__ void __launch_bounds__(NOISE_THREADS) noise_kernel(noise_params params)
{
    int64_t block = params.first / 4 + (int64_t)blockIdx.x * NOISE_THREADS + threadIdx.x;
    int64_t e = 4 * block - params.first; /* of the slice; negative where it begins inside of a block */
    float eps[4];
    if (e >= params.count)
        return;
    dc_normals4(eps, params.key, (uint64_t)block);
    if (params.first % 4 == 0) {
        dc_write_unit(params.eps, eps, e, params.count);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (e + i >= 0 && e + i < params.count)
            params.eps[e + i] = eps[i];
}

void dc_noise_cuda(const dc_backend *self, float *eps, dc_noise_key key, int64_t first, int64_t count)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    int64_t n_blocks = (first + count + 3) / 4 - first / 4;
    noise_params params = {eps, key, first, count};
    dc_cuda_launch(cuda, noise_kernel, params, count < 1 ? 0 : (n_blocks + NOISE_THREADS - 1) / NOISE_THREADS,
                   NOISE_THREADS, 0, "noise");
    dc_cuda_leave(before);
}
