/* Two words to two standard normals: Box and Muller (1958), from + - * and sqrt alone, each rounded once, so that every
 * compiler, instruction set and device gives the same bits.  Absolute error against float64 below 2e-6.
 *
 *   radius    sqrt(-2 ln u),  u an odd multiple of 2^-24: never 0, never 1, so |eps| <= 5.77
 *   angle     quarter turns: two bits name the quadrant, the rest x in (-1/2, 1/2) within it
 *
 * diffcls/reference.py has the same in NumPy, spelled out; this is arranged for few instructions.  Factors that are powers
 * of two round nothing, wherever they stand. */
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
    dc_float_bits u, m;
    u.u = word >> 9 | 0x3f800000u;                  /* 1 + n 2^-23 */
    u.f = DC_ADD(DC_ADD(u.f, -1.0f), 0x1p-24f);     /* exact */
    uint32_t offset = u.u - 0x3f3504f3u;            /* u = 2^k m with m in [sqrt(1/2), sqrt(2)), 0x3f3504f3 its lower end */
    float k = (float)((int32_t)offset >> 23);
    m.u = u.u - (offset & 0xff800000u);
    float z = DC_ADD(m.f, -1.0f), z2 = DC_MUL(z, z);
    /* ln(1 + z) = z - z^2 / 2 + z^3 P(z); P by minimax over [sqrt(1/2) - 1, sqrt(2) - 1], error 6.4e-8; q is -2 P */
    float q = -2.0f * 0.0950119f;
    q = DC_ADD(DC_MUL(q, z), -2.0f * -0.1420182f);
    q = DC_ADD(DC_MUL(q, z), -2.0f * 0.1464612f);
    q = DC_ADD(DC_MUL(q, z), -2.0f * -0.16583455f);
    q = DC_ADD(DC_MUL(q, z), -2.0f * 0.19986238f);
    q = DC_ADD(DC_MUL(q, z), -2.0f * -0.2500113f);
    q = DC_ADD(DC_MUL(q, z), -2.0f * 0.33333403f);
    float log_m = DC_ADD(DC_MUL(DC_MUL(z2, z), q), DC_ADD(DC_MUL(-2.0f, z), z2)); /* -2 ln m */
    return DC_SQRT(DC_ADD(DC_MUL(k, -2.0f * 0.693147181f), log_m));
}

/* *c, *s = radius cos and radius sin of the word's angle. */
DC_HD void dc_gaussian_pair(float *c, float *s, uint32_t radius_word, uint32_t angle_word)
{
    float radius = dc_gaussian_radius(radius_word);
    dc_float_bits x, first, second;
    x.u = (angle_word >> 7 & 0x7fffffu) | 0x3f800000u; /* 1 + n 2^-23, n the 23 bits below the quadrant */
    x.f = DC_ADD(DC_ADD(x.f, -1.5f), 0x1p-24f);        /* exact, in (-1/2, 1/2) */
    float x2 = DC_MUL(x.f, x.f);
    /* sin(pi x / 2) / x and cos(pi x / 2) in x^2, minimax over [0, 1/4], errors 5e-9 and 3e-8 */
    float sine = DC_ADD(DC_MUL(-0.004602177f, x2), 0.07968023f);
    sine = DC_ADD(DC_MUL(sine, x2), -0.6459635f);
    sine = DC_MUL(DC_ADD(DC_MUL(sine, x2), 1.5707964f), x.f);
    float cosine = DC_ADD(DC_MUL(-0.020408353f, x2), 0.25359863f);
    cosine = DC_ADD(DC_MUL(cosine, x2), -1.233697f);
    cosine = DC_ADD(DC_MUL(cosine, x2), 1.0f);
    first.f = DC_MUL(radius, cosine);
    second.f = DC_MUL(radius, sine);
    /* quadrants: (cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos), by bits: the lower one swaps, the upper one turns the
     * second's sign, both together the first's */
    uint32_t next = angle_word << 1, swap = (uint32_t)((int32_t)next >> 31);
    uint32_t exchange = (first.u ^ second.u) & swap;
    first.u ^= exchange ^ ((angle_word ^ next) & 0x80000000u);
    second.u ^= exchange ^ (angle_word & 0x80000000u);
    *c = first.f;
    *s = second.f;
}

#endif
