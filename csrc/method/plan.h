/* The plan: turns the open rounds of all images in flight into full batches of rows.
 *
 * Rows are trial-major: all arms and conditions that share one (image, t, eps) are neighbours, so that noise is made once
 * for them.  An image's round may straddle batches, a batch may hold rounds of many images.  A new image is admitted
 * whenever the rows in hand do not fill a batch.  The order of rows never changes a number: see DESIGN, promises. */
#ifndef DC_METHOD_PLAN_H
#define DC_METHOD_PLAN_H

#include <stdint.h>

#include "base/status.h"
#include "method/race.h"

/* One image in flight: its race and how far its open round was handed out and answered. */
typedef struct dc_slot {
    dc_race *race; /* NULL: free */
    float *x_start; /* (n_elem,) */
    int64_t tag;
    dc_race_round round;
    int64_t trial, arm, condition; /* cursor: offset in the round, position in alive, condition of that arm */
    int64_t n_waiting;             /* rows handed out and not answered */
    int finished;
    double pooled, lowest; /* of the arm and trial being answered: sum of e, or of exp(-(e - lowest) / T) */
} dc_slot;

/* One evaluation. */
typedef struct dc_row {
    int64_t slot, arm, trial;
    int64_t condition; /* position in the list of all conditions */
} dc_row;

/* Puts the slot's cursor at the start of its race's open round. */
void dc_plan_open(dc_slot *slot);

/* Appends rows of the slot's open round to rows[n_rows .. limit), trial-major; returns the new n_rows. */
int64_t dc_plan_fill(dc_slot *slot, int64_t index, const int64_t *condition_offset, dc_row *rows, int64_t n_rows,
                     int64_t limit);

/* 1 when every row of the open round was handed out and answered. */
int dc_plan_round_done(const dc_slot *slot);

#endif
