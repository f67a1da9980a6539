/* eps-error: mean of rho(prediction - target) a row; the order of the sum that backend.h states, bit for bit. */
#include <stdlib.h>

#include "backends.h"

enum { GUARD = 8, N_GROUPS = 4, BLOCK = 1024, LANES = 32 };

static const int64_t SIZES[] = {1, 3, 31, 33, 784, 1023, 1024, 1025, 2048, 3000};
static const int64_t ROWS[N_GROUPS] = {1, 3, 2, 5};
static const dc_loss LOSSES[] = {DC_LOSS_L2, DC_LOSS_L1, DC_LOSS_HUBER};
static const dc_dtype DTYPES[] = {DC_FLOAT32, DC_FLOAT64, DC_FLOAT16, DC_BFLOAT16};
static const float DELTA = 0.375f;

typedef struct problem {
    int64_t n_elem, n_rows, row_stride;
    float *x_start, *eps, *made;
    float *values; /* (n_rows, row_stride) what every dtype holds exactly */
    dc_group groups[N_GROUPS];
} problem;

/* Small multiples of 1/16 within [-4, 4]: exact in float16 and bfloat16, so that all dtypes ask the same question. */
static void fill_exact(float *values, int64_t n)
{
    fill(values, n, 8);
    for (int64_t i = 0; i < n; i++)
        values[i] = rintf(values[i] * 64.0f) / 16.0f;
}

static problem problem_new(const dc_backend *backend, int64_t n_elem, int64_t row_stride)
{
    problem p = {0};
    p.n_elem = n_elem;
    p.row_stride = row_stride;
    p.x_start = malloc((size_t)(N_GROUPS * n_elem) * sizeof(float));
    p.eps = malloc((size_t)n_elem * sizeof(float));
    p.made = malloc((size_t)n_elem * sizeof(float));
    fill(p.x_start, N_GROUPS * n_elem, 3);
    fill(p.eps, n_elem, 4);
    for (int g = 0; g < N_GROUPS; g++) {
        dc_group *group = &p.groups[g];
        group->x_start = p.x_start + g * n_elem;
        group->eps = g == 1 ? p.eps : NULL;
        group->key.seed = 12;
        group->key.timestep = 34;
        group->eps_sign = g % 2 ? -1.0f : 1.0f;
        group->p = g == 0 ? 0.0f : -0.6f;
        group->q = g == 3 ? 0.0f : 0.8f; /* the last predicts x_start */
        group->n_rows = ROWS[g];
        p.n_rows += ROWS[g];
    }
    backend->noise(backend, p.made, p.groups[0].key, 0, n_elem);
    p.values = malloc((size_t)(p.n_rows * row_stride) * sizeof(float));
    fill_exact(p.values, p.n_rows * row_stride);
    return p;
}

static void problem_clear(problem *p)
{
    free(p->x_start);
    free(p->eps);
    free(p->made);
    free(p->values);
}

static uint16_t upper_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Of a multiple of 1/16 within [-4, 4], so always normal or zero. */
static uint16_t float16_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u;
    return value == 0.0f ? 0 : (uint16_t)(sign | ((bits >> 23 & 0xffu) - 112) << 10 | (bits >> 13 & 0x3ffu));
}

/* At an odd address where offset is 1; free out - offset. */
static char *convert(const float *values, int64_t n, dc_dtype dtype, int offset)
{
    char *out = (char *)malloc((size_t)n * dc_dtype_bytes(dtype) + (size_t)offset) + offset;
    for (int64_t i = 0; i < n; i++) {
        double wide = values[i];
        uint16_t half = dtype == DC_FLOAT16 ? float16_bits(values[i]) : upper_half(values[i]);
        const void *from = dtype == DC_FLOAT32 ? (const void *)&values[i] : dtype == DC_FLOAT64 ? (void *)&wide : &half;
        memcpy(out + (size_t)i * dc_dtype_bytes(dtype), from, dc_dtype_bytes(dtype));
    }
    return out;
}

