/* The DiT's operations on every instruction set against plain loops in double, at sizes that fill no tile; and bit for bit
 * the same whatever else is in the batch. */
#include <stdlib.h>

#include "backends.h"
#include "dit/operations.h"

enum { GUARD = 64 };

/* Random numbers in (-size, size), in memory of exactly n floats: a sanitizer sees one read too many. */
static float *numbers(int64_t n, float size, uint32_t state)
{
    float *values = malloc((size_t)n * sizeof *values);
    fill(values, n, state);
    for (int64_t i = 0; i < n; i++)
        values[i] *= size;
    return values;
}

static float *guarded(int64_t n)
{
    float *values = malloc((size_t)(n + 2 * GUARD) * sizeof *values);
    poison(values, n + 2 * GUARD);
    return values;
}

static void check_guards(const float *values, int64_t n)
{
    CHECK(is_poison(values, GUARD) && is_poison(values + GUARD + n, GUARD));
}

static int same_bits(const float *a, const float *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* ---- linear ------------------------------------------------------------------------------------------------------ */

static const int64_t SHAPES[][3] = {/* n_rows, n_in, n_out */
                                    {1, 1, 1},   {1, 5, 33},   {7, 3, 32},  {8, 16, 31},
                                    {9, 17, 64}, {13, 40, 97}, {17, 96, 5}, {50, 33, 49}};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };

/* Packed as dit/operations.h says, from weight (n_out, n_in) and bias (n_out,). */
static dc_linear pack(const float *weight, const float *bias, int64_t n_in, int64_t n_out)
{
    int64_t n_panels = (n_out + 31) / 32;
    dc_linear layer = {.n_in = n_in, .n_out = n_out, .panels = calloc((size_t)(n_panels * n_in * 32), sizeof(float)),
                       .bias = calloc((size_t)(n_panels * 32), sizeof(float))};
    for (int64_t j = 0; j < n_out; j++) {
        layer.bias[j] = bias[j];
        for (int64_t k = 0; k < n_in; k++)
            layer.panels[j / 32 * n_in * 32 + k * 32 + j % 32] = weight[j * n_in + k];
    }
    return layer;
}

static double gelu(double v)
{
    return 0.5 * v * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (v + 0.044715 * v * v * v)));
}

static double silu(double v)
{
    return v / (1.0 + exp(-v));
}

/* Rows of a table that images choose, back and forth. */
static const int64_t CHOICE[] = {2, 0, 3, 1, 0, 4, 2, 16, 5, 7, 6, 9, 8, 11, 10, 13, 12};
enum { N_CHOICES = sizeof CHOICE / sizeof *CHOICE };

/* The row of `other` that the epilogue of `row` reads. */
static const float *other_of(dc_finish finish, int64_t row)
{
    int64_t index = finish.epilogue == DC_EPILOGUE_ADD ? row % finish.rows_per_other : CHOICE[row / finish.rows_per_other];
    return finish.other + index * finish.other_stride;
}

/* |y - wanted| over what float32 may lose, the worst of a row; before (n_out,): y as it was. */
static double worst_of_row(const float *y, const float *x, const float *weight, const float *bias, const float *before,
                           int64_t n_in, int64_t n_out, dc_epilogue epilogue, const float *other)
{
    double worst = 0.0;
    for (int64_t j = 0; j < n_out; j++) {
        double v = bias[j], size = fabs(v), wanted, bound;
        for (int64_t k = 0; k < n_in; k++) {
            v += (double)x[k] * weight[j * n_in + k];
            size += fabs((double)x[k] * weight[j * n_in + k]);
        }
        bound = 0x1p-23 * (double)(n_in + 1) * size;
        switch (epilogue) {
        case DC_EPILOGUE_GELU:
            wanted = gelu(v);
            bound = 1.2 * bound + 4e-7 * fabs(v);
            break;
        case DC_EPILOGUE_SILU:
            wanted = silu(v);
            bound = 1.2 * bound + 4e-7 * fabs(v);
            break;
        case DC_EPILOGUE_ADD:
            wanted = v + other[j];
            bound += 0x1p-23 * fabs(wanted);
            break;
        case DC_EPILOGUE_GATE:
            wanted = before[j] + other[j] * v;
            bound = fabs(other[j]) * bound + 0x1p-23 * (fabs(before[j]) + fabs(other[j] * v));
            break;
        default:
            wanted = v;
        }
        double error = fabs(y[j] - wanted) / bound;
        worst = error <= worst ? worst : error; /* a NaN is the worst */
    }
    return worst;
}

