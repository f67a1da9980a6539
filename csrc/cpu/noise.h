/* Noise on the CPU.  Kernels work on tiles that stay in L1. */
#ifndef DC_CPU_NOISE_H
#define DC_CPU_NOISE_H

#include "backend.h"
#include "cpu/simd.h"

enum { DC_TILE = 1024 }; /* elements; also the block of eps_error's sum */

/* eps (4 * n_blocks,): whole blocks of four elements; n_blocks <= DC_TILE / 4. */
typedef void (*dc_noise_blocks_fn)(float *eps, dc_noise_key key, uint64_t first_block, int n_blocks);
dc_noise_blocks_fn dc_noise_blocks(dc_simd simd);

/* eps (count,): any slice of the stream. */
void dc_noise_fill(dc_noise_blocks_fn blocks, float *eps, dc_noise_key key, int64_t first, int64_t count);

#endif
