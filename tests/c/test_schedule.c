/* Schedules against their closed forms, and what is refused. */
#include <string.h>

#include "method/schedule.h"
#include "test.h"

enum { N = 50 };

static void check_betas(void)
{
    double betas[N], bar[N], alpha[N], sigma[N], product = 1.0;
    dc_error err = {0};
    CHECK(dc_schedule_betas_linear(betas, N, 1e-4, 0.02, &err) == DC_OK);
    CHECK_CLOSE(betas[0], 1e-4, 1e-18);
    CHECK_CLOSE(betas[N - 1], 0.02, 1e-16);
    CHECK_CLOSE(betas[10] - betas[9], (0.02 - 1e-4) / (N - 1), 1e-16);
    CHECK(dc_schedule_betas_scaled_linear(betas, N, 0.00085, 0.012, &err) == DC_OK);
    CHECK_CLOSE(sqrt(betas[10]) - sqrt(betas[9]), (sqrt(0.012) - sqrt(0.00085)) / (N - 1), 1e-15);
    dc_schedule_alphas_cumprod(bar, betas, N);
    CHECK(dc_schedule_from_alphas_cumprod(alpha, sigma, bar, N, &err) == DC_OK);
    for (int i = 0; i < N; i++) {
        product *= 1.0 - betas[i];
        CHECK_CLOSE(alpha[i] * alpha[i], product, 1e-15);
        CHECK_CLOSE(sigma[i] * sigma[i] + alpha[i] * alpha[i], 1.0, 1e-15);
    }
    /* the cosine's cumulative products telescope, but for the cap at the end */
    CHECK(dc_schedule_betas_squaredcos(betas, N, &err) == DC_OK);
    dc_schedule_alphas_cumprod(betas, betas, N);
    double first = cos(0.008 / 1.008 * acos(0.0)), here = cos((20.0 / N + 0.008) / 1.008 * acos(0.0));
    CHECK_CLOSE(betas[19], here * here / (first * first), 1e-14);
}

static void check_continuous(void)
{
    double alpha[N], sigma[N], time[N], sigmas[3] = {0.002, 0.5, 80.0}, p[N], q[N];
    dc_error err = {0};
    CHECK(dc_schedule_flow(alpha, sigma, time, N, 3.0, &err) == DC_OK);
    CHECK_CLOSE(sigma[24], 3.0 * 0.5 / (1.0 + 2.0 * 0.5), 1e-15);
    CHECK_CLOSE(alpha[24], 0.25, 1e-15);
    CHECK_CLOSE(time[N - 1], N, 1e-12);
    CHECK(dc_schedule_edm(alpha, sigma, time, sigmas, 3, 0.5, &err) == DC_OK);
    CHECK_CLOSE(alpha[1], 1.0 / sqrt(0.5), 1e-15);
    CHECK_CLOSE(sigma[1], 0.5 / sqrt(0.5), 1e-15);
    CHECK_CLOSE(time[1], log(0.5) / 4.0, 1e-15);
    CHECK(dc_schedule_target(p, q, alpha, sigma, 3, DC_PREDICTION_EDM, 0.5, &err) == DC_OK);
    for (int i = 0; i < 3; i++) { /* D = c_skip y + c_out F is x_start when F is the target */
        double x = 0.7, eps = -1.3, s = sigmas[i], total = s * s + 0.25;
        double output = p[i] * x + q[i] * eps;
        CHECK_CLOSE(0.25 / total * (x + s * eps) + s * 0.5 / sqrt(total) * output, x, 1e-14);
    }
    double ends[2][2] = {{1.0, 0.0}, {0.0, 1.0}}; /* no noise, only noise: finite all the same */
    CHECK(dc_schedule_target(p, q, ends[0], ends[1], 2, DC_PREDICTION_EDM, 0.5, &err) == DC_OK);
    CHECK(p[0] == 0.0 && q[0] == -1.0 && p[1] == 2.0 && q[1] == 0.0);
}

static void check_targets(void)
{
    double alpha[1] = {0.8}, sigma[1] = {0.6}, p[1], q[1];
    const double expected[4][2] = {{0, 1}, {-0.6, 0.8}, {1, 0}, {-1, 1}};
    for (int type = DC_PREDICTION_EPSILON; type <= DC_PREDICTION_FLOW; type++) {
        CHECK(dc_schedule_target(p, q, alpha, sigma, 1, (dc_prediction_type)type, 0.0, NULL) == DC_OK);
        CHECK(p[0] == expected[type][0] && q[0] == expected[type][1]);
    }
}

/* A refusal is DC_ERR_VALUE and one sentence that names the argument. */
#define CHECK_REFUSED(call, word)                                                                                      \
    do {                                                                                                               \
        dc_error err = {0};                                                                                            \
        CHECK((call) == DC_ERR_VALUE);                                                                                 \
        CHECK(strstr(err.message, word) != NULL);                                                                      \
    } while (0)

static void check_refusals(void)
{
    double a[2] = {1.0, 0.9}, s[2] = {0.1, 0.05}, time[2] = {0, 1}, out[2], other[2];
    double rising[2] = {0.5, 0.6}, large[2] = {1.5, 0.6}, nan_bar[2] = {0.5, NAN}, zero[2] = {0.0, 0.0};
    CHECK_REFUSED(dc_schedule_betas_linear(out, 0, 0.1, 0.2, &err), "0 timesteps");
    CHECK_REFUSED(dc_schedule_betas_linear(out, DC_SCHEDULE_MAX + 1, 0.1, 0.2, &err), "timesteps");
    CHECK_REFUSED(dc_schedule_betas_linear(out, 2, 0.0, 0.2, &err), "beta_start");
    CHECK_REFUSED(dc_schedule_betas_scaled_linear(out, 2, 0.1, 1.0, &err), "beta_end");
    CHECK_REFUSED(dc_schedule_betas_scaled_linear(out, 2, NAN, 0.5, &err), "beta_start");
    CHECK_REFUSED(dc_schedule_from_alphas_cumprod(out, other, rising, 2, &err), "must be below");
    CHECK_REFUSED(dc_schedule_from_alphas_cumprod(out, other, large, 2, &err), "[0, 1]");
    CHECK_REFUSED(dc_schedule_from_alphas_cumprod(out, other, nan_bar, 2, &err), "alphas_cumprod[1]");
    CHECK_REFUSED(dc_schedule_flow(out, other, time, 2, 0.0, &err), "shift");
    CHECK_REFUSED(dc_schedule_flow(out, other, time, 2, INFINITY, &err), "shift");
    CHECK_REFUSED(dc_schedule_edm(out, other, time, zero, 2, 0.5, &err), "sigmas[0]");
    CHECK_REFUSED(dc_schedule_edm(out, other, time, a, 2, -1.0, &err), "sigma_data");
    CHECK_REFUSED(dc_schedule_target(out, other, a, s, 2, DC_PREDICTION_EDM, 0.0, &err), "sigma_data");
    CHECK_REFUSED(dc_schedule_check(a, s, time, 2, &err), "not monotone");
    CHECK_REFUSED(dc_schedule_check(zero, zero, time, 2, &err), "both zero");
    CHECK_REFUSED(dc_schedule_check(nan_bar, a, time, 2, &err), "row 1");
    s[1] = 0.2;
    CHECK(dc_schedule_check(a, s, time, 2, NULL) == DC_OK);
}

int main(void)
{
    check_betas();
    check_continuous();
    check_targets();
    check_refusals();
    return test_done();
}