static void check_linear(const dc_backend *backend, const int64_t *shape, dc_epilogue epilogue)
{
    int64_t n_rows = shape[0], n_in = shape[1], n_out = shape[2], stride = n_out + 7, total = n_rows * n_out;
    float *x = numbers(n_rows * n_in, 1.0f, 1), *weight = numbers(n_out * n_in, 4.0f, 2), *bias = numbers(n_out, 2.0f, 3);
    float *other = numbers(N_CHOICES * stride, 1.0f, 4), *before = numbers(total, 1.0f, 5), *alone = numbers(n_out, 1.0f, 6);
    float *y = guarded(total);
    dc_linear layer = pack(weight, bias, n_in, n_out);
    dc_finish finish = {epilogue, other, stride, n_rows < 3 ? n_rows : 3, CHOICE};
    static const int64_t first = 0;
    double worst = 0.0;
    int same = 1;
    memcpy(y + GUARD, before, (size_t)total * sizeof *y);
    backend->dit->linear(backend, y + GUARD, x, &layer, n_rows, finish);
    check_guards(y, total);
    for (int64_t row = 0; row < n_rows; row++) {
        const float *got = y + GUARD + row * n_out, *its_other = other_of(finish, row);
        double error = worst_of_row(got, x + row * n_in, weight, bias, before + row * n_out, n_in, n_out, epilogue,
                                    its_other);
        worst = error <= worst ? worst : error;
        memcpy(alone, before + row * n_out, (size_t)n_out * sizeof *alone);
        backend->dit->linear(backend, alone, x + row * n_in, &layer, 1, (dc_finish){epilogue, its_other, stride, 1, &first});
        same &= same_bits(alone, got, n_out);
    }
    CHECK_CLOSE(worst, 0.0, 1.0);
    CHECK(same);
    free(layer.panels);
    free(layer.bias);
    free(x);
    free(weight);
    free(bias);
    free(other);
    free(before);
    free(alone);
    free(y);
}

/* ---- modulate ---------------------------------------------------------------------------------------------------- */

