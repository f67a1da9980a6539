/* The product of the native DiT, see dit/operations.h. */
#ifndef DC_CPU_LINEAR_H
#define DC_CPU_LINEAR_H

#include "dit/operations.h"

void dc_linear_cpu(const dc_backend *self, float *y, const float *x, const dc_linear *layer, int64_t n_rows,
                   dc_finish finish);

#endif
