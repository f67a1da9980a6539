/* exp in float32 for the network's nonlinearities: inline, branch-free, relative error below 2e-7 in [-87, 88]. */
#ifndef DC_CPU_EXP_H
#define DC_CPU_EXP_H

#include <math.h>
#include <stdint.h>

#include "cpu/simd.h"

DC_INLINE float dc_exp(float x)
{
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    /* x = n ln 2 + r; adding and taking away 1.5 2^23 rounds to an integer */
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        uint32_t u;
        float f;
    } power = {(uint32_t)((int32_t)n + 127) << 23};
    return p * power.f;
}

DC_INLINE float dc_silu(float x)
{
    return x / (1.0f + dc_exp(-x));
}

/* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x sigmoid(2 sqrt(2 / pi) (...)) */
DC_INLINE float dc_gelu(float x)
{
    return x / (1.0f + dc_exp(-1.59576912f * (x + 0.044715f * x * x * x)));
}

#endif