/* Rows of different centre and size, so that the mean, the variance and eps all matter. */
static void check_modulate(const dc_backend *backend, int64_t n_images, int64_t n_tokens, int64_t hidden, float eps)
{
    int64_t n_rows = n_images * n_tokens, total = n_rows * hidden, stride = 2 * hidden + 3;
    float *x = numbers(total, 1.0f, 1), *modulation = numbers(N_CHOICES * stride, 1.0f, 2);
    float *out = guarded(total), *alone = guarded(n_tokens * hidden);
    const float *shift = modulation, *scale = modulation + hidden;
    double worst = 0.0;
    int same = 1;
    for (int64_t row = 0; row < n_rows; row++)
        for (int64_t i = 0; i < hidden; i++)
            x[row * hidden + i] = (row % 2 ? 1e-3f : 2.0f) * x[row * hidden + i] + (row % 3 ? 0.0f : 3.0f);
    backend->dit->modulate(backend, out + GUARD, x, shift, scale, (dc_choice){CHOICE, stride}, eps,
                           (dc_tokens){n_images, n_tokens, hidden, DC_PRECISION_FLOAT32});
    check_guards(out, total);
    for (int64_t row = 0; row < n_rows; row++) {
        const float *from = x + row * hidden, *got = out + GUARD + row * hidden;
        double mean = 0.0, variance = 0.0;
        for (int64_t i = 0; i < hidden; i++)
            mean += from[i] / (double)hidden;
        for (int64_t i = 0; i < hidden; i++)
            variance += (from[i] - mean) * (from[i] - mean) / (double)hidden;
        double inverse = 1.0 / sqrt(variance + eps);
        for (int64_t i = 0; i < hidden; i++) {
            double s = 1.0 + scale[CHOICE[row / n_tokens] * stride + i], b = shift[CHOICE[row / n_tokens] * stride + i];
            /* the mean's rounding, magnified by 1 / deviation, and a relative share */
            double bound = 0x1p-22 * fabs(s) * inverse * (fabs(mean) + sqrt(variance)) * 4.0 + 1e-6;
            double error = fabs(got[i] - ((from[i] - mean) * inverse * s + b)) / bound;
            worst = error <= worst ? worst : error;
        }
    }
    CHECK_CLOSE(worst, 0.0, 1.0);
    for (int64_t image = 0; image < n_images; image++) {
        backend->dit->modulate(backend, alone + GUARD, x + image * n_tokens * hidden, shift, scale,
                               (dc_choice){CHOICE + image, stride}, eps,
                               (dc_tokens){1, n_tokens, hidden, DC_PRECISION_FLOAT32});
        same &= same_bits(alone + GUARD, out + GUARD + image * n_tokens * hidden, n_tokens * hidden);
    }
    CHECK(same);
    free(x);
    free(modulation);
    free(out);
    free(alone);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* One output row of one head in double. */
static void attend(double *out, const float *qkv, int64_t query, int64_t n_tokens, int64_t hidden, int64_t head_dim)
{
    double scores[256], highest = -INFINITY, total = 0.0;
    for (int64_t t = 0; t < n_tokens; t++) {
        scores[t] = 0.0;
        for (int64_t d = 0; d < head_dim; d++)
            scores[t] += (double)qkv[query * 3 * hidden + d] * qkv[t * 3 * hidden + hidden + d];
        scores[t] /= sqrt((double)head_dim);
        highest = fmax(highest, scores[t]);
    }
    for (int64_t t = 0; t < n_tokens; t++)
        total += scores[t] = exp(scores[t] - highest);
    for (int64_t d = 0; d < head_dim; d++)
        out[d] = 0.0;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t d = 0; d < head_dim; d++)
            out[d] += scores[t] / total * qkv[t * 3 * hidden + 2 * hidden + d];
}

/* q and k in (-size, size), v in (-1, 1).  Scratch memory begins as NaN: nothing of it is read before it is written. */
static void check_attention(const dc_backend *backend, int64_t n_tokens, int64_t n_heads, int64_t head_dim, float size)
{
    enum { N_IMAGES = 3 };
    int64_t hidden = n_heads * head_dim, per_image = n_tokens * hidden, total = N_IMAGES * per_image;
    int64_t n_scratch = dc_attention_scratch(n_tokens, head_dim);
    float *qkv = numbers(3 * total, 1.0f, 1), *scratch = malloc((size_t)n_scratch * sizeof *scratch);
    float *out = guarded(total), *alone = guarded(per_image);
    double wanted[256], worst = 0.0;
    int same = 1;
    for (int64_t i = 0; i < 3 * total; i++)
        qkv[i] *= i % (3 * hidden) < 2 * hidden ? size : 1.0f;
    for (int64_t i = 0; i < n_scratch; i++)
        scratch[i] = NAN;
    backend->dit->attention(backend, out + GUARD, qkv, scratch, n_heads,
                            (dc_tokens){N_IMAGES, n_tokens, hidden, DC_PRECISION_FLOAT32});
    check_guards(out, total);
    for (int64_t image = 0; image < N_IMAGES; image++) {
        for (int64_t head = 0; head < n_heads; head++) {
            for (int64_t t = 0; t < n_tokens; t++) {
                const float *got = out + GUARD + image * per_image + t * hidden + head * head_dim;
                attend(wanted, qkv + image * 3 * per_image + head * head_dim, t, n_tokens, hidden, head_dim);
                for (int64_t d = 0; d < head_dim; d++)
                    worst = fabs(got[d] - wanted[d]) <= worst ? worst : fabs(got[d] - wanted[d]);
            }
        }
        backend->dit->attention(backend, alone + GUARD, qkv + image * 3 * per_image, scratch, n_heads,
                                (dc_tokens){1, n_tokens, hidden, DC_PRECISION_FLOAT32});
        same &= same_bits(alone + GUARD, out + GUARD + image * per_image, per_image);
    }
    /* a score, at most size^2 sqrt(head_dim), is rounded head_dim times; exp turns that into a relative error */
    CHECK_CLOSE(worst, 0.0, 1e-6 + 0x1p-22 * size * size * sqrt((double)head_dim) / 4.0);
    CHECK(same);
    free(qkv);
    free(scratch);
    free(out);
    free(alone);
}

