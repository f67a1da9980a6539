/* Trials: which (timestep, eps) is looked at next.  Every class sees the same trials in the same order, and every prefix
 * of them covers the schedule almost evenly (base-2 van der Corput order), so a race may stop anywhere. */
#ifndef DC_METHOD_TRIALS_H
#define DC_METHOD_TRIALS_H

#include <stdint.h>

#include "base/status.h"

typedef struct dc_trial {
    uint32_t timestep;    /* row of the schedule */
    uint32_t noise_index; /* which eps at that timestep */
    float eps_sign;       /* +1; -1 for the second of an antithetic pair */
    double weight;        /* in the mean: w(t) / (n_timesteps q(t)), scaled so that the pool's mean is 1 */
} dc_trial;

/* order (n,): 0 .. n-1 by bit reversal; each prefix is spread evenly. */
void dc_trials_order(int64_t *order, int64_t n);

/* trials (n_trials,).  Row j of the pool sits at the quantile (j + 1/2) / n_trials of the density q over timesteps and
 * is read in bit-reversed order; its noise index is j.  weighting (n_timesteps,) >= 0 or NULL for uniform; density
 * (n_timesteps,) > 0 where weighting is, or NULL for uniform over the support of weighting.  antithetic: a row is two
 * trials, 2i and 2i + 1 in order of reading, with opposite signs; there are n_trials / 2 rows, rounded up. */
DC_MUST_USE dc_status dc_trials_pool(dc_trial *trials, int64_t n_trials, int64_t n_timesteps, const double *weighting,
                                     const double *density, int antithetic, dc_error *err);

/* The given timesteps in the given order, one trial each, noise index i.  antithetic: trials 2i and 2i + 1 must be given
 * the same timestep; they share a noise index, with opposite signs. */
DC_MUST_USE dc_status dc_trials_list(dc_trial *trials, const int64_t *timesteps, int64_t n_trials, int64_t n_timesteps,
                                     const double *weighting, int antithetic, dc_error *err);

/* The published code's staged grids (Li et al., 2023, eval_prob_adaptive): with N the largest of n_samples, grid = first,
 * first + step, ... with step = n_timesteps / N, first = step / 2, cut at N; a stage of n reads every (N / n)-th position
 * from half that stride, cut at n, without what earlier stages read.  timesteps (N,): in order of evaluation;
 * stage_ends (n_stages,): cumulative counts.  Grids do not nest, so a stage's count exceeds its n_samples.  n_trials
 * repeats every timestep.  timesteps must hold N * n_trials. */
DC_MUST_USE dc_status dc_trials_published(int64_t *timesteps, int64_t *stage_ends, const int64_t *n_samples,
                                          int64_t n_stages, int64_t n_timesteps, int64_t n_trials, dc_error *err);

#endif
