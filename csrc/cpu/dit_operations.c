/* The DiT's operations beside the product: layer norm with modulation, attention, timestep embedding. */
#include "dit/operations.h"

#include <math.h>

#include "cpu/cpu.h"
#include "cpu/exp.h"
#include "cpu/linear.h"

enum { LANES = 16 };

/* ---- layer norm and modulation ----------------------------------------------------------------------------------- */

/* Sum of (x - centre)^power, power 1 or 2, in sixteen lanes: a fixed order that vectorises. */
DC_INLINE float lane_sum(const float *x, float centre, int power, int64_t n)
{
    float lanes[LANES] = {0}, sum = 0.0f;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            float d = x[i + lane] - centre;
            lanes[lane] += power == 1 ? d : d * d;
        }
    }
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    for (; i < n; i++)
        sum += power == 1 ? x[i] - centre : (x[i] - centre) * (x[i] - centre);
    return sum;
}

DC_INLINE void modulate_row(float *out, const float *x, const float *shift, const float *scale, int64_t n)
{
    float mean = lane_sum(x, 0.0f, 1, n) / (float)n;
    float inverse = 1.0f / sqrtf(lane_sum(x, mean, 2, n) / (float)n + 1e-6f);
    for (int64_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * inverse * (1.0f + scale[i]) + shift[i];
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* One head of one image.  q, k, v: rows `stride` apart; scores (T,), keys (head_dim, T) hold k transposed. */
DC_INLINE void attend_head(float *out, const float *qkv, float *scores, float *keys, int64_t n_tokens, int64_t hidden,
                           int64_t head_dim)
{
    int64_t stride = 3 * hidden;
    float scale = 1.0f / sqrtf((float)head_dim);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t d = 0; d < head_dim; d++)
            keys[d * n_tokens + t] = qkv[t * stride + hidden + d] * scale;
    for (int64_t i = 0; i < n_tokens; i++) {
        const float *q = qkv + i * stride;
        float *o = out + i * hidden, highest = -INFINITY, total = 0.0f;
        for (int64_t j = 0; j < n_tokens; j++)
            scores[j] = 0.0f;
        for (int64_t d = 0; d < head_dim; d++)
            for (int64_t j = 0; j < n_tokens; j++)
                scores[j] += q[d] * keys[d * n_tokens + j];
        for (int64_t j = 0; j < n_tokens; j++)
            highest = scores[j] > highest ? scores[j] : highest;
        for (int64_t j = 0; j < n_tokens; j++)
            scores[j] = dc_exp(scores[j] - highest);
        for (int64_t j = 0; j < n_tokens; j++)
            total += scores[j];
        for (int64_t d = 0; d < head_dim; d++)
            o[d] = 0.0f;
        for (int64_t j = 0; j < n_tokens; j++) {
            const float *v = qkv + j * stride + 2 * hidden;
            float p = scores[j] / total;
            for (int64_t d = 0; d < head_dim; d++)
                o[d] += p * v[d];
        }
    }
}

/* ---- one copy of each for every instruction set ------------------------------------------------------------------ */

typedef void (*modulate_fn)(float *out, const float *x, const float *shift, const float *scale, int64_t n);
typedef void (*attend_fn)(float *out, const float *qkv, float *scores, float *keys, int64_t n_tokens, int64_t hidden,
                          int64_t head_dim);

static void modulate_scalar(float *out, const float *x, const float *shift, const float *scale, int64_t n)
{
    modulate_row(out, x, shift, scale, n);
}

DC_TARGET_AVX2 static void modulate_avx2(float *out, const float *x, const float *shift, const float *scale, int64_t n)
{
    modulate_row(out, x, shift, scale, n);
}

DC_TARGET_AVX512 static void modulate_avx512(float *out, const float *x, const float *shift, const float *scale,
                                             int64_t n)
{
    modulate_row(out, x, shift, scale, n);
}

static void attend_scalar(float *out, const float *qkv, float *scores, float *keys, int64_t n_tokens, int64_t hidden,
                          int64_t head_dim)
{
    attend_head(out, qkv, scores, keys, n_tokens, hidden, head_dim);
}

DC_TARGET_AVX2 static void attend_avx2(float *out, const float *qkv, float *scores, float *keys, int64_t n_tokens,
                                       int64_t hidden, int64_t head_dim)
{
    attend_head(out, qkv, scores, keys, n_tokens, hidden, head_dim);
}

DC_TARGET_AVX512 static void attend_avx512(float *out, const float *qkv, float *scores, float *keys, int64_t n_tokens,
                                           int64_t hidden, int64_t head_dim)
{
    attend_head(out, qkv, scores, keys, n_tokens, hidden, head_dim);
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

static void modulate_cpu(const dc_backend *self, float *out, const float *x, const float *shift, const float *scale,
                         int64_t stride, int64_t n_images, int64_t n_tokens, int64_t hidden)
{
    dc_simd simd = ((const dc_cpu *)self->context)->simd;
    modulate_fn modulate = simd == DC_SIMD_AVX512 ? modulate_avx512
                           : simd == DC_SIMD_AVX2 ? modulate_avx2
                                                  : modulate_scalar;
    for (int64_t row = 0; row < n_images * n_tokens; row++) {
        int64_t image = row / n_tokens;
        modulate(out + row * hidden, x + row * hidden, shift + image * stride, scale + image * stride, hidden);
    }
}

static void attention_cpu(const dc_backend *self, float *out, const float *qkv, float *scratch, int64_t n_images,
                          int64_t n_tokens, int64_t hidden, int64_t n_heads)
{
    dc_simd simd = ((const dc_cpu *)self->context)->simd;
    attend_fn attend = simd == DC_SIMD_AVX512 ? attend_avx512 : simd == DC_SIMD_AVX2 ? attend_avx2 : attend_scalar;
    int64_t head_dim = hidden / n_heads;
    for (int64_t image = 0; image < n_images; image++)
        for (int64_t head = 0; head < n_heads; head++)
            attend(out + image * n_tokens * hidden + head * head_dim,
                   qkv + image * n_tokens * 3 * hidden + head * head_dim, scratch, scratch + n_tokens, n_tokens, hidden,
                   head_dim);
}

static void silu_cpu(const dc_backend *self, float *x, int64_t n)
{
    (void)self;
    for (int64_t i = 0; i < n; i++)
        x[i] = dc_silu(x[i]);
}

static void timestep_embedding_cpu(const dc_backend *self, float *out, const double *time, int64_t n_images,
                                   int64_t size)
{
    (void)self;
    int64_t half = size / 2;
    for (int64_t n = 0; n < n_images; n++) {
        for (int64_t i = 0; i < half; i++) {
            float frequency = expf((float)i * (float)(-log(10000.0) / (double)half));
            float angle = (float)time[n] * frequency;
            out[n * size + i] = cosf(angle);
            out[n * size + half + i] = sinf(angle);
        }
    }
}

const dc_dit_operations dc_cpu_dit_operations = {
    .linear = dc_linear_cpu,
    .modulate = modulate_cpu,
    .attention = attention_cpu,
    .silu = silu_cpu,
    .timestep_embedding = timestep_embedding_cpu,
};
