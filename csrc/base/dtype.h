/* Element types on the wire, and float16 / bfloat16 to float32 (exact). */
#ifndef DC_BASE_DTYPE_H
#define DC_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum dc_dtype { DC_FLOAT32 = 0, DC_FLOAT64, DC_FLOAT16, DC_BFLOAT16 } dc_dtype;

static inline size_t dc_dtype_bytes(dc_dtype dtype)
{
    return dtype == DC_FLOAT64 ? 8 : dtype == DC_FLOAT32 ? 4 : 2;
}

static inline float dc_bfloat16_to_float(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static inline float dc_float16_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu, wide;
    float value;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 is exact in float32 */
        value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    wide = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    memcpy(&value, &wide, sizeof value);
    return value;
}

#endif
