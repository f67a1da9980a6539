/* A cuBLASLt of plain loops on the device of shim/, and strict: whatever is inconsistent, unaligned, not there, not written or
 * not what the chosen algorithm was chosen for is reported.  Declared as cuda/blas.h has it, so its names can be the library's. */
#ifndef DC_TEST_LT_DOUBLE_H
#define DC_TEST_LT_DOUBLE_H

#include "cuda/blas.h"

/* The table of cuda/blas.h, filled with the double. */
dc_lt lt_double();

/* Handles, descriptions, layouts and preferences that were not destroyed; and products done since the start. */
extern "C" int64_t lt_double_live();
extern "C" int64_t lt_double_products();

#endif
