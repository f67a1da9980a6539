/* The second half of the CPU backend's table, see dit/operations.h. */
#ifndef DC_CPU_DIT_OPERATIONS_H
#define DC_CPU_DIT_OPERATIONS_H

#include "dit/operations.h"

extern const dc_dit_operations dc_cpu_dit_operations;

void dc_linear_cpu(const dc_backend *self, void *y, const void *x, const dc_linear *layer, int64_t n_rows,
                   dc_finish finish);
void dc_attention_cpu(const dc_backend *self, void *out, const void *qkv, float *scratch, int64_t n_heads,
                      dc_tokens tokens);

#endif
