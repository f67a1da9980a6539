/* Elements of every dtype of x_t and of predictions, and units of them: what a thread moves at once, sixteen bytes or twice
 * as many, where they stand on a multiple of sixteen. */
#ifndef DC_CUDA_ELEMENT_H
#define DC_CUDA_ELEMENT_H

#include "backend.h"
#include "formulas/rounding.h"

typedef struct half_bits {
    uint16_t bits;
} half_bits;
typedef struct bfloat_bits {
    uint16_t bits;
} bfloat_bits;

/* ---- one element --------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float dc_widen(float value)
{
    return value;
}

static __device__ __forceinline__ float dc_widen(double value)
{
    return (float)value;
}

static __device__ __forceinline__ float dc_widen(half_bits value)
{
#ifdef __CUDA_ARCH__
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
#else
    return dc_float16_to_float(value.bits);
#endif
}

static __device__ __forceinline__ float dc_widen(bfloat_bits value)
{
    dc_rounding_bits wide;
    wide.u = (uint32_t)value.bits << 16;
    return wide.f;
}

static __device__ __forceinline__ void dc_narrow(float *out, float value)
{
    *out = value;
}

static __device__ __forceinline__ void dc_narrow(double *out, float value)
{
    *out = (double)value;
}

static __device__ __forceinline__ void dc_narrow(half_bits *out, float value)
{
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out->bits) : "f"(value));
#else
    out->bits = dc_round_float16(value);
#endif
}

static __device__ __forceinline__ void dc_narrow(bfloat_bits *out, float value)
{
    out->bits = dc_round_bfloat16(value); /* an instruction only from sm_80 on */
}

/* ---- units --------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ bool dc_is_aligned(const void *data)
{
    return (uintptr_t)data % 16 == 0;
}

template <typename T> constexpr int DC_UNIT = sizeof(T) == 2 ? 8 : 4;
template <typename T> constexpr int DC_AT_ONCE = 16 / (int)sizeof(T);

/* out (DC_UNIT,) = elements e .. of a row (n_elem,), 0 past its end; e a multiple of DC_UNIT.  Read once: they need not stay
 * in the cache. */
template <typename T>
static __device__ __forceinline__ void dc_read_unit(float *out, const T *row, int64_t e, int64_t n_elem, bool is_aligned)
{
    if (!is_aligned || e + DC_UNIT<T> > n_elem) {
#pragma unroll
        for (int i = 0; i < DC_UNIT<T>; i++)
            out[i] = e + i < n_elem ? dc_widen(row[e + i]) : 0.0f;
        return;
    }
#pragma unroll
    for (int first = 0; first < DC_UNIT<T>; first += DC_AT_ONCE<T>) {
        T items[DC_AT_ONCE<T>];
        uint4 bytes = __ldcs((const uint4 *)(row + e + first));
        memcpy(items, &bytes, sizeof bytes);
#pragma unroll
        for (int i = 0; i < DC_AT_ONCE<T>; i++)
            out[first + i] = dc_widen(items[i]);
    }
}

/* The same into a row; nothing past its end is written.  Indexed by sixteen bytes: nvcc takes *(uint4 *)(row + e) apart
 * (benchmarks/ptxas.py counts). */
template <typename T>
static __device__ __forceinline__ void dc_write_unit(T *row, const float *in, int64_t e, int64_t n_elem)
{
    if (e + DC_UNIT<T> <= n_elem && dc_is_aligned(row)) {
#pragma unroll
        for (int first = 0; first < DC_UNIT<T>; first += DC_AT_ONCE<T>) {
            T items[DC_AT_ONCE<T>];
            uint4 bytes;
#pragma unroll
            for (int i = 0; i < DC_AT_ONCE<T>; i++)
                dc_narrow(&items[i], in[first + i]);
            memcpy(&bytes, items, sizeof bytes);
            ((uint4 *)row)[(e + first) / DC_AT_ONCE<T>] = bytes;
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < DC_UNIT<T>; i++)
        if (e + i < n_elem)
            dc_narrow(&row[e + i], in[i]);
}

/* ---- channels last ------------------------------------------------------------------------------------------------- */

/* Where element e stands: position * stride + channel. */
typedef struct dc_place {
    int64_t channel, position;
} dc_place;

static __device__ __forceinline__ dc_place dc_place_of(int64_t e, int64_t n_positions, int64_t n_elem)
{
    dc_place place;
    place.channel = n_elem <= UINT32_MAX ? (int64_t)((uint32_t)e / (uint32_t)n_positions) : e / n_positions;
    place.position = e - place.channel * n_positions;
    return place;
}

static __device__ __forceinline__ void dc_place_next(dc_place *place, int64_t n_positions)
{
    if (++place->position == n_positions)
        place->position = 0, place->channel++;
}

/* dc_read_unit of a row with channels last: neighbours stand `stride` elements apart, and caches put them together. */
template <typename T>
static __device__ __forceinline__ void dc_read_last(float *out, const T *row, int64_t e, int64_t n_elem, int64_t n_positions,
                                                    int64_t stride)
{
    dc_place place = dc_place_of(e, n_positions, n_elem);
#pragma unroll
    for (int i = 0; i < DC_UNIT<T>; i++) {
        out[i] = e + i < n_elem ? dc_widen(row[place.position * stride + place.channel]) : 0.0f;
        dc_place_next(&place, n_positions);
    }
}

template <typename T>
static __device__ __forceinline__ void dc_write_last(T *row, const float *in, int64_t e, int64_t n_elem, int64_t n_positions)
{
    const int64_t n_channels = n_elem / n_positions;
    dc_place place = dc_place_of(e, n_positions, n_elem);
#pragma unroll
    for (int i = 0; i < DC_UNIT<T>; i++) {
        if (e + i < n_elem)
            dc_narrow(&row[place.position * n_channels + place.channel], in[i]);
        dc_place_next(&place, n_positions);
    }
}

#endif
