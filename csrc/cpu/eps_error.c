/* Mean of rho(prediction - target) a row, target = p * x_start + q * eps with eps made again from its counter.
 *
 * Tile outside, row inside: the rows of a group share one regenerated tile.  The order of the sum is backend.h's. */
#include <string.h>

#include "cpu/groups.h"

enum { LANES = 32 };

typedef struct eps_error_task {
    const dc_cpu *cpu;
    double *errors;
    dc_prediction prediction;
    int64_t n_elem;
    dc_loss loss;
    float delta;
} eps_error_task;

/* ------------------------------------------------------------------------------------------------------- one tile */

DC_INLINE float term(float prediction, float target, dc_loss loss, float delta)
{
    float difference = prediction - target;
    return loss == DC_LOSS_L2   ? dc_loss_l2(difference)
           : loss == DC_LOSS_L1 ? dc_loss_l1(difference)
                                : dc_loss_huber(difference, delta);
}

/* The lanes' float64 tree: i with i + 16, then + 8, ...; each level has its own loop of fixed length. */
DC_INLINE double sum_lanes(const float *lanes)
{
    double by16[16], by8[8], by4[4];
    for (int i = 0; i < 16; i++)
        by16[i] = (double)lanes[i] + (double)lanes[i + 16];
    for (int i = 0; i < 8; i++)
        by8[i] = by16[i] + by16[i + 8];
    for (int i = 0; i < 4; i++)
        by4[i] = by8[i] + by8[i + 4];
    return (by4[0] + by4[2]) + (by4[1] + by4[3]);
}

/* Sum of rho over a tile of `count` elements. */
DC_INLINE double tile_error(const float *restrict prediction, const float *restrict target, int64_t count, dc_loss loss,
                            float delta)
{
    float lanes[LANES] = {0};
    int64_t e = 0;
    for (; e + LANES <= count; e += LANES)
        for (int64_t i = 0; i < LANES; i++)
            lanes[i] += term(prediction[e + i], target[e + i], loss, delta);
    for (int64_t i = 0; e + i < count; i++)
        lanes[i] += term(prediction[e + i], target[e + i], loss, delta);
    return sum_lanes(lanes);
}

/* One element of any dtype as float32.  Data of foreign frameworks may stand at any address. */
DC_INLINE float widen(const char *data, dc_dtype dtype)
{
    double wide;
    float value;
    uint16_t bits;
    if (dtype == DC_FLOAT32) {
        memcpy(&value, data, sizeof value);
        return value;
    }
    if (dtype == DC_FLOAT64) {
        memcpy(&wide, data, sizeof wide);
        return (float)wide;
    }
    memcpy(&bits, data, sizeof bits);
    return dtype == DC_FLOAT16 ? dc_float16_to_float(bits) : dc_bfloat16_to_float(bits);
}

/* Channels last: `count` elements from `first` on are gathered into tile. */
static void gather_tile(float *tile, const char *row, const dc_prediction *prediction, int64_t first, int64_t count)
{
    int64_t item_bytes = (int64_t)dc_dtype_bytes(prediction->dtype);
    int64_t channel = first / prediction->n_positions, position = first % prediction->n_positions;
    for (int64_t e = 0; e < count; e++) {
        tile[e] = widen(row + (position * prediction->position_stride + channel) * item_bytes, prediction->dtype);
        if (++position == prediction->n_positions)
            position = 0, channel++;
    }
}

/* `count` elements of a row from `first` on as float32: in place, or converted into tile (DC_TILE,). */
DC_INLINE const float *prediction_tile(float *restrict tile, const dc_prediction *prediction, int64_t row,
                                       int64_t first, int64_t count)
{
    dc_dtype dtype = prediction->dtype;
    int64_t item_bytes = (int64_t)dc_dtype_bytes(dtype);
    const char *data = (const char *)prediction->data + row * prediction->row_stride * item_bytes;
    if (prediction->n_positions != 0) {
        gather_tile(tile, data, prediction, first, count);
        return tile;
    }
    data += first * item_bytes;
    if (dtype == DC_FLOAT32 && (uintptr_t)data % sizeof(float) == 0)
        return (const float *)(const void *)data;
    if (dtype == DC_FLOAT32)
        memcpy(tile, data, (size_t)(count * item_bytes));
    else if (dtype == DC_FLOAT64)
        for (int64_t e = 0; e < count; e++)
            tile[e] = widen(data + e * 8, DC_FLOAT64);
    else if (dtype == DC_FLOAT16)
        for (int64_t e = 0; e < count; e++)
            tile[e] = widen(data + e * 2, DC_FLOAT16);
    else
        for (int64_t e = 0; e < count; e++)
            tile[e] = widen(data + e * 2, DC_BFLOAT16);
    return tile;
}

