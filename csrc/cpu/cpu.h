/* The CPU backend: backend.h's table, filled in. */
#ifndef DC_CPU_CPU_H
#define DC_CPU_CPU_H

#include "backend.h"
#include "cpu/noise.h"
#include "cpu/simd.h"
#include "cpu/threads.h"

/* What dc_backend.context points to. */
typedef struct dc_cpu {
    dc_simd simd;
    dc_noise_blocks_fn noise_blocks;
    dc_threads *threads;
} dc_cpu;

/* simd: "auto" (the best this machine has), "scalar", "avx2" or "avx512".  *out: returns new. */
DC_MUST_USE dc_status dc_cpu_backend_new(dc_backend **out, int n_threads, const char *simd, dc_error *err);
void dc_cpu_backend_free(dc_backend *backend); /* takes; NULL is fine */

/* "scalar", "avx2", "avx512"; and whether this machine can run it. */
const char *dc_simd_name(dc_simd simd);
int dc_simd_available(dc_simd simd);

/* The operations, one file each; comments in backend.h. */
void dc_noise_cpu(const dc_backend *self, float *eps, dc_noise_key key, int64_t first, int64_t count);
void dc_noise_of_groups_cpu(const dc_backend *self, float *eps, const dc_group *groups, int64_t n_groups, int64_t n_elem);
void dc_noising_cpu(const dc_backend *self, void *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem,
                    dc_layout layout);
void dc_eps_error_cpu(const dc_backend *self, double *errors, dc_prediction prediction, const dc_group *groups,
                      int64_t n_groups, int64_t n_elem, dc_loss loss, float delta);
void dc_parallel_cpu(const dc_backend *self, dc_task task, void *argument, int64_t n_tasks);

/* Worth a second thread: below this many elements, waking one costs more than it brings. */
enum { DC_PARALLEL_MIN = 1 << 17 };

#endif