static float rho(float d, dc_loss loss)
{
    float size = fabsf(d), square = d * d, line = size - 0.5f * DELTA;
    return loss == DC_LOSS_L2 ? square : loss == DC_LOSS_L1 ? size : size <= DELTA ? 0.5f * square : DELTA * line;
}

/* One row as backend.h describes the sum, without a thought of speed. */
static double row_error(const problem *p, int64_t row, const dc_group *group, dc_loss loss)
{
    const float *eps = group->eps != NULL ? group->eps : p->made, *prediction = p->values + row * p->row_stride;
    double total = 0.0;
    for (int64_t first = 0; first < p->n_elem; first += BLOCK) {
        float lanes[LANES] = {0};
        double sums[LANES];
        for (int64_t e = first; e < p->n_elem && e < first + BLOCK; e++) {
            float noise = group->q * group->eps_sign * eps[e], clean = group->p * group->x_start[e];
            lanes[e % LANES] += rho(prediction[e] - (clean + noise), loss);
        }
        for (int i = 0; i < LANES; i++)
            sums[i] = lanes[i];
        for (int width = LANES / 2; width > 0; width /= 2)
            for (int i = 0; i < width; i++)
                sums[i] += sums[i + width];
        total += sums[0];
    }
    return total / (double)p->n_elem;
}

/* The same in float64 throughout, and how far float32 may stray from it: see tests/test_eps_error.py. */
static double exact_error(const problem *p, int64_t row, const dc_group *group, dc_loss loss, double *bound)
{
    const float *eps = group->eps != NULL ? group->eps : p->made, *prediction = p->values + row * p->row_stride;
    double total = 0.0;
    *bound = 0.0;
    for (int64_t e = 0; e < p->n_elem; e++) {
        double target = (double)group->p * group->x_start[e] + (double)group->q * group->eps_sign * eps[e];
        double d = prediction[e] - target, size = fabs(d), delta = DELTA;
        double term = loss == DC_LOSS_L2   ? d * d
                      : loss == DC_LOSS_L1 ? size
                      : size <= delta      ? 0.5 * d * d
                                           : delta * (size - 0.5 * delta);
        total += term;
        *bound += 0x1p-24 * (64.0 * term + 8.0 * (size + 1.0) * (1.0 + fabs(target) + fabs(eps[e])));
    }
    *bound /= (double)p->n_elem;
    return total / (double)p->n_elem;
}

static void check_errors(const problem *p, const double *errors, dc_loss loss)
{
    int64_t row = 0;
    for (int g = 0; g < N_GROUPS; g++) {
        for (int64_t r = 0; r < ROWS[g]; r++, row++) {
            double bound, exact = exact_error(p, row, &p->groups[g], loss, &bound);
            CHECK(errors[row] == row_error(p, row, &p->groups[g], loss));
            CHECK_CLOSE(errors[row], exact, bound);
        }
    }
}

static void test_size(dc_backend **backends, int n, int64_t n_elem, int64_t row_stride)
{
    problem p = problem_new(backends[0], n_elem, row_stride);
    for (int t = 0; t < 4; t++) {
        int offset = (int)(n_elem % 2);
        char *data = convert(p.values, p.n_rows * row_stride, DTYPES[t], offset);
        dc_prediction prediction = {.data = data, .dtype = DTYPES[t], .row_stride = row_stride};
        for (int l = 0; l < 3; l++) {
            for (int i = 0; i < n; i++) {
                double errors[32 + GUARD];
                for (int64_t r = 0; r < 32 + GUARD; r++)
                    errors[r] = POISON;
                backends[i]->eps_error(backends[i], errors, prediction, p.groups, N_GROUPS, n_elem, LOSSES[l], DELTA);
                check_errors(&p, errors, LOSSES[l]);
                for (int64_t r = p.n_rows; r < 32 + GUARD; r++)
                    CHECK(errors[r] == POISON);
            }
        }
        free(data - offset);
    }
    problem_clear(&p);
}

