/* The DiT's operations beside product and attention: layer norm with modulation, silu, timestep embedding. */
#include "cpu/dit_operations.h"

#include <math.h>

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

static void modulate_cpu(const dc_backend *self, float *out, const float *x, const float *shift, const float *scale,
                         int64_t stride, float eps, int64_t n_images, int64_t n_tokens, int64_t hidden)
{
    dc_simd simd = ((const dc_cpu *)self->context)->simd;
    modulate_fn modulate = simd == DC_SIMD_AVX512 ? modulate_avx512
                           : simd == DC_SIMD_AVX2 ? modulate_avx2
                                                  : modulate_scalar;
    for (int64_t row = 0; row < n_images * n_tokens; row++) {
        int64_t image = row / n_tokens;
        modulate(out + row * hidden, x + row * hidden, shift + image * stride, scale + image * stride, eps, hidden);
    }
}

static void silu_cpu(const dc_backend *self, float *x, int64_t n)
{
    (void)self;
    for (int64_t i = 0; i < n; i++)
        x[i] = dc_silu(x[i], DC_FUSED_SCALAR);
}

static void timestep_embedding_cpu(const dc_backend *self, float *out, const double *time, int64_t n_images,
                                   int64_t size, int shift)
{
    (void)self;
    int64_t half = size / 2;
    for (int64_t n = 0; n < n_images; n++) {
        for (int64_t i = 0; i < half; i++) {
            float frequency = expf((float)i * (float)(-log(10000.0) / (double)(half - shift)));
            float angle = (float)time[n] * frequency;
            out[n * size + i] = cosf(angle);
            out[n * size + half + i] = sinf(angle);
        }
    }
}

const dc_dit_operations dc_cpu_dit_operations = {
    .linear = dc_linear_cpu,
    .modulate = modulate_cpu,
    .attention = dc_attention_cpu,
    .silu = silu_cpu,
    .timestep_embedding = timestep_embedding_cpu,
};
