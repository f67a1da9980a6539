/* The plan: turns the open rounds of all images in flight into full batches of rows.
 *
 * Rows are trial-major: all arms and conditions that share one (image, t, eps) are neighbours, so that noise is made once
 * for them.  An image's round may straddle batches, a batch may hold rounds of many images.  A new image is admitted
 * whenever the rows in hand do not fill a batch.  The order of rows never changes a number: see DESIGN, promises. */
#ifndef DC_METHOD_PLAN_H
#define DC_METHOD_PLAN_H

#include <stdint.h>

#include "method/slot.h"

/* One evaluation. */
typedef struct dc_row {
    int64_t slot, arm, trial; /* arm: the number that the slot's race has for it */
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