/* target (count,). */
DC_INLINE void target_tile(float *restrict target, const dc_cpu *cpu, const dc_group *group, int64_t first,
                           int64_t count)
{
    const float *x_start = group->x_start + first;
    if (group->q == 0.0f) { /* x_start itself: no noise to make */
        for (int64_t e = 0; e < count; e++)
            target[e] = group->p * x_start[e];
    } else {
        float tile[DC_TILE], q = group->q * group->eps_sign;
        const float *eps = dc_group_eps(cpu, tile, group, first, count);
        for (int64_t e = 0; e < count; e++)
            target[e] = dc_mix(group->p, x_start[e], q, eps[e]);
    }
}

/* ------------------------------------------------------------------------------------------------------------ rows */

/* `loss` is a constant in each call below, so that the innermost loops hold no choice. */
DC_INLINE void loss_rows(const eps_error_task *task, const dc_group *group, int64_t first_row, int64_t n_rows,
                         dc_loss loss)
{
    float target[DC_TILE], converted[DC_TILE];
    double *errors = task->errors + first_row;
    for (int64_t row = 0; row < n_rows; row++)
        errors[row] = 0.0;
    for (int64_t first = 0; first < task->n_elem; first += DC_TILE) {
        int64_t count = task->n_elem - first < DC_TILE ? task->n_elem - first : DC_TILE;
        target_tile(target, task->cpu, group, first, count);
        for (int64_t row = 0; row < n_rows; row++) {
            const float *prediction = prediction_tile(converted, &task->prediction, first_row + row, first, count);
            errors[row] += tile_error(prediction, target, count, loss, task->delta);
        }
    }
    for (int64_t row = 0; row < n_rows; row++)
        errors[row] /= (double)task->n_elem;
}

DC_INLINE void eps_error_rows(const eps_error_task *task, const dc_group *group, int64_t first_row, int64_t n_rows)
{
    if (task->loss == DC_LOSS_L2)
        loss_rows(task, group, first_row, n_rows, DC_LOSS_L2);
    else if (task->loss == DC_LOSS_L1)
        loss_rows(task, group, first_row, n_rows, DC_LOSS_L1);
    else
        loss_rows(task, group, first_row, n_rows, DC_LOSS_HUBER);
}

static void eps_error_rows_scalar(const void *task, const dc_group *group, int64_t first_row, int64_t n_rows)
{
    eps_error_rows(task, group, first_row, n_rows);
}

DC_TARGET_AVX2 static void eps_error_rows_avx2(const void *task, const dc_group *group, int64_t first_row,
                                               int64_t n_rows)
{
    eps_error_rows(task, group, first_row, n_rows);
}

DC_TARGET_AVX512 static void eps_error_rows_avx512(const void *task, const dc_group *group, int64_t first_row,
                                                   int64_t n_rows)
{
    eps_error_rows(task, group, first_row, n_rows);
}

void dc_eps_error_cpu(const dc_backend *self, double *errors, dc_prediction prediction, const dc_group *groups,
                      int64_t n_groups, int64_t n_elem, dc_loss loss, float delta)
{
    eps_error_task task = {self->context, errors, prediction, n_elem, loss, delta};
    dc_rows_fn rows = task.cpu->simd == DC_SIMD_AVX512 ? eps_error_rows_avx512
                      : task.cpu->simd == DC_SIMD_AVX2 ? eps_error_rows_avx2
                                                       : eps_error_rows_scalar;
    dc_groups_run(self, rows, &task, groups, n_groups, n_elem);
}
