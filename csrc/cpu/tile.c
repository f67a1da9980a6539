#include "cpu/tile.h"

#if DC_X86
#include <immintrin.h>
#endif

/* what every CPU of the architecture has */
#if defined(__aarch64__)
#include <arm_neon.h>
enum { SCALAR_ROWS = 8 };
#define VECTOR float32x4_t
#define BROADCAST(value) vdupq_n_f32(value)
#define LOAD(at) vld1q_f32(at)
#define STORE(at, value) vst1q_f32(at, value)
#define MULTIPLY_ADD(a, b, c) vfmaq_f32(c, a, b)
#else
enum { SCALAR_ROWS = 4 };
typedef float lanes4 __attribute__((vector_size(16), aligned(4)));
#define VECTOR lanes4
#define BROADCAST(value) ((lanes4){value, value, value, value})
#define LOAD(at) (*(const lanes4 *)(at))
#define STORE(at, value) (*(lanes4 *)(at) = (value))
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif
#define TILE tile_scalar
#define TARGET
#define LANES 4
#define ROWS SCALAR_ROWS
#define VECTORS 2
#include "cpu/tile_kernel.h"

#if DC_X86
#define TILE tile_avx2
#define TARGET DC_TARGET_AVX2
#define VECTOR __m256
#define LANES 8
#define ROWS 6
#define VECTORS 2
#define BROADCAST(value) _mm256_set1_ps(value)
#define LOAD(at) _mm256_loadu_ps(at)
#define STORE(at, value) _mm256_storeu_ps(at, value)
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#include "cpu/tile_kernel.h"

#define TILE tile_avx512
#define TARGET DC_TARGET_AVX512
#define VECTOR __m512
#define LANES 16
#define ROWS 8
#define VECTORS 2
#define BROADCAST(value) _mm512_set1_ps(value)
#define LOAD(at) _mm512_loadu_ps(at)
#define STORE(at, value) _mm512_storeu_ps(at, value)
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#include "cpu/tile_kernel.h"
#endif

dc_tile dc_tile_for(dc_simd simd)
{
#if DC_X86
    if (simd == DC_SIMD_AVX512)
        return (dc_tile){tile_avx512, 8, 32};
    if (simd == DC_SIMD_AVX2)
        return (dc_tile){tile_avx2, 6, 16};
#endif
    (void)simd;
    return (dc_tile){tile_scalar, SCALAR_ROWS, 8};
}
