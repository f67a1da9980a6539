/* Attention: two products on either side of a softmax, softmax(q k^T / sqrt(head_dim)) v, a strip of queries at a time. */
#include "cpu/dit_operations.h"

#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/exp.h"
#include "cpu/lanes.h"
#include "cpu/tile.h"

static const float zeros[DC_PANEL];

/* softmax of the first n of `row` in place; what follows them up to a multiple of 16 is overwritten.  Sixteen lanes: a
 * fixed order that vectorises. */
DC_INLINE void softmax_row(float *row, int64_t n, int fused)
{
    float highest[DC_LANES], total[DC_LANES] = {0}, top = -INFINITY;
    for (int lane = 0; lane < DC_LANES; lane++)
        highest[lane] = -INFINITY;
    for (int64_t i = n; i % DC_LANES != 0; i++)
        row[i] = -INFINITY; /* exp(-87), too little to change a sum of at least 1 */
    for (int64_t i = 0; i < n; i += DC_LANES)
        for (int lane = 0; lane < DC_LANES; lane++)
            highest[lane] = row[i + lane] > highest[lane] ? row[i + lane] : highest[lane];
    for (int lane = 0; lane < DC_LANES; lane++)
        top = highest[lane] > top ? highest[lane] : top;
    for (int64_t i = 0; i < n; i += DC_LANES) {
        for (int lane = 0; lane < DC_LANES; lane++) {
            row[i + lane] = dc_exp(row[i + lane] - top, fused);
            total[lane] += row[i + lane];
        }
    }
    float inverse = 1.0f / dc_lanes_sum(total);
    for (int64_t i = 0; i < n; i++)
        row[i] *= inverse;
}

typedef void (*softmax_fn)(float *row, int64_t n);

static void softmax_scalar(float *row, int64_t n)
{
    softmax_row(row, n, DC_FUSED_SCALAR);
}

DC_TARGET_AVX2 static void softmax_avx2(float *row, int64_t n)
{
    softmax_row(row, n, 1);
}

DC_TARGET_AVX512 static void softmax_avx512(float *row, int64_t n)
{
    softmax_row(row, n, 1);
}

/* keys: k^T / sqrt(head_dim) as panels (ceil(T / 32), head_dim, 32); values: v as panels (ceil(head_dim / 32), T, 32);
 * both zero-padded.  k and v have rows `stride` apart. */
static void pack_head(float *keys, float *values, const float *k, const float *v, int64_t stride, int64_t n_tokens,
                      int64_t head_dim)
{
    float scale = 1.0f / sqrtf((float)head_dim);
    for (int64_t t = 0; t < dc_panels(n_tokens) * DC_PANEL; t++)
        for (int64_t d = 0; d < head_dim; d++)
            keys[(t / DC_PANEL * head_dim + d) * DC_PANEL + t % DC_PANEL] =
                t < n_tokens ? k[t * stride + d] * scale : 0.0f;
    for (int64_t first = 0; first < head_dim; first += DC_PANEL) {
        int64_t width = dc_panel_width(head_dim, first);
        for (int64_t t = 0; t < n_tokens; t++, values += DC_PANEL) {
            memcpy(values, v + t * stride + first, (size_t)width * sizeof *values);
            memset(values + width, 0, (size_t)(DC_PANEL - width) * sizeof *values);
        }
    }
}

/* One head of one image: out and q, k, v of qkv are rows of head_dim. */
static void attend(dc_tile tile, softmax_fn softmax, float *out, const float *qkv, float *scratch, int64_t n_tokens,
                   int64_t hidden, int64_t head_dim)
{
    int64_t stride = 3 * hidden, padded = dc_panels(n_tokens) * DC_PANEL;
    float *scores = scratch, *keys = scores + DC_TILE_ROWS_MAX * padded, *values = keys + head_dim * padded;
    float products[DC_TILE_ROWS_MAX * DC_PANEL];
    const float *rows[DC_TILE_ROWS_MAX];
    pack_head(keys, values, qkv + hidden, qkv + 2 * hidden, stride, n_tokens, head_dim);
    for (int64_t first = 0; first < n_tokens; first += tile.rows) {
        int64_t count = n_tokens - first < tile.rows ? n_tokens - first : tile.rows;
        for (int r = 0; r < tile.rows; r++)
            rows[r] = qkv + (first + (r < count ? r : 0)) * stride;
        for (int64_t j = 0; j < n_tokens; j += DC_PANEL)
            dc_multiply_panel(tile, scores + j, padded, rows, keys + j * head_dim, zeros, head_dim,
                              dc_panel_width(n_tokens, j));
        for (int r = 0; r < tile.rows; r++) {
            rows[r] = scores + r * padded;
            softmax(scores + r * padded, n_tokens);
        }
        for (int64_t d = 0; d < head_dim; d += DC_PANEL) {
            int64_t width = dc_panel_width(head_dim, d);
            dc_multiply_panel(tile, products, DC_PANEL, rows, values + d * n_tokens, zeros, n_tokens, width);
            for (int64_t r = 0; r < count; r++)
                memcpy(out + (first + r) * hidden + d, products + r * DC_PANEL, (size_t)width * sizeof *out);
        }
    }
}

void dc_attention_cpu(const dc_backend *self, void *out, const void *qkv, float *scratch, int64_t n_heads,
                      dc_tokens tokens)
{
    dc_simd simd = ((const dc_cpu *)self->context)->simd;
    softmax_fn softmax = simd == DC_SIMD_AVX512 ? softmax_avx512 : simd == DC_SIMD_AVX2 ? softmax_avx2 : softmax_scalar;
    dc_tile tile = dc_tile_for(simd);
    int64_t n_tokens = tokens.n_tokens, hidden = tokens.hidden, head_dim = hidden / n_heads;
    for (int64_t image = 0; image < tokens.n_images; image++)
        for (int64_t head = 0; head < n_heads; head++)
            attend(tile, softmax, (float *)out + image * n_tokens * hidden + head * head_dim,
                   (const float *)qkv + image * n_tokens * 3 * hidden + head * head_dim, scratch, n_tokens, hidden, head_dim);
}
