/* DC_HD: a function for host and device.  DC_MUL, DC_ADD, DC_FMA: one correctly rounded operation that no compiler may
 * merge with another; on the host this needs -ffp-contract=off, which setup.py and the Makefile pass. */
#ifndef DC_FORMULAS_QUALIFIERS_H
#define DC_FORMULAS_QUALIFIERS_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define DC_HD static __host__ __device__ __forceinline__
#else
#define DC_HD static inline
#endif

#ifdef __CUDA_ARCH__
#define DC_MUL(a, b) __fmul_rn(a, b)
#define DC_ADD(a, b) __fadd_rn(a, b)
#define DC_FMA(a, b, c) __fmaf_rn(a, b, c)
#define DC_SQRT(a) __fsqrt_rn(a)
#else
#define DC_MUL(a, b) ((a) * (b))
#define DC_ADD(a, b) ((a) + (b))
#define DC_FMA(a, b, c) fmaf(a, b, c)
#define DC_SQRT(a) sqrtf(a)
#endif

#endif
