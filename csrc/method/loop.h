/* The loop: noising -> denoiser -> eps-error -> race, batch by batch, for many images in flight.
 *
 *   while (an image is in flight or waiting):
 *       rows   = plan's next full batch
 *       x_t    = backend noising (eps from its counter, kept for the batch where that is quicker)
 *       answer = denoiser(x_t, time, condition)
 *       error  = backend eps_error (the same eps, kept or made again)
 *       every race whose round is complete closes it: drops classes, stops or goes on
 *
 * With a device, one batch is under way there while the one before it is read and the next is filled: whatever the device
 * is asked for is of rounds that are open anyway, so its numbers are those of a host.
 *
 * It holds no lock and starts no thread.  Results do not depend on batch_size, max_in_flight or the order of images. */
#ifndef DC_METHOD_LOOP_H
#define DC_METHOD_LOOP_H

#include <stdint.h>

#include "backend.h"
#include "base/status.h"
#include "method/plan.h"
#include "method/race.h"
#include "method/trials.h"

/* What a denoiser is asked.  Arrays are borrowed for the call. */
typedef struct dc_batch {
    int64_t n_rows, n_elem;
    const float *x_t;         /* (n_rows, n_elem) as the denoiser's layout has it, like the prediction in the backend's
                               * memory; the others in the host's */
    const int64_t *timesteps; /* (n_rows,) rows of the schedule */
    const double *time;       /* (n_rows,) the schedule's own time value of each row */
    const int64_t *condition; /* (n_rows,) */
    const int64_t *input_of_row; /* (n_rows,) rising from 0: neighbours with the same number have the same x_t; NULL: unknown */
} dc_batch;

/* A whole step as one of DC_GRAPHS graphs of the device.  All four return DC_OK or fill err. */
typedef struct dc_recorder {
    dc_status (*begin)(void *context, int graph, dc_error *err); /* what is begun on the stream is recorded from here */
    dc_status (*end)(void *context, int graph, dc_error *err);   /* to here; input, denoise, release came in between */
    dc_status (*abandon)(void *context, int graph, dc_error *err); /* after a failure: tells of it once; DC_OK: go on without */
    /* Runs what was recorded, for the timesteps, time and condition of this batch, which has as many rows; x_t is NULL. */
    dc_status (*replay)(void *context, int graph, const dc_batch *batch, dc_error *err);
} dc_recorder;

/* A denoiser.  input: gives the array (n_rows, n_elem) that the next batch's x_t is written to, owned by the denoiser;
 * denoise: fills *out; its data stays valid until release, which follows every denoise that returned DC_OK.  Both return
 * DC_OK or fill err; DC_ERR_NOMEM: fewer rows might fit, and are asked.  With a device they are of its stream: release comes
 * when eps-error was begun, and the next batch's x_t may be written to the same place. */
typedef struct dc_denoiser {
    void *context;
    dc_status (*input)(void *context, float **x_t, int64_t n_rows, int64_t n_elem, dc_error *err);
    dc_status (*denoise)(void *context, const dc_batch *batch, dc_prediction *out, dc_error *err);
    void (*release)(void *context);
    const dc_layout *layout;     /* of x_t, read after input, which is then no float *; NULL: float32 as x_start */
    const dc_recorder *recorder; /* NULL: no step of it can be recorded */
} dc_denoiser;

/* Everything that is fixed for a run.  All pointers are borrowed for the life of the loop. */
typedef struct dc_loop_params {
    const dc_backend *backend;
    dc_denoiser denoiser;
    int64_t n_elem;
    int64_t n_timesteps;
    const double *alpha, *sigma, *time, *p, *q; /* (n_timesteps,) */
    dc_arms arms;
    const int64_t *condition_offset; /* (n_arms + 1,): conditions of arm a are offset[a] .. offset[a + 1] - 1 */
    const int64_t *conditions;       /* (offset[n_arms],) ids that the denoiser is told */
    double pool_temperature;         /* several conditions in one arm: 0 mean of errors; > 0 -T log mean exp(-e / T) */
    const dc_trial *trials;          /* (n_trials,) the pool */
    int64_t n_trials;
    dc_policy policy;
    dc_loss loss;
    float delta;                     /* Huber's */
    uint64_t seed;
    const float *noise;              /* (n_noise, n_elem) given eps, trial's noise_index is its row; or NULL */
    int64_t n_noise;
    int64_t batch_size;
    int64_t max_in_flight;
    /* Called after every batch with the evaluations done so far; not OK stops the loop.  May be NULL. */
    dc_status (*after_batch)(void *context, int64_t n_evals, dc_error *err);
    void *after_batch_context;
} dc_loop_params;

typedef struct dc_loop dc_loop;

/* Checks params, but whether max_evals allows a trial, which depends on the arms of an image; allocates everything the loop
 * needs.  *out: returns new. */
DC_MUST_USE dc_status dc_loop_new(dc_loop **out, const dc_loop_params *params, dc_error *err);
void dc_loop_free(dc_loop *loop); /* takes; NULL is fine */

/* Queues an image: x_start (n_elem,) is copied.  tag comes back with its result.  Non-finite x_start is DC_ERR_VALUE.
 * listed (n_listed,): the only arms that race for it, rising, copied: see dc_slot_list.  NULL: all. */
DC_MUST_USE dc_status dc_loop_add(dc_loop *loop, const float *x_start, const int64_t *listed, int64_t n_listed, int64_t tag,
                                  dc_error *err);

/* 1 while fewer images than max_in_flight are in flight or waiting: the caller should add one before advancing. */
int dc_loop_wants_image(const dc_loop *loop);

/* Runs batches until an image is finished (*race: borrowed until the next call, *tag), or nothing is in flight (*race
 * NULL).  With drain = 0 it also returns (*race NULL) when the rows in hand do not fill a batch and another image could be
 * added; with drain = 1 it runs partial batches.  After an error the loop can only be freed. */
DC_MUST_USE dc_status dc_loop_advance(dc_loop *loop, int drain, const dc_race **race, int64_t *tag, dc_error *err);

/* What was done so far: rows evaluated, batches, and rows / (batches * batch_size); and the batch_size that fits. */
typedef struct dc_loop_stats {
    int64_t n_evals, n_batches;
    double fill;
    int64_t batch_size;
} dc_loop_stats;
dc_loop_stats dc_loop_statistics(const dc_loop *loop);

#endif