/* The same numbers with their channels last, two more channels beside them as a learned variance has them: the same errors. */
static void test_channels_last(dc_backend **backends, int n, int64_t n_channels, int64_t n_positions)
{
    int64_t n_elem = n_channels * n_positions, stride = n_channels + 2;
    problem p = problem_new(backends[0], n_elem, n_elem);
    float *last = malloc((size_t)(p.n_rows * stride * n_positions) * sizeof(float));
    for (int64_t i = 0; i < p.n_rows * stride * n_positions; i++)
        last[i] = NAN;
    for (int64_t row = 0; row < p.n_rows; row++)
        for (int64_t c = 0; c < n_channels; c++)
            for (int64_t i = 0; i < n_positions; i++)
                last[(row * n_positions + i) * stride + c] = p.values[row * n_elem + c * n_positions + i];
    for (int t = 0; t < 4; t++) {
        char *data = convert(last, p.n_rows * stride * n_positions, DTYPES[t], t % 2);
        dc_prediction prediction = {data, DTYPES[t], stride * n_positions, n_positions, stride};
        for (int i = 0; i < n; i++) {
            double errors[32];
            backends[i]->eps_error(backends[i], errors, prediction, p.groups, N_GROUPS, n_elem, DC_LOSS_L2, DELTA);
            check_errors(&p, errors, DC_LOSS_L2);
        }
        free(data - t % 2);
    }
    free(last);
    problem_clear(&p);
}

/* One bad element makes its row's error not finite and leaves the other rows alone. */
static void test_non_finite(dc_backend **backends, int n)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int b = 0; b < 3; b++) {
        for (int i = 0; i < n; i++) {
            for (int l = 0; l < 3; l++) {
                double errors[16];
                problem p = problem_new(backends[0], 1030, 1030);
                p.values[2 * p.row_stride + 1029] = bad[b];
                dc_prediction prediction = {.data = p.values, .dtype = DC_FLOAT32, .row_stride = p.row_stride};
                backends[i]->eps_error(backends[i], errors, prediction, p.groups, N_GROUPS, 1030, LOSSES[l], DELTA);
                for (int64_t row = 0; row < p.n_rows; row++)
                    CHECK((isfinite(errors[row]) != 0) == (row != 2));
                problem_clear(&p);
            }
        }
    }
}

/* Every float16 and bfloat16 value as float32, against the definition of the formats. */
static void test_halves(void)
{
    int wrong = 0;
    for (uint32_t bits = 0; bits < 1u << 16; bits++) {
        int exponent = (int)(bits >> 10 & 31), mantissa = (int)(bits & 1023);
        float got = dc_float16_to_float((uint16_t)bits), brain = dc_bfloat16_to_float((uint16_t)bits);
        double size = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
        if (exponent == 31)
            size = mantissa == 0 ? (double)INFINITY : (double)NAN;
        wrong += isnan(size) ? !isnan(got) : fabs((double)got) != size;
        wrong += (signbit(got) != 0) != (bits >> 15 != 0);
        wrong += upper_half(brain) != bits;
    }
    CHECK(wrong == 0);
}

int main(void)
{
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        dc_backend *backends[MAX_BACKENDS];
        int n = backends_open(backends, n_threads);
        for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
            test_size(backends, n, SIZES[s], SIZES[s] + (int64_t)s % 3);
        test_size(backends, n, DC_PARALLEL_MIN / 8 + 1, DC_PARALLEL_MIN / 8 + 1); /* enough for the pool */
        test_channels_last(backends, n, 3, 7);
        test_channels_last(backends, n, 4, 300);
        test_channels_last(backends, n, 2, 1025);
        test_non_finite(backends, n);
        backends_close(backends, n);
    }
    test_halves();
    return test_done();
}