/* ---- the condition, the timestep embedding, pictures --------------------------------------------------------------- */

static void check_condition(const dc_backend *backend)
{
    enum { HIDDEN = 101, TIMES = 3, CLASSES = 4, PAIRS = 5 };
    static const int64_t time_of_pair[PAIRS] = {2, 0, 1, 2, 0}, class_of_pair[PAIRS] = {0, 3, 1, 2, 0};
    float *times = numbers(TIMES * HIDDEN, 50.0f, 1), *table = numbers(CLASSES * HIDDEN, 50.0f, 2), *c = guarded(PAIRS * HIDDEN);
    double worst = 0.0;
    times[0] = NAN;
    times[1] = -INFINITY;
    backend->dit->condition(backend, c + GUARD, times, table, time_of_pair, class_of_pair, PAIRS, HIDDEN, DC_PRECISION_FLOAT32);
    check_guards(c, PAIRS * HIDDEN);
    for (int64_t i = 0; i < PAIRS * HIDDEN; i++) {
        int64_t pair = i / HIDDEN;
        float sum = times[time_of_pair[pair] * HIDDEN + i % HIDDEN] + table[class_of_pair[pair] * HIDDEN + i % HIDDEN];
        double wanted = silu(sum), bound = 4e-7 * fabs(wanted) + 1e-30; /* exp's 2e-7, and its end at 88 */
        double error = fabs(c[GUARD + i] - wanted) / bound;
        if (!isfinite(sum))
            CHECK(!isfinite(c[GUARD + i])); /* a broken weight must not look like a number */
        else
            worst = error <= worst ? worst : error;
    }
    CHECK_CLOSE(worst, 0.0, 1.0);
    backend->dit->condition(backend, NULL, times, table, time_of_pair, class_of_pair, 0, HIDDEN, DC_PRECISION_FLOAT32);
    free(times);
    free(table);
    free(c);
}

/* Every number of a picture says where it stands: patches have them in the order of a convolution's weight, tokens give them
 * back in that of (p, p, C), and a gathered row is the row that was asked. */
