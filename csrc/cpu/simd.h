/* Instruction sets, chosen at run time.  A kernel is one inline body in plain C, compiled once for each set: the compiler
 * vectorises it, and since every operation is rounded alone the sets agree bit for bit. */
#ifndef DC_CPU_SIMD_H
#define DC_CPU_SIMD_H

typedef enum dc_simd { DC_SIMD_SCALAR = 0, DC_SIMD_AVX2, DC_SIMD_AVX512 } dc_simd;

/* Whether code for no particular instruction set has a fused multiply-add. */
#ifdef __FP_FAST_FMAF
#define DC_FUSED_SCALAR 1
#else
#define DC_FUSED_SCALAR 0
#endif

#define DC_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define DC_X86 1
#define DC_TARGET_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define DC_TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"), min_vector_width(512)))
#else
#define DC_TARGET_AVX512 \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512")))
#endif
#else
#define DC_X86 0
#define DC_TARGET_AVX2
#define DC_TARGET_AVX512
#endif

#endif
