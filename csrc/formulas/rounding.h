/* float32 to the sixteen bits of float16 and bfloat16, to nearest, ties to even; what is not a number becomes 0x7fff, as the
 * device's own instruction has it.  Integers only, so every twin gives the same bits. */
#ifndef DC_FORMULAS_ROUNDING_H
#define DC_FORMULAS_ROUNDING_H

#include "formulas/qualifiers.h"

typedef union dc_rounding_bits {
    float f;
    uint32_t u;
} dc_rounding_bits;

DC_HD uint16_t dc_round_bfloat16(float value)
{
    dc_rounding_bits bits;
    bits.f = value;
    if ((bits.u & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits.u + 0x7fffu + (bits.u >> 16 & 1u)) >> 16);
}

DC_HD uint16_t dc_round_float16(float value)
{
    dc_rounding_bits bits;
    bits.f = value;
    uint32_t size = bits.u & 0x7fffffffu, sign = bits.u >> 16 & 0x8000u;
    if (size > 0x7f800000u)
        return 0x7fff;
    if (size >= 0x477ff000u) /* 65520, halfway to 2^16, and more: infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (size < 0x33000000u) /* below 2^-25, half of the smallest */
        return (uint16_t)sign;
    if (size < 0x38800000u) { /* below 2^-14: subnormal, in units of 2^-24 */
        uint32_t mantissa = (size & 0x7fffffu) | 0x800000u, shift = 126u - (size >> 23);
        uint32_t whole = mantissa >> shift, rest = mantissa & ((1u << shift) - 1u), half = 1u << (shift - 1u);
        return (uint16_t)(sign | (whole + (rest > half || (rest == half && (whole & 1u)))));
    }
    return (uint16_t)(sign | ((size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13));
}

#endif
