/* Replay: the errors of many images, stored for every arm and trial, through the race of race.h.  The same calls as live,
 * so the same bits; the backend lends its threads and nothing else. */
#ifndef DC_METHOD_REPLAY_H
#define DC_METHOD_REPLAY_H

#include <stdint.h>

#include "backend.h"
#include "base/status.h"
#include "method/race.h"
#include "method/trials.h"

/* All pointers are borrowed. */
typedef struct dc_replay_params {
    const dc_backend *backend;
    dc_arms arms;
    const double *errors; /* (n_images, n_arms, n_stored), unweighted */
    int64_t n_images, n_stored;
    int64_t first_image;    /* what the first of them is called in messages */
    const int64_t *columns; /* (n_trials,): where each trial of the pool lies among the stored ones */
    const dc_trial *trials; /* (n_trials,) the pool */
    int64_t n_trials;
    dc_policy policy;
} dc_replay_params;

/* What one image's race says. */
typedef struct dc_replay_row {
    dc_race_result result; /* its arrays are the caller's, any of them NULL */
    dc_round *rounds;      /* (n_rounds,), owned: the caller frees it with dc_free, after an error too */
    int64_t n_rounds;
    dc_status status;
} dc_replay_row;

/* rows (n_images,) zeroed but for the arrays of their results.  The error is the first image's that has one, whatever the
 * number of threads: DC_ERR_VALUE for an error that the race needs and that is not finite. */
DC_MUST_USE dc_status dc_replay(dc_replay_row *rows, const dc_replay_params *params, dc_error *err);

#endif
