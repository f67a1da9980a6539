#include "method/trials.h"

#include <math.h>

#include "base/memory.h"

void dc_trials_order(int64_t *order, int64_t n)
{
    int bits = 0;
    while (((int64_t)1 << bits) < n)
        bits++;
    int64_t count = 0;
    for (int64_t i = 0; i < (int64_t)1 << bits; i++) {
        int64_t reversed = 0;
        for (int bit = 0; bit < bits; bit++)
            reversed |= ((i >> bit) & 1) << (bits - 1 - bit);
        if (reversed < n)
            order[count++] = reversed;
    }
}

static dc_status check_array(const double *values, int64_t n, const char *name, double *sum, dc_error *err)
{
    *sum = 0.0;
    for (int64_t t = 0; t < n; t++) {
        if (!(values[t] >= 0.0) || !isfinite(values[t]))
            return dc_error_set(err, DC_ERR_VALUE, "%s[%lld] is %g, must be finite and not negative", name, (long long)t,
                                values[t]);
        *sum += values[t];
    }
    if (!(*sum > 0.0) || !isfinite(*sum))
        return dc_error_set(err, DC_ERR_VALUE, "%s sums to %g, must be positive", name, *sum);
    return DC_OK;
}

/* density (n_timesteps,): the given one, or uniform over the support of weighting; not normalised. */
static dc_status make_density(double *density, const double *given, const double *weighting, int64_t n_timesteps,
                              dc_error *err)
{
    double sum;
    dc_status status = DC_OK;
    if (weighting != NULL && (status = check_array(weighting, n_timesteps, "weighting", &sum, err)) != DC_OK)
        return status;
    if (given != NULL && (status = check_array(given, n_timesteps, "density", &sum, err)) != DC_OK)
        return status;
    for (int64_t t = 0; t < n_timesteps; t++) {
        int supported = weighting == NULL || weighting[t] > 0.0;
        density[t] = !supported ? 0.0 : given != NULL ? given[t] : 1.0;
        if (supported && !(density[t] > 0.0))
            return dc_error_set(err, DC_ERR_VALUE, "density[%lld] is 0 where weighting is %g, must be positive there",
                                (long long)t, weighting != NULL ? weighting[t] : 1.0);
    }
    return status;
}

/* Scales weights so that their mean over the pool is one. */
static void normalise_weights(dc_trial *trials, int64_t n_trials)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n_trials; i++)
        sum += trials[i].weight;
    for (int64_t i = 0; i < n_trials; i++)
        trials[i].weight *= (double)n_trials / sum;
}

static dc_status check_counts(int64_t n_trials, int64_t n_timesteps, dc_error *err)
{
    if (n_trials < 1 || n_trials > UINT32_MAX)
        return dc_error_set(err, DC_ERR_VALUE, "the pool has %lld trials, must have 1 to 2^32 - 1", (long long)n_trials);
    if (n_timesteps < 1 || n_timesteps > UINT32_MAX)
        return dc_error_set(err, DC_ERR_VALUE, "the schedule has %lld timesteps, must have 1 or more",
                            (long long)n_timesteps);
    return DC_OK;
}

dc_status dc_trials_pool(dc_trial *trials, int64_t n_trials, int64_t n_timesteps, const double *weighting,
                         const double *density, int antithetic, dc_error *err)
{
    void *memory = NULL;
    int64_t *order = NULL, *grid = NULL;
    double *q = NULL, total = 0.0, below = 0.0;
    dc_status status = check_counts(n_trials, n_timesteps, err);
    if (status != DC_OK)
        return status;
    int64_t share = antithetic ? 2 : 1, n_points = (n_trials + share - 1) / share;
    if ((status = dc_alloc(&memory, n_points, sizeof *order, "the order of trials", err)) != DC_OK)
        goto done;
    order = memory;
    if ((status = dc_alloc(&memory, n_points, sizeof *grid, "the grid of timesteps", err)) != DC_OK)
        goto done;
    grid = memory;
    if ((status = dc_alloc(&memory, n_timesteps, sizeof *q, "the density of timesteps", err)) != DC_OK)
        goto done;
    q = memory;
    if ((status = make_density(q, density, weighting, n_timesteps, err)) != DC_OK)
        goto done;
    for (int64_t t = 0; t < n_timesteps; t++)
        total += q[t];
    /* timestep of each quantile, by one walk along the cumulative density; multiplied first: exact where it can be */
    for (int64_t j = 0, t = 0; j < n_points; j++) {
        double quantile = ((double)j + 0.5) * total / (double)n_points;
        while (t < n_timesteps - 1 && below + q[t] <= quantile)
            below += q[t++];
        while (q[t] == 0.0) /* rounding at the upper end */
            t--;
        grid[j] = t;
    }
    dc_trials_order(order, n_points);
    for (int64_t i = 0; i < n_trials; i++) {
        int64_t j = order[i / share], t = grid[j];
        trials[i] = (dc_trial){(uint32_t)t, (uint32_t)j, i % share ? -1.0f : 1.0f,
                               (weighting != NULL ? weighting[t] : 1.0) / q[t]};
    }
    normalise_weights(trials, n_trials);
done:
    dc_free(q);
    dc_free(grid);
    dc_free(order);
    return status;
}

