/* The noise schedule: float64 coefficients of the forward process and of the target, one row a timestep.
 *
 *   x_t = alpha[t] * x_start + sigma[t] * eps,   target = p[t] * x_start + q[t] * eps
 *
 *   epsilon          (p, q) = (0, 1)
 *   v_prediction     (-sigma, alpha)       Salimans and Ho (2022)
 *   sample           (1, 0)
 *   flow_prediction  (-1, 1)               Lipman et al. (2023), x_t = (1 - s) x_start + s eps
 *   edm              raw network output    Karras et al. (2022), eq. 7 and 8
 *
 * Arrays are the caller's, (n,) float64. */
#ifndef DC_METHOD_SCHEDULE_H
#define DC_METHOD_SCHEDULE_H

#include <stdint.h>

#include "base/status.h"

enum { DC_SCHEDULE_MAX = 1 << 20 }; /* timesteps; beyond that the caller passed something else */

typedef enum dc_prediction_type {
    DC_PREDICTION_EPSILON = 0,
    DC_PREDICTION_V,
    DC_PREDICTION_SAMPLE,
    DC_PREDICTION_FLOW,
    DC_PREDICTION_EDM,
} dc_prediction_type;

/* betas (n,): linear from first to last; scaled_linear is linear in the square root (Stable Diffusion). */
DC_MUST_USE dc_status dc_schedule_betas_linear(double *betas, int64_t n, double first, double last, dc_error *err);
DC_MUST_USE dc_status dc_schedule_betas_scaled_linear(double *betas, int64_t n, double first, double last,
                                                      dc_error *err);
/* Nichol and Dhariwal (2021), eq. 17, betas capped at 0.999 (diffusers' squaredcos_cap_v2). */
DC_MUST_USE dc_status dc_schedule_betas_squaredcos(double *betas, int64_t n, dc_error *err);
/* alphas_cumprod (n,) from betas (n,); in place is fine. */
void dc_schedule_alphas_cumprod(double *alphas_cumprod, const double *betas, int64_t n);

/* alpha = sqrt(abar), sigma = sqrt(1 - abar); abar must be in [0, 1], strictly decreasing; it may be
 * either output's array. */
DC_MUST_USE dc_status dc_schedule_from_alphas_cumprod(double *alpha, double *sigma, const double *alphas_cumprod,
                                                      int64_t n, dc_error *err);
/* Rectified flow: s_i = shift u / (1 + (shift - 1) u), u = (i + 1) / n; alpha = 1 - s, sigma = s, time = s * n
 * (diffusers' FlowMatchEulerDiscreteScheduler, ascending here). */
DC_MUST_USE dc_status dc_schedule_flow(double *alpha, double *sigma, double *time, int64_t n, double shift,
                                       dc_error *err);
/* Variance exploding with EDM's preconditioning: alpha = c_in, sigma = c_in * sigmas with c_in = 1 / sqrt(sigmas^2 +
 * sigma_data^2), so x_t is what the network is fed; time = c_noise = log(sigmas) / 4. */
DC_MUST_USE dc_status dc_schedule_edm(double *alpha, double *sigma, double *time, const double *sigmas, int64_t n,
                                      double sigma_data, dc_error *err);

/* Any schedule: 1 <= n <= DC_SCHEDULE_MAX, all finite, alpha >= 0, sigma >= 0, not both 0, sigma / alpha strictly
 * increasing. */
DC_MUST_USE dc_status dc_schedule_check(const double *alpha, const double *sigma, const double *time, int64_t n,
                                        dc_error *err);

/* p, q (n,) of a prediction type; sigma_data is read by edm only. */
DC_MUST_USE dc_status dc_schedule_target(double *p, double *q, const double *alpha, const double *sigma, int64_t n,
                                         dc_prediction_type type, double sigma_data, dc_error *err);

#endif
