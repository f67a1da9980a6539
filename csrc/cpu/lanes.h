/* Sums in sixteen lanes: a fixed order that every instruction set vectorises. */
#ifndef DC_CPU_LANES_H
#define DC_CPU_LANES_H

#include "cpu/simd.h"

enum { DC_LANES = 16 };

/* The lanes' sum as a tree: lane i with i + 8, then + 4, + 2, + 1; lanes (16,) is overwritten. */
DC_INLINE float dc_lanes_sum(float *lanes)
{
    for (int i = 0; i < 8; i++)
        lanes[i] += lanes[i + 8];
    for (int i = 0; i < 4; i++)
        lanes[i] += lanes[i + 4];
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

#endif
