/* Inside of a race, for race.c (which runs it) and race_result.c (which reads it). */
#ifndef DC_METHOD_RACE_STATE_H
#define DC_METHOD_RACE_STATE_H

#include <stddef.h>

#include "method/race.h"

/* For sorting: by value, then by position. */
typedef struct dc_rank {
    double value;
    int64_t position;
} dc_rank;

struct dc_race {
    dc_arms arms;
    const dc_trial *trials;
    int64_t n_trials;
    dc_policy policy;
    double *errors; /* (capacity, n_arms), unweighted; arm a has rows 0 .. n_done[a] - 1 */
    int64_t capacity;
    int64_t *n_done; /* (n_arms,) */
    int64_t *alive;  /* (n_arms,), the first n_alive count, ascending */
    int64_t n_alive;
    int decided;   /* one class alive; the winner may still read on */
    int64_t done;  /* closed trials of every arm alive */
    int64_t count; /* trials of the open round */
    int64_t n_evals;
    dc_race_status status;
    dc_round *rounds;
    int64_t n_rounds, rounds_capacity;
    double *sum;         /* (n_arms,) of w e over the arm's closed trials */
    double *variance;    /* (n_arms,) scratch by position in alive, like the next two */
    dc_rank *ranks;
    uint8_t *keep;
    uint8_t *class_seen; /* (n_classes,) scratch */
};

static inline int64_t dc_race_class_of(const dc_race *race, int64_t arm)
{
    return race->arms.class_of_arm != NULL ? race->arms.class_of_arm[arm] : arm;
}

/* Weighted mean loss of an arm over its own trials; 0 before the first. */
static inline double dc_race_mean(const dc_race *race, int64_t arm)
{
    return race->n_done[arm] > 0 ? race->sum[arm] / (double)race->n_done[arm] : 0.0;
}

/* Median of n >= 1 values; sorts them. */
double dc_race_median(dc_rank *ranks, int64_t n);

/* d0 of race.h: of a prior that is the median of so many variances of n_trials each. */
double dc_race_prior_weight(const dc_race *race, int64_t n_variances, int64_t n_trials);

/* Position in `alive` of the smallest mean; ties go to the lowest index. */
int64_t dc_race_leader(const dc_race *race);

#endif
