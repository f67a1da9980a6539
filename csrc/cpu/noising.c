/* x_t = alpha * x_start + sigma * eps, tile by tile, once a group; then copied to its other rows.  Another layout than float32
 * in the order of x_start is made of the tile while it is in the cache. */
#include <string.h>

#include "cpu/groups.h"
#include "formulas/rounding.h"

typedef struct noising_task {
    const dc_cpu *cpu;
    char *x_t;
    int64_t n_elem;
    dc_layout layout;
} noising_task;

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

/* to (count,) of that dtype. */
DC_INLINE void round_tile(void *restrict to, const float *restrict tile, int64_t count, dc_dtype dtype)
{
    double wide;
    uint16_t bits;
    if (dtype == DC_FLOAT64)
        for (int64_t e = 0; e < count; e++) {
            wide = (double)tile[e];
            memcpy((char *)to + e * 8, &wide, sizeof wide);
        }
    else if (dtype == DC_FLOAT32)
        memcpy(to, tile, (size_t)count * sizeof *tile);
    else
        for (int64_t e = 0; e < count; e++) {
            bits = dtype == DC_FLOAT16 ? dc_round_float16(tile[e]) : dc_round_bfloat16(tile[e]);
            memcpy((char *)to + e * 2, &bits, sizeof bits);
        }
}

/* Elements first .. first + count - 1 of a row. */
static void put_tile(char *row, const float *tile, int64_t first, int64_t count, int64_t n_elem, dc_layout layout)
{
    char rounded[DC_TILE * sizeof(double)];
    size_t item = dc_dtype_bytes(layout.dtype);
    if (layout.n_positions == 0) {
        round_tile(row + first * (int64_t)item, tile, count, layout.dtype);
        return;
    }
    int64_t n_channels = n_elem / layout.n_positions, channel = first / layout.n_positions;
    int64_t position = first % layout.n_positions;
    round_tile(rounded, tile, count, layout.dtype);
    for (int64_t e = 0; e < count; e++) {
        memcpy(row + (position * n_channels + channel) * (int64_t)item, rounded + e * (int64_t)item, item);
        if (++position == layout.n_positions)
            position = 0, channel++;
    }
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

DC_INLINE void noising_rows(const noising_task *task, const dc_group *group, int64_t first_row, int64_t n_rows)
{
    const dc_layout layout = task->layout;
    int64_t n_elem = task->n_elem, row_bytes = n_elem * (int64_t)dc_dtype_bytes(layout.dtype);
    int is_plain = layout.dtype == DC_FLOAT32 && layout.n_positions == 0;
    char *row = task->x_t + first_row * row_bytes;
    float alpha = group->alpha, sigma = group->sigma * group->eps_sign, tile[DC_TILE], mixed[DC_TILE];
    for (int64_t first = 0; first < n_elem; first += DC_TILE) {
        int64_t count = n_elem - first < DC_TILE ? n_elem - first : DC_TILE;
        const float *eps = dc_group_eps(task->cpu, tile, group, first, count), *x_start = group->x_start + first;
        float *restrict x_t = is_plain ? (float *)(void *)row + first : mixed;
        for (int64_t e = 0; e < count; e++)
            x_t[e] = dc_mix(alpha, x_start[e], sigma, eps[e]);
        if (!is_plain)
            put_tile(row, mixed, first, count, n_elem, layout);
    }
    for (int64_t copy = 1; copy < n_rows; copy++)
        memcpy(row + copy * row_bytes, row, (size_t)row_bytes);
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

void dc_noising_cpu(const dc_backend *self, void *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem,
                    dc_layout layout)
{
    noising_task task = {self->context, x_t, n_elem, layout};
    dc_rows_fn rows = task.cpu->simd == DC_SIMD_AVX512 ? noising_rows_avx512
                      : task.cpu->simd == DC_SIMD_AVX2 ? noising_rows_avx2
                                                       : noising_rows_scalar;
    dc_groups_run(self, rows, &task, groups, n_groups, n_elem);
}
