/* wrong_kernels.cu's kernels by name. */
#ifndef DC_TEST_WRONG_KERNELS_H
#define DC_TEST_WRONG_KERNELS_H

#include <cuda_runtime.h>

typedef struct wrong_params {
    float *out;        /* (64,) */
    const float *in;   /* (128,), the first half written */
    const float *host; /* (64,) host memory */
} wrong_params;

void wrong_launch(const char *name, cudaStream_t stream, unsigned n_blocks, wrong_params params);

/* What host code must not do: read device memory; what nothing must: store a vector anywhere. */
float host_reads(const float *memory);
void misaligned(float *memory);

#endif
