/* The CPU backends of this machine, for tests that hold the instruction sets against each other. */
#ifndef DC_TEST_BACKENDS_H
#define DC_TEST_BACKENDS_H

#include <stdint.h>
#include <string.h>

#include "cpu/cpu.h"
#include "test.h"

enum { MAX_BACKENDS = 3 };

/* backends[0] is scalar; returns how many there are.  Free with backends_close. */
static inline int backends_open(dc_backend **backends, int n_threads)
{
    int n = 0;
    for (int simd = DC_SIMD_SCALAR; simd <= DC_SIMD_AVX512; simd++) {
        if (!dc_simd_available((dc_simd)simd))
            continue;
        CHECK(dc_cpu_backend_new(&backends[n], n_threads, dc_simd_name((dc_simd)simd), NULL) == DC_OK);
        n++;
    }
    CHECK(n > 0);
    return n;
}

static inline void backends_close(dc_backend **backends, int n)
{
    for (int i = 0; i < n; i++)
        dc_cpu_backend_free(backends[i]);
}

/* x_t as float32 in the order of x_start. */
static const dc_layout PLAIN = {DC_FLOAT32, 0};

/* A value that no operation writes, to see what was left alone. */
static const float POISON = -12345.5f;

static inline void poison(float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = POISON;
}

static inline int is_poison(const float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (values[i] != POISON)
            return 0;
    return 1;
}

/* Numbers in (-1, 1), the same every time: a 32-bit linear congruential generator. */
static inline void fill(float *values, int64_t n, uint32_t state)
{
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(int32_t)state * 0x1p-31f;
    }
}

#endif
