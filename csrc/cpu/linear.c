/* y = epilogue(x weight^T + bias) over packed panels.
 *
 * Rows go through in strips of one tile's height; a strip's products land in a small buffer in L1, where the epilogue
 * reads them.  Missing rows of the last strip repeat the strip's first and are not stored. */
#include "cpu/dit_operations.h"

#include <string.h>

#include "cpu/cpu.h"
#include "cpu/exp.h"
#include "cpu/tile.h"

/* What other holds for one row, from `column` on. */
DC_INLINE const float *other_row(const dc_finish *finish, int64_t row, int64_t column)
{
    int64_t index = finish->epilogue == DC_EPILOGUE_ADD ? row % finish->rows_per_other
                                                        : finish->other_of[row / finish->rows_per_other];
    return finish->other + index * finish->other_stride + column;
}

/* A strip's products (count, width), rows DC_PANEL apart, to y's rows first_row ... and columns `column` ...; overwrites
 * products. */
DC_INLINE void finish_any(float *y, float *products, int64_t n_out, int64_t first_row, int64_t column, int64_t count,
                          int64_t width, const dc_finish *finish, int fused)
{
    if (finish->epilogue == DC_EPILOGUE_GELU)
        for (int64_t i = 0; i < count * DC_PANEL; i++)
            products[i] = dc_gelu(products[i], fused);
    if (finish->epilogue == DC_EPILOGUE_SILU)
        for (int64_t i = 0; i < count * DC_PANEL; i++)
            products[i] = dc_silu(products[i], fused);
    for (int64_t r = 0; r < count; r++) {
        float *to = y + (first_row + r) * n_out + column;
        const float *v = products + r * DC_PANEL;
        if (finish->epilogue == DC_EPILOGUE_ADD) {
            const float *other = other_row(finish, first_row + r, column);
            for (int64_t i = 0; i < width; i++)
                to[i] = v[i] + other[i];
        } else if (finish->epilogue == DC_EPILOGUE_GATE) {
            const float *other = other_row(finish, first_row + r, column);
            for (int64_t i = 0; i < width; i++)
                to[i] += other[i] * v[i];
        } else {
            memcpy(to, v, (size_t)width * sizeof *to);
        }
    }
}

typedef void (*finish_fn)(float *y, float *products, int64_t n_out, int64_t first_row, int64_t column, int64_t count,
                          int64_t width, const dc_finish *finish);

static void finish_scalar(float *y, float *products, int64_t n_out, int64_t first_row, int64_t column, int64_t count,
                          int64_t width, const dc_finish *finish)
{
    finish_any(y, products, n_out, first_row, column, count, width, finish, DC_FUSED_SCALAR);
}

DC_TARGET_AVX2 static void finish_avx2(float *y, float *products, int64_t n_out, int64_t first_row, int64_t column,
                                       int64_t count, int64_t width, const dc_finish *finish)
{
    finish_any(y, products, n_out, first_row, column, count, width, finish, 1);
}

DC_TARGET_AVX512 static void finish_avx512(float *y, float *products, int64_t n_out, int64_t first_row, int64_t column,
                                           int64_t count, int64_t width, const dc_finish *finish)
{
    finish_any(y, products, n_out, first_row, column, count, width, finish, 1);
}

void dc_linear_cpu(const dc_backend *self, void *y, const void *x, const dc_linear *layer, int64_t n_rows,
                   dc_finish finish)
{
    dc_simd simd = ((const dc_cpu *)self->context)->simd;
    dc_tile tile = dc_tile_for(simd);
    finish_fn finish_strip = simd == DC_SIMD_AVX512 ? finish_avx512
                             : simd == DC_SIMD_AVX2 ? finish_avx2
                                                    : finish_scalar;
    const float *rows[DC_TILE_ROWS_MAX];
    float products[DC_TILE_ROWS_MAX * DC_PANEL] = {0}; /* the columns beyond n_out may not be written */
    for (int64_t first = 0; first < n_rows; first += tile.rows) {
        int64_t count = n_rows - first < tile.rows ? n_rows - first : tile.rows;
        for (int r = 0; r < tile.rows; r++)
            rows[r] = (const float *)x + (first + (r < count ? r : 0)) * layer->n_in;
        for (int64_t column = 0; column < layer->n_out; column += DC_PANEL) {
            int64_t width = dc_panel_width(layer->n_out, column);
            dc_multiply_panel(tile, products, DC_PANEL, rows, layer->panels + column * layer->n_in,
                              layer->bias + column, layer->n_in, width);
            finish_strip(y, products, layer->n_out, first, column, count, width, &finish);
        }
    }
}
