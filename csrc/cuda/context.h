/* What the files of the CUDA backend share on the host: the context, its staging memory, and the launch. */
#ifndef DC_CUDA_CONTEXT_H
#define DC_CUDA_CONTEXT_H

#include <cuda_runtime.h>

#include "cuda/cuda.h"
#include "cuda/piece.h"

enum { DC_STAGES = 4 }; /* two operations a batch, two batches under way */

/* Pieces on their way to the device: the host writes them, a copy in the stream takes them over. */
typedef struct dc_stage {
    dc_piece *host, *device; /* (capacity,), host pinned */
    cudaEvent_t copied;      /* passed: host may be written again */
} dc_stage;

typedef struct dc_cuda_dit dc_cuda_dit;

/* What dc_backend.context points to. */
typedef struct dc_cuda {
    int device, n_multiprocessors;
    cudaStream_t stream;
    dc_stage stages[DC_STAGES];
    int64_t next_stage, capacity; /* pieces */
    dc_stage recorded[DC_GRAPHS][2]; /* noising's and eps_error's; host NULL: never needed */
    int64_t n_recorded[DC_GRAPHS];   /* pieces that every run takes over */
    int recording;                   /* the graph and 1; 0: none */
    double *sums;                 /* (n_sums,) on the device: eps_error's, one a row and block */
    int64_t n_sums;
    struct dc_cuda_dit *dit;      /* dit_context.h; NULL: no native DiT */
    cudaError_t failure; /* the first; nothing is launched after it */
    const char *failed;  /* at what */
} dc_cuda;

static inline dc_cuda *dc_cuda_of(const dc_backend *self)
{
    return (dc_cuda *)self->context;
}

/* Remembers the first failure; true when all is well. */
bool dc_cuda_note(dc_cuda *cuda, cudaError_t status, const char *what);

/* Makes the backend's device the calling thread's; returns the one that was, for dc_cuda_leave. */
int dc_cuda_enter(dc_cuda *cuda);
void dc_cuda_leave(int before);

/* Cuts groups into pieces, with enough of them for the device's multiprocessors, and sends them there.  For the target (p, q)
 * are the pieces' (a, b), else (alpha, sigma).  Returns their number, *device borrowed until DC_STAGES more were sent; 0 when
 * something failed.  While a step is recorded, as many as its rows can ever need, and *device is the graph's. */
int64_t dc_pieces_send(dc_cuda *cuda, const dc_piece **device, const dc_group *groups, int64_t n_groups, int64_t n_elem,
                       bool for_target);

/* kernel<<<n_blocks, n_threads, shared_bytes>>>(params) on the backend's stream. */
template <typename Params>
static void dc_cuda_launch(dc_cuda *cuda, void (*kernel)(Params), Params params, int64_t n_blocks, int n_threads,
                           size_t shared_bytes, const char *what)
{
    cudaLaunchConfig_t config = {};
    if (n_blocks < 1 || cuda->failure != cudaSuccess)
        return;
    if (n_blocks > INT32_MAX) { /* eight terabytes of x_t */
        dc_cuda_note(cuda, cudaErrorInvalidConfiguration, what);
        return;
    }
    config.gridDim = dim3((unsigned)n_blocks);
    config.blockDim = dim3((unsigned)n_threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = cuda->stream;
    dc_cuda_note(cuda, cudaLaunchKernelEx(&config, kernel, params), what);
}

#endif
