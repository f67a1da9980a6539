/* Noising: x_t = alpha * x_start + sigma * eps, one write a group and copies for its other rows. */
#include <stdlib.h>

#include "backends.h"
#include "formulas/rounding.h"

enum { GUARD = 64, N_GROUPS = 4 };

static const int64_t SIZES[] = {1, 3, 784, 1023, 1024, 1025, 3000};
static const int64_t ROWS[N_GROUPS] = {1, 3, 2, 7};

/* Groups of every kind: made noise, its antithetic twin, given noise, given and turned. */
static int64_t make_groups(dc_group *groups, const float *x_start, const float *eps, int64_t n_elem)
{
    int64_t n_rows = 0;
    for (int g = 0; g < N_GROUPS; g++) {
        dc_group group = {0};
        group.x_start = x_start + g * n_elem;
        group.eps = g < 2 ? NULL : eps;
        group.key.seed = 77;
        group.key.noise_index = 5;
        group.key.timestep = 9;
        group.eps_sign = g % 2 ? -1.0f : 1.0f;
        group.alpha = 0.8f - 0.1f * (float)g;
        group.sigma = 0.6f + 0.1f * (float)g;
        group.n_rows = ROWS[g];
        groups[g] = group;
        n_rows += group.n_rows;
    }
    return n_rows;
}

static void check_row(const float *x_t, const dc_group *group, const float *made, int64_t n_elem)
{
    const float *eps = group->eps != NULL ? group->eps : made;
    double worst = 0.0;
    for (int64_t e = 0; e < n_elem; e++) {
        double noise = (double)group->sigma * group->eps_sign * eps[e];
        double wanted = (double)group->alpha * group->x_start[e] + noise;
        /* one rounding of each product and of the sum */
        double bound = 0x1p-24 * (fabs((double)group->alpha * group->x_start[e]) + fabs(noise) + 1.001 * fabs(wanted));
        worst = fmax(worst, fabs(x_t[e] - wanted) / (bound + 1e-45));
    }
    CHECK_CLOSE(worst, 0.0, 1.0);
}

static void test_size(dc_backend **backends, int n, int64_t n_elem)
{
    dc_group groups[N_GROUPS];
    float *x_start = malloc((size_t)(N_GROUPS * n_elem) * sizeof *x_start);
    float *eps = malloc((size_t)n_elem * sizeof *eps), *made = malloc((size_t)n_elem * sizeof *made);
    fill(x_start, N_GROUPS * n_elem, 3);
    fill(eps, n_elem, 4);
    int64_t n_rows = make_groups(groups, x_start, eps, n_elem), total = n_rows * n_elem;
    float *first = malloc((size_t)(total + 2 * GUARD) * sizeof *first);
    float *buffer = malloc((size_t)(total + 2 * GUARD) * sizeof *buffer);
    backends[0]->noise(backends[0], made, groups[0].key, 0, n_elem);
    for (int i = 0; i < n; i++) {
        poison(buffer, total + 2 * GUARD);
        backends[i]->noising(backends[i], buffer + GUARD, groups, N_GROUPS, n_elem, PLAIN);
        CHECK(is_poison(buffer, GUARD) && is_poison(buffer + GUARD + total, GUARD));
        if (i > 0) {
            CHECK(memcmp(buffer, first, (size_t)(total + 2 * GUARD) * sizeof *buffer) == 0);
            continue;
        }
        memcpy(first, buffer, (size_t)(total + 2 * GUARD) * sizeof *buffer);
        const float *x_t = buffer + GUARD;
        for (int g = 0; g < N_GROUPS; g++)
            for (int64_t row = 0; row < groups[g].n_rows; row++, x_t += n_elem)
                check_row(x_t, &groups[g], made, n_elem);
    }
    free(x_start);
    free(eps);
    free(made);
    free(first);
    free(buffer);
}

