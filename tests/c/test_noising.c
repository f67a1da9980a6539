/* Noising: x_t = alpha * x_start + sigma * eps, one write a group and copies for its other rows. */
#include <stdlib.h>

#include "backends.h"

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
        backends[i]->noising(backends[i], buffer + GUARD, groups, N_GROUPS, n_elem);
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

int main(void)
{
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
        dc_backend *backends[MAX_BACKENDS];
        int n = backends_open(backends, n_threads);
        for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
            test_size(backends, n, SIZES[s]);
        test_size(backends, n, DC_PARALLEL_MIN / 8 + 1); /* enough for the pool */
        backends[0]->noising(backends[0], NULL, NULL, 0, 5);
        backends_close(backends, n);
    }
    return test_done();
}
