/* Two words to two standard normals: Box and Muller (1958), from + - * and sqrt alone, each rounded once, so that every
 * compiler, instruction set and device gives the same bits.  Absolute error against float64 below 2e-6.
 *
 *   radius    sqrt(-2 ln u),  u an odd multiple of 2^-24: never 0, never 1, so |eps| <= 5.77
 *   angle     quarter turns: two bits name the quadrant, the rest x in (-1/2, 1/2) within it */
#ifndef DC_FORMULAS_GAUSSIAN_H
#define DC_FORMULAS_GAUSSIAN_H

#include "formulas/qualifiers.h"

/* Bits of a float and back; every compiler turns the union into a move. */
typedef union dc_float_bits {
    float f;
    uint32_t u;
} dc_float_bits;

/* sqrt(-2 ln u) with u = (2 n + 1) 2^-24, n the word's upper 23 bits. */
DC_HD float dc_gaussian_radius(uint32_t word)
{
    dc_float_bits u;
    u.f = DC_MUL((float)(int32_t)((word >> 9) * 2u + 1u), 0x1p-24f); /* exact */
    /* u = 2^k m with m in [sqrt(1/2), sqrt(2)): 0x3f3504f3 is sqrt(1/2) */
    int32_t k = (int32_t)(u.u - 0x3f3504f3u) >> 23;
    u.u -= (uint32_t)k << 23;
    float z = DC_ADD(u.f, -1.0f);
    /* ln(1 + z) = z - z^2 / 2 + z^3 P(z); P fitted by minimax over [sqrt(1/2) - 1, sqrt(2) - 1], error 6.4e-8 */
    float p = 0.0950119f;
    p = DC_ADD(DC_MUL(p, z), -0.1420182f);
    p = DC_ADD(DC_MUL(p, z), 0.1464612f);
    p = DC_ADD(DC_MUL(p, z), -0.16583455f);
    p = DC_ADD(DC_MUL(p, z), 0.19986238f);
    p = DC_ADD(DC_MUL(p, z), -0.2500113f);
    p = DC_ADD(DC_MUL(p, z), 0.33333403f);
    float z2 = DC_MUL(z, z);
    float log1p = DC_ADD(DC_MUL(DC_MUL(z2, z), p), DC_ADD(z, DC_MUL(-0.5f, z2)));
    float log_u = DC_ADD(DC_MUL((float)k, 0.693147181f), log1p);
    return DC_SQRT(DC_MUL(-2.0f, log_u));
}

/* *c, *s = radius cos and radius sin of the word's angle. */
DC_HD void dc_gaussian_pair(float *c, float *s, uint32_t radius_word, uint32_t angle_word)
{
    float radius = dc_gaussian_radius(radius_word);
    uint32_t quadrant = angle_word >> 30;
    int32_t n = (int32_t)((angle_word << 2) >> 9);                     /* 23 bits */
    float x = DC_MUL((float)(2 * n + 1 - (1 << 23)), 0x1p-24f);        /* exact, in (-1/2, 1/2) */
    float x2 = DC_MUL(x, x);
    /* sin(pi x / 2) / x and cos(pi x / 2) in x^2, minimax over [0, 1/4], errors 5e-9 and 3e-8 */
    float sine = DC_ADD(DC_MUL(-0.004602177f, x2), 0.07968023f);
    sine = DC_ADD(DC_MUL(sine, x2), -0.6459635f);
    sine = DC_MUL(DC_ADD(DC_MUL(sine, x2), 1.5707964f), x);
    float cosine = DC_ADD(DC_MUL(-0.020408353f, x2), 0.25359863f);
    cosine = DC_ADD(DC_MUL(cosine, x2), -1.233697f);
    cosine = DC_ADD(DC_MUL(cosine, x2), 1.0f);
    /* quadrants: (cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos), by bits: no branch, no rounding */
    dc_float_bits first, second;
    uint32_t swap = 0u - (quadrant & 1u);
    dc_float_bits bits_c, bits_s;
    bits_c.f = DC_MUL(radius, cosine);
    bits_s.f = DC_MUL(radius, sine);
    first.u = (bits_c.u & ~swap) | (bits_s.u & swap);
    second.u = (bits_s.u & ~swap) | (bits_c.u & swap);
    first.u ^= ((quadrant ^ (quadrant >> 1)) & 1u) << 31;
    second.u ^= (quadrant >> 1) << 31;
    *c = first.f;
    *s = second.f;
}

#endif