dc_status dc_trials_list(dc_trial *trials, const int64_t *timesteps, int64_t n_trials, int64_t n_timesteps,
                         const double *weighting, int antithetic, dc_error *err)
{
    double sum;
    dc_status status = check_counts(n_trials, n_timesteps, err);
    if (status == DC_OK && weighting != NULL)
        status = check_array(weighting, n_timesteps, "weighting", &sum, err);
    if (status != DC_OK)
        return status;
    sum = 0.0;
    for (int64_t i = 0; i < n_trials; i++) {
        int64_t t = timesteps[i];
        if (t < 0 || t >= n_timesteps)
            return dc_error_set(err, DC_ERR_VALUE, "timesteps[%lld] is %lld, must be a row of the schedule, 0 to %lld",
                                (long long)i, (long long)t, (long long)(n_timesteps - 1));
        int is_second = antithetic && i % 2;
        if (is_second && t != timesteps[i - 1])
            return dc_error_set(err, DC_ERR_VALUE,
                                "timesteps[%lld] and timesteps[%lld] are %lld and %lld, must be equal: antithetic noise takes "
                                "each timestep twice in a row",
                                (long long)(i - 1), (long long)i, (long long)timesteps[i - 1], (long long)t);
        trials[i] = (dc_trial){(uint32_t)t, (uint32_t)(i - is_second), is_second ? -1.0f : 1.0f,
                               weighting != NULL ? weighting[t] : 1.0};
        sum += trials[i].weight;
    }
    if (!(sum > 0.0))
        return dc_error_set(err, DC_ERR_VALUE, "weighting is 0 at every one of the %lld timesteps", (long long)n_trials);
    normalise_weights(trials, n_trials);
    return DC_OK;
}

dc_status dc_trials_published(int64_t *timesteps, int64_t *stage_ends, const int64_t *n_samples, int64_t n_stages,
                              int64_t n_timesteps, int64_t n_trials, dc_error *err)
{
    void *seen_memory = NULL;
    int64_t n = 0, count = 0;
    if (n_stages < 1 || n_trials < 1)
        return dc_error_set(err, DC_ERR_VALUE, "n_samples has %lld stages and n_trials is %lld, both must be 1 or more",
                            (long long)n_stages, (long long)n_trials);
    for (int64_t stage = 0; stage < n_stages; stage++) {
        if (n_samples[stage] < 1 || n_samples[stage] > n_timesteps)
            return dc_error_set(err, DC_ERR_VALUE, "n_samples[%lld] is %lld, must be 1 to %lld", (long long)stage,
                                (long long)n_samples[stage], (long long)n_timesteps);
        n = n_samples[stage] > n ? n_samples[stage] : n;
    }
    dc_status status = dc_alloc(&seen_memory, n, 1, "the grid", err);
    char *seen = seen_memory;
    int64_t step = n_timesteps / n;
    for (int64_t stage = 0; status == DC_OK && stage < n_stages; stage++) {
        int64_t stride = n / n_samples[stage], taken = 0;
        for (int64_t i = stride / 2; i < n && taken < n_samples[stage]; i += stride, taken++) {
            for (int64_t trial = 0; !seen[i] && trial < n_trials; trial++)
                timesteps[count++] = step / 2 + i * step;
            seen[i] = 1;
        }
        stage_ends[stage] = count;
    }
    dc_free(seen_memory);
    return status;
}
