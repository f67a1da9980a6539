/* exp in float32 for the network's nonlinearities: inline, branch-free, relative error below 2e-7 in [-87, 88].
 *
 * fused, a constant of the caller: multiply-adds round once, where the instruction set has them. */
#ifndef DC_CPU_EXP_H
#define DC_CPU_EXP_H

#include <stdint.h>

#include "cpu/simd.h"

typedef union dc_float_bits {
    float f;
    uint32_t u;
} dc_float_bits;

/* condition ? a : b without a branch: compilers would follow each outcome of the clamps below on a path of its own. */
DC_INLINE float dc_select(int condition, float a, float b)
{
    dc_float_bits v = {a}, w = {b};
    uint32_t mask = -(uint32_t)condition;
    v.u = (v.u & mask) | (w.u & ~mask);
    return v.f;
}

DC_INLINE float dc_multiply_add(float a, float b, float c, int fused)
{
    return fused ? __builtin_fmaf(a, b, c) : a * b + c;
}

DC_INLINE float dc_exp(float x, int fused)
{
    x = dc_select(x < -87.0f, -87.0f, x); /* NaN stays */
    x = dc_select(x > 88.0f, 88.0f, x);
    /* x = n ln 2 + r; adding 1.5 2^23 rounds to an integer and leaves n in the lowest bits */
    dc_float_bits shifted = {dc_multiply_add(x, 1.44269504f, 12582912.0f, fused)}, power;
    float n = shifted.f - 12582912.0f;
    float r = dc_multiply_add(n, -0.693359375f, x, fused);
    r = dc_multiply_add(n, 2.12194440e-4f, r, fused);
    float p = 1.0f / 720;
    p = dc_multiply_add(p, r, 1.0f / 120, fused);
    p = dc_multiply_add(p, r, 1.0f / 24, fused);
    p = dc_multiply_add(p, r, 1.0f / 6, fused);
    p = dc_multiply_add(p, r, 0.5f, fused);
    p = dc_multiply_add(p, r, 1.0f, fused);
    p = dc_multiply_add(p, r, 1.0f, fused);
    power.u = (shifted.u << 23) + (127u << 23);
    return p * power.f;
}

DC_INLINE float dc_silu(float x, int fused)
{
    return x / (1.0f + dc_exp(-x, fused));
}

/* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x sigmoid(2 sqrt(2 / pi) x (1 + 0.044715 x^2)) */
DC_INLINE float dc_gelu(float x, int fused)
{
    float z = x * dc_multiply_add(x * x, -1.59576912f * 0.044715f, -1.59576912f, fused);
    return x / (1.0f + dc_exp(z, fused));
}

#endif
