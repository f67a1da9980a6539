/* A piece: some rows of one group, as kernels see it.  A block of threads does one block of elements of one piece.
 *
 * Every thread holds units of neighbouring elements, made or read at once (element.h); noise comes by fours, which one call
 * of Philox gives. */
#ifndef DC_CUDA_PIECE_H
#define DC_CUDA_PIECE_H

#include "backend.h"
#include "cuda/element.h"
#include "formulas/gaussian.h"
#include "formulas/philox.h"

enum { DC_BLOCK = 1024 }; /* elements; also the block of eps_error's sum */

static inline int64_t dc_blocks(int64_t n_elem)
{
    return (n_elem + DC_BLOCK - 1) / DC_BLOCK;
}

/* Of a recorded step some pieces are for nothing: all zero. */
typedef struct dc_piece {
    const float *x_start, *eps; /* (n_elem,) like dc_group's */
    dc_noise_key key;
    float a, b; /* a * x_start + b * eps is wanted; b has the group's sign */
    int64_t first_row;
    int64_t n_rows;
} dc_piece;

/* ---- sixteen bytes at once, where they stand on a multiple of sixteen ---------------------------------------------- */

static __device__ __forceinline__ void dc_load4(float *out, const float *data)
{
    float4 four = __ldg((const float4 *)data);
    out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}

static __device__ __forceinline__ float4 dc_pack4(const float *in)
{
    float4 four;
    four.x = in[0], four.y = in[1], four.z = in[2], four.w = in[3];
    return four;
}

/* ---- units of four ------------------------------------------------------------------------------------------------- */

/* out (4,) = elements e .. e + 3 of data (n_elem,), 0 past its end; e a multiple of four.  Global memory that no kernel
 * writes meanwhile: said by __ldg, for the pointer comes from memory and could be of any. */
static __device__ __forceinline__ void dc_read4(float *out, const float *data, int64_t e, int64_t n_elem)
{
    if (e + 4 <= n_elem && dc_is_aligned(data)) {
        dc_load4(out, data + e);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        out[i] = e + i < n_elem ? __ldg(data + e + i) : 0.0f;
}

/* eps (4,): the normals of one Philox block, elements 4 block .. 4 block + 3. */
static __device__ __forceinline__ void dc_normals4(float *eps, dc_noise_key key, uint64_t block)
{
    dc_words words = dc_noise_words(key.seed, key.noise_index, key.timestep, block);
    dc_gaussian_pair(&eps[0], &eps[1], words.w0, words.w1);
    dc_gaussian_pair(&eps[2], &eps[3], words.w2, words.w3);
}

/* out (4,) = a * x_start + b * eps for elements e .. e + 3; eps given, or made here and now. */
static __device__ __forceinline__ void dc_mix4(float *out, const dc_piece *piece, int64_t e, int64_t n_elem)
{
    float x_start[4], eps[4];
    dc_read4(x_start, piece->x_start, e, n_elem);
    if (piece->eps != NULL)
        dc_read4(eps, piece->eps, e, n_elem);
    else
        dc_normals4(eps, piece->key, (uint64_t)e / 4);
#pragma unroll
    for (int i = 0; i < 4; i++)
        out[i] = dc_mix(piece->a, x_start[i], piece->b, eps[i]);
}

#endif
