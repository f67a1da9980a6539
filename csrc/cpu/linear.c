/* y = epilogue(x weight^T + bias) over packed panels.
 *
 * Rows go through in strips of one tile's height; a strip's products land in a small buffer in L1, where the epilogue
 * reads them.  Missing rows of the last strip repeat the strip's first and are not stored. */
#include "cpu/linear.h"

#include <string.h>

#include "cpu/cpu.h"
#include "cpu/exp.h"

#if DC_X86
#include <immintrin.h>
#endif

enum { ROWS_MAX = 12 };

typedef void (*tile_fn)(float *y, int64_t y_stride, const float *const *x, const float *panel, const float *bias,
                        int64_t n_in);

typedef float lanes4 __attribute__((vector_size(16), aligned(4)));
#define TILE tile_scalar
#define TARGET
#define VECTOR lanes4
#define LANES 4
#define ROWS 4
#define VECTORS 2
#define BROADCAST(value) ((lanes4){value, value, value, value})
#define LOAD(at) (*(const lanes4 *)(at))
#define STORE(at, value) (*(lanes4 *)(at) = (value))
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#include "cpu/linear_kernel.h"

#if DC_X86
#define TILE tile_avx2
#define TARGET DC_TARGET_AVX2
#define VECTOR __m256
#define LANES 8
#define ROWS 6
#define VECTORS 2
#define BROADCAST(value) _mm256_set1_ps(value)
#define LOAD(at) _mm256_loadu_ps(at)
#define STORE(at, value) _mm256_storeu_ps(at, value)
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#include "cpu/linear_kernel.h"

#define TILE tile_avx512
#define TARGET DC_TARGET_AVX512
#define VECTOR __m512
#define LANES 16
#define ROWS 12
#define VECTORS 2
#define BROADCAST(value) _mm512_set1_ps(value)
#define LOAD(at) _mm512_loadu_ps(at)
#define STORE(at, value) _mm512_storeu_ps(at, value)
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#include "cpu/linear_kernel.h"
#endif

/* One row of products v (n,) to y (n,); compiled for each instruction set so that it is vectorised for it. */
DC_INLINE void finish_row(float *y, const float *v, const float *other, int64_t n, dc_epilogue epilogue)
{
    switch (epilogue) {
    case DC_EPILOGUE_NONE:
        memcpy(y, v, (size_t)n * sizeof *y);
        break;
    case DC_EPILOGUE_GELU:
        for (int64_t i = 0; i < n; i++)
            y[i] = dc_gelu(v[i]);
        break;
    case DC_EPILOGUE_SILU:
        for (int64_t i = 0; i < n; i++)
            y[i] = dc_silu(v[i]);
        break;
    case DC_EPILOGUE_ADD:
        for (int64_t i = 0; i < n; i++)
            y[i] = v[i] + other[i];
        break;
    case DC_EPILOGUE_GATE:
        for (int64_t i = 0; i < n; i++)
            y[i] += other[i] * v[i];
        break;
    }
}

typedef void (*finish_fn)(float *y, const float *v, const float *other, int64_t n, dc_epilogue epilogue);

static void finish_scalar(float *y, const float *v, const float *other, int64_t n, dc_epilogue epilogue)
{
    finish_row(y, v, other, n, epilogue);
}

DC_TARGET_AVX2 static void finish_avx2(float *y, const float *v, const float *other, int64_t n, dc_epilogue epilogue)
{
    finish_row(y, v, other, n, epilogue);
}

DC_TARGET_AVX512 static void finish_avx512(float *y, const float *v, const float *other, int64_t n,
                                           dc_epilogue epilogue)
{
    finish_row(y, v, other, n, epilogue);
}

/* What a strip is made with. */
typedef struct kernel {
    tile_fn tile;
    finish_fn finish;
    int rows, columns;
} kernel;

static kernel choose_kernel(dc_simd simd)
{
#if DC_X86
    if (simd == DC_SIMD_AVX512)
        return (kernel){tile_avx512, finish_avx512, 12, 32};
    if (simd == DC_SIMD_AVX2)
        return (kernel){tile_avx2, finish_avx2, 6, 16};
#endif
    (void)simd;
    return (kernel){tile_scalar, finish_scalar, 4, 8};
}

static const float *other_of(const dc_finish *finish, int64_t row)
{
    if (finish->other == NULL)
        return NULL;
    int64_t index = finish->epilogue == DC_EPILOGUE_ADD ? row % finish->rows_per_other : row / finish->rows_per_other;
    return finish->other + index * finish->other_stride;
}

void dc_linear_cpu(const dc_backend *self, float *y, const float *x, const dc_linear *layer, int64_t n_rows,
                   dc_finish finish)
{
    const dc_cpu *cpu = self->context;
    kernel k = choose_kernel(cpu->simd);
    const float *rows[ROWS_MAX];
    float products[ROWS_MAX * DC_PANEL];
    for (int64_t first = 0; first < n_rows; first += k.rows) {
        int64_t count = n_rows - first < k.rows ? n_rows - first : k.rows;
        for (int r = 0; r < k.rows; r++)
            rows[r] = x + (first + (r < count ? r : 0)) * layer->n_in;
        for (int64_t column = 0; column < layer->n_out; column += DC_PANEL) {
            const float *panel = layer->panels + column * layer->n_in;
            int64_t width = layer->n_out - column < DC_PANEL ? layer->n_out - column : DC_PANEL;
            for (int64_t part = 0; part < width; part += k.columns)
                k.tile(products + part, DC_PANEL, rows, panel + part, layer->bias + column + part, layer->n_in);
            for (int64_t r = 0; r < count; r++) {
                const float *other = other_of(&finish, first + r);
                k.finish(y + (first + r) * layer->n_out + column, products + r * DC_PANEL,
                         other != NULL ? other + column : NULL, width, finish.epilogue);
            }
        }
    }
}