/* The plain x_t, rounded and moved to where the layout has it: every byte, and no byte beside them. */
static void test_layout(dc_backend **backends, int n, int64_t n_channels, int64_t n_positions, dc_dtype dtype, int is_last)
{
    dc_group groups[N_GROUPS];
    dc_layout layout = {dtype, is_last ? n_positions : 0};
    int64_t n_elem = n_channels * n_positions, item = (int64_t)dc_dtype_bytes(dtype);
    float *x_start = malloc((size_t)(N_GROUPS * n_elem) * sizeof *x_start), *eps = malloc((size_t)n_elem * sizeof *eps);
    fill(x_start, N_GROUPS * n_elem, 3);
    fill(eps, n_elem, 4);
    int64_t n_rows = make_groups(groups, x_start, eps, n_elem), total = n_rows * n_elem;
    float *plain = malloc((size_t)total * sizeof *plain);
    char *wanted = malloc((size_t)(total * item)), *got = malloc((size_t)(total * item + 2 * GUARD));
    backends[0]->noising(backends[0], plain, groups, N_GROUPS, n_elem, PLAIN);
    for (int64_t i = 0; i < total; i++) {
        int64_t row = i / n_elem, c = i % n_elem / n_positions, at = i % n_positions;
        char *place = wanted + (is_last ? row * n_elem + at * n_channels + c : i) * item;
        double wide = plain[i];
        uint16_t half = dtype == DC_FLOAT16 ? dc_round_float16(plain[i]) : dc_round_bfloat16(plain[i]);
        memcpy(place, dtype == DC_FLOAT64 ? (void *)&wide : dtype == DC_FLOAT32 ? (void *)&plain[i] : (void *)&half,
               (size_t)item);
    }
    for (int i = 0; i < n; i++) {
        memset(got, 0x5a, (size_t)(total * item + 2 * GUARD));
        backends[i]->noising(backends[i], got + GUARD, groups, N_GROUPS, n_elem, layout);
        CHECK(memcmp(got + GUARD, wanted, (size_t)(total * item)) == 0);
        for (int64_t g = 0; g < GUARD; g++)
            CHECK(got[g] == 0x5a && got[GUARD + total * item + g] == 0x5a);
    }
    free(x_start);
    free(eps);
    free(plain);
    free(wanted);
    free(got);
}

static const int64_t SHAPES[][2] = {{3, 5}, {4, 256}, {1, 1030}, {16, 65}, {700, 2}};

static void test_layouts(dc_backend **backends, int n)
{
    for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++)
        for (int dtype = DC_FLOAT32; dtype <= DC_BFLOAT16; dtype++)
            for (int is_last = 0; is_last < 2; is_last++)
                test_layout(backends, n, SHAPES[s][0], SHAPES[s][1], (dc_dtype)dtype, is_last);
}

/* Every finite value of sixteen bits is itself; between two neighbours the nearer one, and of two as near the even one. */
static void test_rounding(uint16_t (*round)(float), float (*widen)(uint16_t), uint32_t infinity)
{
    int wrong = 0;
    for (uint32_t bits = 0; bits < infinity; bits++) {
        float value = widen((uint16_t)bits), next = bits + 1 < infinity ? widen((uint16_t)(bits + 1)) : 0.0f;
        if (bits + 1 == infinity) /* what would follow the largest */
            next = 2.0f * value - widen((uint16_t)(bits - 1));
        float middle = isinf(next) ? value + 0.5f * (value - widen((uint16_t)(bits - 1))) : value + 0.5f * (next - value);
        for (int sign = 0; sign < 2; sign++) {
            uint32_t s = (uint32_t)sign << 15;
            float turn = sign ? -1.0f : 1.0f;
            wrong += round(turn * value) != (bits | s);
            wrong += round(turn * nextafterf(middle, 0.0f)) != (bits | s);
            wrong += round(turn * middle) != ((bits + (bits & 1)) | s);
            wrong += round(turn * nextafterf(middle, INFINITY)) != ((bits + 1) | s);
        }
    }
    CHECK(wrong == 0);
    CHECK(round(INFINITY) == infinity && round(-INFINITY) == (infinity | 0x8000));
    CHECK(round(NAN) == 0x7fff && round(-NAN) == 0x7fff);
    CHECK(round(3.4e38f) == infinity || infinity == 0x7f80);
}

static uint16_t to_float16(float value)
{
    return dc_round_float16(value);
}

static uint16_t to_bfloat16(float value)
{
    return dc_round_bfloat16(value);
}

static float from_float16(uint16_t bits)
{
    return dc_float16_to_float(bits);
}

static float from_bfloat16(uint16_t bits)
{
    return dc_bfloat16_to_float(bits);
}

int main(void)
{
    test_rounding(to_float16, from_float16, 0x7c00);
    test_rounding(to_bfloat16, from_bfloat16, 0x7f80);
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        dc_backend *backends[MAX_BACKENDS];
        int n = backends_open(backends, n_threads);
        for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
            test_size(backends, n, SIZES[s]);
        test_size(backends, n, DC_PARALLEL_MIN / 8 + 1); /* enough for the pool */
        test_layouts(backends, n);
        backends[0]->noising(backends[0], NULL, NULL, 0, 5, PLAIN);
        backends_close(backends, n);
    }
    return test_done();
}