static void check_pictures(const dc_backend *backend)
{
    enum { SIZE = 6, PATCH = 2, CHANNELS = 3, SIDE = SIZE / PATCH, ELEM = CHANNELS * SIZE * SIZE, ROWS = 4 };
    float *x = malloc(ROWS * ELEM * sizeof *x), *patches = guarded(3 * ELEM), *out = guarded(ELEM);
    static const int64_t row_of[] = {3, 1, 1};
    const dc_picture picture = {SIZE, PATCH, CHANNELS};
    int same = 1;
    for (int i = 0; i < ROWS * ELEM; i++)
        x[i] = (float)i;
    backend->dit->patchify(backend, patches + GUARD, x, row_of, 3, picture, DC_PRECISION_FLOAT32);
    check_guards(patches, 3 * ELEM);
    for (int i = 0; i < 3 * ELEM; i++) {
        int in_patch = i % (CHANNELS * PATCH * PATCH), token = i / (CHANNELS * PATCH * PATCH) % (SIDE * SIDE);
        int c = in_patch / (PATCH * PATCH), row = token / SIDE * PATCH + in_patch / PATCH % PATCH;
        int column = token % SIDE * PATCH + in_patch % PATCH;
        same &= patches[GUARD + i] == (float)(row_of[i / ELEM] * ELEM + (c * SIZE + row) * SIZE + column);
    }
    backend->dit->unpatchify(backend, out + GUARD, x, 1, picture);
    check_guards(out, ELEM);
    for (int i = 0; i < ELEM; i++) {
        int c = i % CHANNELS, row = i / CHANNELS / PATCH % PATCH, column = i / CHANNELS % PATCH;
        int token = i / (CHANNELS * PATCH * PATCH);
        same &= out[GUARD + (c * SIZE + token / SIDE * PATCH + row) * SIZE + token % SIDE * PATCH + column] == (float)i;
    }
    backend->dit->gather(backend, patches + GUARD, x, row_of, 3, ELEM);
    for (int i = 0; i < 3 * ELEM; i++)
        same &= patches[GUARD + i] == (float)(row_of[i / ELEM] * ELEM + i % ELEM);
    CHECK(same);
    free(x);
    free(patches);
    free(out);
}

static void check_timestep_embedding(const dc_backend *backend, int64_t size, int shift)
{
    static const double times[] = {0.0, 1.0, 0.5, 37.0, 999.0};
    enum { N = sizeof times / sizeof *times };
    int64_t half = size / 2;
    float *out = guarded(N * size);
    double worst = 0.0;
    backend->dit->timestep_embedding(backend, out + GUARD, times, N, size, shift, DC_PRECISION_FLOAT32);
    check_guards(out, N * size);
    for (int64_t n = 0; n < N; n++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = times[n] * pow(10000.0, -(double)i / (double)(half - shift));
            double bound = 1e-6 + 2e-6 * angle; /* exp(-9.2) in float32, times the angle */
            const float *row = out + GUARD + n * size;
            worst = fmax(worst, fabs(row[i] - cos(angle)) / bound);
            worst = fmax(worst, fabs(row[half + i] - sin(angle)) / bound);
        }
    }
    CHECK_CLOSE(worst, 0.0, 1.0);
    free(out);
}

int main(void)
{
    dc_backend *backends[MAX_BACKENDS];
    int n = backends_open(backends, 1);
    for (int b = 0; b < n; b++) {
        for (int epilogue = DC_EPILOGUE_NONE; epilogue <= DC_EPILOGUE_GATE; epilogue++)
            for (int i = 0; i < N_SHAPES; i++)
                check_linear(backends[b], SHAPES[i], (dc_epilogue)epilogue);
        static const int64_t hidden[] = {1, 5, 16, 17, 33, 128};
        for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
            check_modulate(backends[b], 3, 7, hidden[i], 1e-6f);
            check_modulate(backends[b], 2, 1, hidden[i], 1e-5f);
        }
        static const int64_t tokens[] = {1, 7, 16, 17, 33, 49, 70}, head_dims[] = {1, 5, 32, 33, 40};
        for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
            for (size_t j = 0; j < sizeof head_dims / sizeof *head_dims; j++)
                for (int64_t n_heads = 1; n_heads <= 3; n_heads += 2)
                    check_attention(backends[b], tokens[i], n_heads, head_dims[j], 3.0f);
        check_attention(backends[b], 49, 2, 32, 30.0f); /* scores of hundreds: exp alone would overflow */
        check_condition(backends[b]);
        check_pictures(backends[b]);
        check_timestep_embedding(backends[b], 256, 0);
        check_timestep_embedding(backends[b], 256, 1);
        check_timestep_embedding(backends[b], 2, 0);
        check_timestep_embedding(backends[b], 34, 1);
    }
    backends_close(backends, n);
    return test_done();
}
