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

/* Without a branch, so that loops of it become vectors. */
static inline float dc_float16_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, rest = (uint32_t)(bits & 0x7fffu) << 13, wide;
    uint32_t full = rest >= 31u << 23 ? 112u << 23 : 0; /* infinity and NaN keep a full exponent */
    uint32_t tiny = rest < 1u << 23 ? 113u << 23 : 0;   /* zero and subnormal: (2^-14 + mantissa 2^-24) - 2^-14, exact */
    float value, excess;
    wide = rest + full + (tiny != 0 ? tiny : 112u << 23);
    memcpy(&value, &wide, sizeof value);
    memcpy(&excess, &tiny, sizeof excess);
    value -= excess;
    memcpy(&wide, &value, sizeof wide);
    wide |= sign;
    memcpy(&value, &wide, sizeof value);
    return value;
}

#endif
