/* A step: rows of one batch -> x_t -> denoiser -> errors, which on a device has only begun when the call returns.
 *
 * A denoiser without memory for so many rows is asked for half of them from there on: errors do not depend on it.  With a
 * device and a denoiser that can be recorded, a full batch becomes a graph after N_WARM of them were asked call by call;
 * what can not be recorded goes on call by call. */
#ifndef DC_METHOD_STEP_H
#define DC_METHOD_STEP_H

#include "method/loop.h"
#include "method/slot.h"

typedef struct dc_step {
    dc_loop_params *params; /* borrowed, like slots; batch_size falls when the denoiser's memory is full */
    const dc_slot *slots;
    dc_group *groups; /* (batch_size,) like the next four */
    int64_t *timesteps, *condition, *input_of_row;
    double *time;
    int64_t n_kept; /* groups whose eps is kept between noising and eps-error */
    float *kept;    /* (n_kept, n_elem) */
    int64_t n_warm; /* full batches that were asked call by call */
    int is_recorded[DC_GRAPHS], is_unrecordable;
} dc_step;

/* *step: zeroed by the caller.  Clear it after a failure too. */
DC_MUST_USE dc_status dc_step_init(dc_step *step, dc_loop_params *params, const dc_slot *slots, dc_error *err);
void dc_step_clear(dc_step *step);

/* errors (n_rows,) of rows (n_rows,).  With a device `errors` is always the same for the same `graph` (0 or 1), and what
 * was asked with it before has passed its mark.  *n_room: the rows that the batches asked could have held. */
DC_MUST_USE dc_status dc_step_ask(dc_step *step, double *errors, const dc_row *rows, int64_t n_rows, int graph,
                                  int64_t *n_room, dc_error *err);

#endif
