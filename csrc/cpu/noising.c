/* x_t = alpha * x_start + sigma * eps, tile by tile, once a group; then copied to its other rows. */
#include <string.h>

#include "cpu/groups.h"

typedef struct noising_task {
    const dc_cpu *cpu;
    float *x_t;
    int64_t n_elem;
} noising_task;

DC_INLINE void noising_rows(const noising_task *task, const dc_group *group, int64_t first_row, int64_t n_rows)
{
    int64_t n_elem = task->n_elem;
    float *row = task->x_t + first_row * n_elem;
    float alpha = group->alpha, sigma = group->sigma * group->eps_sign, tile[DC_TILE];
    for (int64_t first = 0; first < n_elem; first += DC_TILE) {
        int64_t count = n_elem - first < DC_TILE ? n_elem - first : DC_TILE;
        const float *eps = dc_group_eps(task->cpu, tile, group, first, count), *x_start = group->x_start + first;
        float *restrict x_t = row + first;
        for (int64_t e = 0; e < count; e++)
            x_t[e] = dc_mix(alpha, x_start[e], sigma, eps[e]);
    }
    for (int64_t copy = 1; copy < n_rows; copy++)
        memcpy(row + copy * n_elem, row, (size_t)n_elem * sizeof *row);
}

static void noising_rows_scalar(const void *task, const dc_group *group, int64_t first_row, int64_t n_rows)
{
    noising_rows(task, group, first_row, n_rows);
}

DC_TARGET_AVX2 static void noising_rows_avx2(const void *task, const dc_group *group, int64_t first_row, int64_t n_rows)
{
    noising_rows(task, group, first_row, n_rows);
}

DC_TARGET_AVX512 static void noising_rows_avx512(const void *task, const dc_group *group, int64_t first_row,
                                                 int64_t n_rows)
{
    noising_rows(task, group, first_row, n_rows);
}

void dc_noising_cpu(const dc_backend *self, float *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem)
{
    noising_task task = {self->context, x_t, n_elem};
    dc_rows_fn rows = task.cpu->simd == DC_SIMD_AVX512 ? noising_rows_avx512
                      : task.cpu->simd == DC_SIMD_AVX2 ? noising_rows_avx2
                                                       : noising_rows_scalar;
    dc_groups_run(self, rows, &task, groups, n_groups, n_elem);
}
