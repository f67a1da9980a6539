/* The heart of every matrix product: a tile of it, all accumulators in registers. */
#ifndef DC_CPU_TILE_H
#define DC_CPU_TILE_H

#include "cpu/simd.h"
#include "dit/operations.h"

/* y[r][j] = bias[j] + sum over k of x[r][k] * panel[k][j] for `rows` rows, y_stride apart, and `columns` columns: one
 * chain of multiply-adds in the order of k.  x: a pointer a row; panel (n_in, DC_PANEL). */
typedef struct dc_tile {
    void (*multiply)(float *y, int64_t y_stride, const float *const *x, const float *panel, const float *bias,
                     int64_t n_in);
    int rows, columns;
} dc_tile;

dc_tile dc_tile_for(dc_simd simd);

/* The first `width` columns of a panel, rounded up to whole tiles. */
static inline void dc_multiply_panel(dc_tile tile, float *y, int64_t y_stride, const float *const *x,
                                     const float *panel, const float *bias, int64_t n_in, int64_t width)
{
    for (int64_t part = 0; part < width; part += tile.columns)
        tile.multiply(y + part, y_stride, x, panel + part, bias + part, n_in);
}

#endif
