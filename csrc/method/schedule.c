#include "method/schedule.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static dc_status check_length(int64_t n, dc_error *err)
{
    if (n < 1 || n > DC_SCHEDULE_MAX)
        return dc_error_set(err, DC_ERR_VALUE, "the schedule has %lld timesteps, must have 1 to %d", (long long)n,
                            DC_SCHEDULE_MAX);
    return DC_OK;
}

static dc_status check_betas(int64_t n, double first, double last, dc_error *err)
{
    dc_status status = check_length(n, err);
    if (status != DC_OK)
        return status;
    if (!(first > 0.0 && first < 1.0 && last > 0.0 && last < 1.0))
        return dc_error_set(err, DC_ERR_VALUE, "beta_start and beta_end are %g and %g, must be in (0, 1)", first, last);
    return DC_OK;
}

dc_status dc_schedule_betas_linear(double *betas, int64_t n, double first, double last, dc_error *err)
{
    dc_status status = check_betas(n, first, last, err);
    for (int64_t i = 0; status == DC_OK && i < n; i++)
        betas[i] = n == 1 ? first : first + (last - first) * (double)i / (double)(n - 1);
    return status;
}

dc_status dc_schedule_betas_scaled_linear(double *betas, int64_t n, double first, double last, dc_error *err)
{
    dc_status status = check_betas(n, first, last, err);
    if (status == DC_OK)
        status = dc_schedule_betas_linear(betas, n, sqrt(first), sqrt(last), err);
    for (int64_t i = 0; status == DC_OK && i < n; i++)
        betas[i] *= betas[i];
    return status;
}

dc_status dc_schedule_betas_squaredcos(double *betas, int64_t n, dc_error *err)
{
    dc_status status = check_length(n, err);
    for (int64_t i = 0; status == DC_OK && i < n; i++) {
        double here = cos(((double)i / (double)n + 0.008) / 1.008 * pi / 2);
        double next = cos(((double)(i + 1) / (double)n + 0.008) / 1.008 * pi / 2);
        betas[i] = fmin(1.0 - next * next / (here * here), 0.999);
    }
    return status;
}

void dc_schedule_alphas_cumprod(double *alphas_cumprod, const double *betas, int64_t n)
{
    double product = 1.0;
    for (int64_t i = 0; i < n; i++)
        alphas_cumprod[i] = product *= 1.0 - betas[i];
}

dc_status dc_schedule_from_alphas_cumprod(double *alpha, double *sigma, const double *alphas_cumprod, int64_t n,
                                          dc_error *err)
{
    dc_status status = check_length(n, err);
    double previous = INFINITY;
    for (int64_t i = 0; status == DC_OK && i < n; i++) {
        double bar = alphas_cumprod[i];
        if (!(bar >= 0.0 && bar <= 1.0))
            return dc_error_set(err, DC_ERR_VALUE, "alphas_cumprod[%lld] is %g, must be in [0, 1]", (long long)i, bar);
        if (!(bar < previous))
            return dc_error_set(err, DC_ERR_VALUE,
                                "alphas_cumprod[%lld] is %.17g, must be below alphas_cumprod[%lld] = %.17g", (long long)i,
                                bar, (long long)(i - 1), previous);
        previous = bar;
        alpha[i] = sqrt(bar);
        sigma[i] = sqrt(1.0 - bar);
    }
    return status;
}

dc_status dc_schedule_flow(double *alpha, double *sigma, double *time, int64_t n, double shift, dc_error *err)
{
    dc_status status = check_length(n, err);
    if (status != DC_OK)
        return status;
    if (!(shift > 0.0) || !isfinite(shift))
        return dc_error_set(err, DC_ERR_VALUE, "shift is %g, must be positive", shift);
    for (int64_t i = 0; i < n; i++) {
        double u = (double)(i + 1) / (double)n, s = shift * u / (1.0 + (shift - 1.0) * u);
        alpha[i] = 1.0 - s;
        sigma[i] = s;
        time[i] = s * (double)n;
    }
    return DC_OK;
}

dc_status dc_schedule_edm(double *alpha, double *sigma, double *time, const double *sigmas, int64_t n,
                          double sigma_data, dc_error *err)
{
    dc_status status = check_length(n, err);
    if (status != DC_OK)
        return status;
    if (!(sigma_data > 0.0) || !isfinite(sigma_data))
        return dc_error_set(err, DC_ERR_VALUE, "sigma_data is %g, must be positive", sigma_data);
    for (int64_t i = 0; i < n; i++) {
        if (!(sigmas[i] > 0.0) || !isfinite(sigmas[i]))
            return dc_error_set(err, DC_ERR_VALUE, "sigmas[%lld] is %g, must be positive", (long long)i, sigmas[i]);
        double c_in = 1.0 / sqrt(sigmas[i] * sigmas[i] + sigma_data * sigma_data);
        alpha[i] = c_in;
        sigma[i] = c_in * sigmas[i];
        time[i] = log(sigmas[i]) / 4.0;
    }
    return DC_OK;
}

dc_status dc_schedule_check(const double *alpha, const double *sigma, const double *time, int64_t n, dc_error *err)
{
    dc_status status = check_length(n, err);
    for (int64_t i = 0; status == DC_OK && i < n; i++) {
        if (!isfinite(alpha[i]) || !isfinite(sigma[i]) || !isfinite(time[i]) || alpha[i] < 0.0 || sigma[i] < 0.0 ||
            (alpha[i] == 0.0 && sigma[i] == 0.0))
            return dc_error_set(err, DC_ERR_VALUE,
                                "row %lld of the schedule is alpha %g, sigma %g, time %g; all must be finite, alpha and "
                                "sigma not negative and not both zero",
                                (long long)i, alpha[i], sigma[i], time[i]);
        /* sigma / alpha rises; cross-multiplied, since alpha may be zero at the noisy end */
        if (i > 0 && !(sigma[i] * alpha[i - 1] > sigma[i - 1] * alpha[i]))
            return dc_error_set(err, DC_ERR_VALUE,
                                "the schedule is not monotone: sigma / alpha does not rise from row %lld to row %lld",
                                (long long)(i - 1), (long long)i);
    }
    return status;
}

dc_status dc_schedule_target(double *p, double *q, const double *alpha, const double *sigma, int64_t n,
                             dc_prediction_type type, double sigma_data, dc_error *err)
{
    if (type == DC_PREDICTION_EDM && (!(sigma_data > 0.0) || !isfinite(sigma_data)))
        return dc_error_set(err, DC_ERR_VALUE, "sigma_data is %g, must be positive for prediction type edm", sigma_data);
    for (int64_t i = 0; i < n; i++) {
        switch (type) {
        case DC_PREDICTION_EPSILON:
            p[i] = 0.0, q[i] = 1.0;
            break;
        case DC_PREDICTION_V:
            p[i] = -sigma[i], q[i] = alpha[i];
            break;
        case DC_PREDICTION_SAMPLE:
            p[i] = 1.0, q[i] = 0.0;
            break;
        case DC_PREDICTION_FLOW:
            p[i] = -1.0, q[i] = 1.0;
            break;
        case DC_PREDICTION_EDM: {
            /* F = (D - c_skip y) / c_out for the perfect D = x_start and y = x_start + (sigma / alpha) eps; written so
             * that neither end of the schedule divides by zero */
            double total = sqrt(sigma[i] * sigma[i] + alpha[i] * alpha[i] * sigma_data * sigma_data);
            p[i] = sigma[i] / (sigma_data * total), q[i] = -sigma_data * alpha[i] / total;
            break;
        }
        }
    }
    return DC_OK;
}
