/* The DiT's operations beside product and attention: layer norm with modulation, embeddings, patches. */
#include "cpu/dit_operations.h"

#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/exp.h"
#include "cpu/lanes.h"

/* ---- layer norm and modulation ----------------------------------------------------------------------------------- */

/* Sum of (x - centre)^power, power 1 or 2, in sixteen lanes: a fixed order that vectorises. */
DC_INLINE float lane_sum(const float *x, float centre, int power, int64_t n)
{
    float lanes[DC_LANES] = {0};
    int64_t i = 0;
    for (; i + DC_LANES <= n; i += DC_LANES) {
        for (int lane = 0; lane < DC_LANES; lane++) {
            float d = x[i + lane] - centre;
            lanes[lane] += power == 1 ? d : d * d;
        }
    }
    float sum = dc_lanes_sum(lanes);
    for (; i < n; i++)
        sum += power == 1 ? x[i] - centre : (x[i] - centre) * (x[i] - centre);
    return sum;
}

DC_INLINE void modulate_row(float *out, const float *x, const float *shift, const float *scale, float eps,
                            int64_t n)
{
    float mean = lane_sum(x, 0.0f, 1, n) / (float)n;
    float inverse = 1.0f / sqrtf(lane_sum(x, mean, 2, n) / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * inverse * (1.0f + scale[i]) + shift[i];
}

/* ---- one copy of each for every instruction set ------------------------------------------------------------------ */

typedef void (*modulate_fn)(float *out, const float *x, const float *shift, const float *scale, float eps,
                            int64_t n);

static void modulate_scalar(float *out, const float *x, const float *shift, const float *scale, float eps,
                            int64_t n)
{
    modulate_row(out, x, shift, scale, eps, n);
}

DC_TARGET_AVX2 static void modulate_avx2(float *out, const float *x, const float *shift, const float *scale,
                                          float eps, int64_t n)
{
    modulate_row(out, x, shift, scale, eps, n);
}

DC_TARGET_AVX512 static void modulate_avx512(float *out, const float *x, const float *shift, const float *scale,
                                            float eps, int64_t n)
{
    modulate_row(out, x, shift, scale, eps, n);
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static void modulate_cpu(const dc_backend *self, void *out, const float *x, const float *shift, const float *scale,
                         dc_choice choice, float eps, dc_tokens tokens)
{
    dc_simd simd = ((const dc_cpu *)self->context)->simd;
    int64_t hidden = tokens.hidden;
    modulate_fn modulate = simd == DC_SIMD_AVX512 ? modulate_avx512
                           : simd == DC_SIMD_AVX2 ? modulate_avx2
                                                  : modulate_scalar;
    for (int64_t row = 0; row < tokens.n_images * tokens.n_tokens; row++) {
        int64_t chosen = choice.row_of[row / tokens.n_tokens] * choice.stride;
        modulate((float *)out + row * hidden, x + row * hidden, shift + chosen, scale + chosen, eps, hidden);
    }
}

static void timestep_embedding_cpu(const dc_backend *self, void *out, const double *time, int64_t n_images,
                                   int64_t size, int shift, dc_precision precision)
{
    (void)self, (void)precision;
    int64_t half = size / 2;
    for (int64_t n = 0; n < n_images; n++) {
        float *row = (float *)out + n * size;
        for (int64_t i = 0; i < half; i++) {
            float frequency = expf((float)i * (float)(-log(10000.0) / (double)(half - shift)));
            float angle = (float)time[n] * frequency;
            row[i] = cosf(angle);
            row[half + i] = sinf(angle);
        }
    }
}

static void condition_cpu(const dc_backend *self, void *c, const float *of_time, const float *table,
                          const int64_t *time_of_pair, const int64_t *class_of_pair, int64_t n_pairs, int64_t hidden,
                          dc_precision precision)
{
    (void)self, (void)precision;
    for (int64_t pair = 0; pair < n_pairs; pair++) {
        const float *time_row = of_time + time_of_pair[pair] * hidden, *class_row = table + class_of_pair[pair] * hidden;
        float *row = (float *)c + pair * hidden;
        for (int64_t i = 0; i < hidden; i++)
            row[i] = dc_silu(time_row[i] + class_row[i], DC_FUSED_SCALAR);
    }
}

static void patchify_cpu(const dc_backend *self, void *patches, const float *x_t, const int64_t *row_of, int64_t n_images,
                         dc_picture picture, dc_precision precision)
{
    (void)self, (void)precision;
    int64_t size = picture.size, p = picture.patch, side = size / p;
    float *to = patches;
    for (int64_t n = 0; n < n_images; n++) {
        const float *x = x_t + row_of[n] * picture.channels * size * size;
        for (int64_t h = 0; h < side; h++)
            for (int64_t w = 0; w < side; w++)
                for (int64_t c = 0; c < picture.channels; c++)
                    for (int64_t i = 0; i < p; i++, to += p)
                        memcpy(to, x + (c * size + h * p + i) * size + w * p, (size_t)p * sizeof *x);
    }
}

static void unpatchify_cpu(const dc_backend *self, float *out, const float *tokens, int64_t n_images, dc_picture picture)
{
    (void)self;
    int64_t size = picture.size, p = picture.patch, side = size / p, channels = picture.channels;
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t h = 0; h < side; h++)
            for (int64_t w = 0; w < side; w++)
                for (int64_t i = 0; i < p; i++)
                    for (int64_t j = 0; j < p; j++)
                        for (int64_t c = 0; c < channels; c++)
                            out[((n * channels + c) * size + h * p + i) * size + w * p + j] = *tokens++;
}

static void gather_cpu(const dc_backend *self, float *out, const float *from, const int64_t *row_of, int64_t n_rows,
                       int64_t n_elem)
{
    (void)self;
    for (int64_t n = 0; n < n_rows; n++)
        memcpy(out + n * n_elem, from + row_of[n] * n_elem, (size_t)n_elem * sizeof *out);
}

enum { CHUNK_TOKENS = 128 }; /* a multiple of every tile's height; with D = 128 about half a megabyte of activations */

const dc_dit_operations dc_cpu_dit_operations = {
    .chunk_tokens = CHUNK_TOKENS,
    .linear = dc_linear_cpu,
    .modulate = modulate_cpu,
    .attention = dc_attention_cpu,
    .timestep_embedding = timestep_embedding_cpu,
    .condition = condition_cpu,
    .patchify = patchify_cpu,
    .unpatchify = unpatchify_cpu,
    .gather = gather_cpu,
};
