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

/* One evaluation. */
typedef struct dc_row {
    int64_t image;     /* slot of the image in flight */
    int64_t arm, trial;
    int64_t condition; /* what the denoiser is told */
} dc_row;

#endif
