/* The tile of a matrix product, included once for each instruction set by cpu/tile.c, which defines
 *
 *   TILE            the function's name          TARGET          its target attribute
 *   VECTOR, LANES   the register type            ROWS, VECTORS   the tile: ROWS x (VECTORS * LANES) accumulators
 *   BROADCAST, LOAD, STORE, MULTIPLY_ADD
 *
 * y[r * y_stride ..] = bias + sum over k of x[r][k] * panel[k * 32 ..]: one chain of multiply-adds in the order of k. */
TARGET static void TILE(float *y, int64_t y_stride, const float *const *x, const float *panel, const float *bias,
                        int64_t n_in)
{
    VECTOR sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            sum[r][v] = LOAD(bias + v * LANES);
    for (int64_t k = 0; k < n_in; k++) {
        VECTOR weight[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            weight[v] = LOAD(panel + k * DC_PANEL + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            VECTOR value = BROADCAST(x[r][k]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sum[r][v] = MULTIPLY_ADD(value, weight[v], sum[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            STORE(y + r * y_stride + v * LANES, sum[r][v]);
}

#undef TILE
#undef TARGET
#undef VECTOR
#undef LANES
#undef ROWS
#undef VECTORS
#undef BROADCAST
#undef LOAD
#undef STORE
#undef MULTIPLY_ADD
