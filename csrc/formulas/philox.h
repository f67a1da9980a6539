/* Philox4x32-10 (Salmon et al., SC'11) and the layout of its counter, which is a file format.
 *
 * Version 1.  eps of element e at (seed, noise_index, timestep) is number e mod 4 of the four normals made from
 *
 *   key     = (seed low word, seed high word)
 *   counter = (block low word, timestep, noise_index, DC_STREAM + block high word),   block = e / 4
 *
 * Elements are counted in the order of memory of one image, (C, H, W).  The class, the image, the batch and the device are
 * not in it: none of them can change a number.  e < 2^50. */
#ifndef DC_FORMULAS_PHILOX_H
#define DC_FORMULAS_PHILOX_H

#include "formulas/qualifiers.h"

#define DC_STREAM 0xdc010000u /* "diffcls, version 1"; its low half is free for the block's high word */

/* Multipliers and key increments of the paper's table 2: the golden ratio, and sqrt(3) - 1. */
#define DC_PHILOX_ROUNDS 10
#define DC_PHILOX_M0 0xd2511f53u
#define DC_PHILOX_M1 0xcd9e8d57u
#define DC_PHILOX_BUMP0 0x9e3779b9u
#define DC_PHILOX_BUMP1 0xbb67ae85u

typedef struct dc_words {
    uint32_t w0, w1, w2, w3;
} dc_words;

DC_HD dc_words dc_philox4x32(dc_words counter, uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < DC_PHILOX_ROUNDS; round++) {
        uint64_t product0 = (uint64_t)DC_PHILOX_M0 * counter.w0;
        uint64_t product1 = (uint64_t)DC_PHILOX_M1 * counter.w2;
        dc_words next;
        next.w0 = (uint32_t)(product1 >> 32) ^ counter.w1 ^ key0;
        next.w1 = (uint32_t)product1;
        next.w2 = (uint32_t)(product0 >> 32) ^ counter.w3 ^ key1;
        next.w3 = (uint32_t)product0;
        counter = next;
        key0 += DC_PHILOX_BUMP0;
        key1 += DC_PHILOX_BUMP1;
    }
    return counter;
}

/* The four words of one block of elements. */
DC_HD dc_words dc_noise_words(uint64_t seed, uint32_t noise_index, uint32_t timestep, uint64_t block)
{
    dc_words counter;
    counter.w0 = (uint32_t)block;
    counter.w1 = timestep;
    counter.w2 = noise_index;
    counter.w3 = DC_STREAM + (uint32_t)(block >> 32);
    return dc_philox4x32(counter, (uint32_t)seed, (uint32_t)(seed >> 32));
}

#endif
