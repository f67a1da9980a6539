/* Kernels that are wrong on purpose, each in one way, for test_shim.cc; and some that are right.  Compiled like csrc/cuda. */
#include "wrong_kernels.h"

enum { THREADS = 64 };

extern __shared__ __align__(16) float dc_terms[];

typedef void (*kernel)(wrong_params);

static __global__ void right(wrong_params params)
{
    dc_terms[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    params.out[threadIdx.x] = dc_terms[THREADS - 1 - threadIdx.x];
}

static __global__ void no_barrier(wrong_params params)
{
    dc_terms[threadIdx.x] = (float)threadIdx.x;
    params.out[threadIdx.x] = dc_terms[THREADS - 1 - threadIdx.x];
}

static __global__ void write_after_read(wrong_params params)
{
    dc_terms[threadIdx.x] = 1.0f;
    __syncthreads();
    params.out[threadIdx.x] = dc_terms[THREADS - 1 - threadIdx.x];
    dc_terms[threadIdx.x] = 2.0f;
}

static __global__ void two_writers(wrong_params params)
{
    params.out[threadIdx.x / 2] = 1.0f;
}

static __global__ void blocks_meet(wrong_params params)
{
    params.out[threadIdx.x] = (float)blockIdx.x;
}

static __global__ void unwritten_shared(wrong_params params)
{
    if (threadIdx.x > 0)
        dc_terms[threadIdx.x] = 1.0f;
    __syncthreads();
    params.out[threadIdx.x] = dc_terms[0];
}

static __global__ void unwritten_global(wrong_params params)
{
    params.out[threadIdx.x] = params.in[THREADS + threadIdx.x];
}

static __global__ void divergent(wrong_params params)
{
    if (threadIdx.x < 40)
        __syncthreads();
    params.out[threadIdx.x] = 1.0f;
}

static __global__ void two_barriers(wrong_params params)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    params.out[threadIdx.x] = 1.0f;
}

static __global__ void past_the_end(wrong_params params)
{
    params.out[threadIdx.x + 1] = 1.0f;
}

static __global__ void past_shared(wrong_params params)
{
    dc_terms[2 * THREADS + threadIdx.x] = 1.0f;
    params.out[threadIdx.x] = 1.0f;
}

static __global__ void of_the_host(wrong_params params)
{
    params.out[threadIdx.x] = params.host[threadIdx.x];
}

static __global__ void short_mask(wrong_params params)
{
    params.out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, threadIdx.x % 16);
}

static __global__ void lanes_left(wrong_params params)
{
    if (threadIdx.x % 32 == 31)
        return;
    params.out[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 0);
}

static __global__ void left_out(wrong_params params)
{
    if (threadIdx.x % 32 < 16)
        params.out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}

static __global__ void ballot(wrong_params params)
{
    unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
    float next = __shfl_down_sync(0xffffffffu, (float)threadIdx.x, 1);
    params.out[threadIdx.x] = odd == 0xaaaaaaaau ? next : -1.0f;
}

void wrong_launch(const char *name, cudaStream_t stream, unsigned n_blocks, wrong_params params)
{
    static const struct {
        const char *name;
        kernel run;
    } kernels[] = {
        {"right", right}, {"no_barrier", no_barrier}, {"write_after_read", write_after_read}, {"two_writers", two_writers},
        {"blocks_meet", blocks_meet}, {"unwritten_shared", unwritten_shared}, {"unwritten_global", unwritten_global},
        {"divergent", divergent}, {"two_barriers", two_barriers}, {"past_the_end", past_the_end}, {"past_shared", past_shared},
        {"of_the_host", of_the_host}, {"short_mask", short_mask}, {"lanes_left", lanes_left}, {"left_out", left_out},
        {"ballot", ballot},
    };
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(n_blocks);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = 2 * THREADS * sizeof(float);
    config.stream = stream;
    for (const auto &item : kernels)
        if (strcmp(item.name, name) == 0)
            (void)cudaLaunchKernelEx(&config, item.run, params);
}

float host_reads(const float *memory)
{
    return *memory;
}

void misaligned(float *memory)
{
    float4 four = {};
    *(float4 *)memory = four;
}
