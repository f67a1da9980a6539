/* Mean of rho(prediction - target) a row, target = p * x_start + q * eps with eps made again from its counter.
 *
 * Tile outside, row inside: the rows of a group share one regenerated tile.  The order of the sum is backend.h's. */
#include <string.h>

#include "cpu/groups.h"

enum { LANES = 32, HALF = 16 };
typedef float lanes16 __attribute__((vector_size(HALF * sizeof(float)), aligned(4)));
typedef int32_t mask16 __attribute__((vector_size(HALF * sizeof(float))));

/* Sum of rho over one tile: element e to lane e mod 32, lanes by a float64 tree. */
typedef double (*tile_error_fn)(const float *prediction, const float *target, dc_loss loss, float delta);

#define ABS16(d) ((lanes16)((mask16)(d) & 0x7fffffff))

DC_INLINE double tile_error(const float *prediction, const float *target, dc_loss loss, float delta)
{
    lanes16 low = {0}, high = {0};
    for (int e = 0; e < DC_TILE; e += LANES) {
        lanes16 a = *(const lanes16 *)(prediction + e) - *(const lanes16 *)(target + e);
        lanes16 b = *(const lanes16 *)(prediction + e + HALF) - *(const lanes16 *)(target + e + HALF);
        if (loss == DC_LOSS_L2) {
            a *= a;
            b *= b;
        } else if (loss == DC_LOSS_L1) {
            a = ABS16(a);
            b = ABS16(b);
        } else {
            for (int i = 0; i < HALF; i++) {
                a[i] = dc_loss_huber(a[i], delta);
                b[i] = dc_loss_huber(b[i], delta);
            }
        }
        low += a;
        high += b;
    }
    double sum[HALF];
    for (int i = 0; i < HALF; i++)
        sum[i] = (double)low[i] + (double)high[i];
    for (int width = HALF / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            sum[i] += sum[i + width];
    return sum[0];
}

/* `loss` as a constant in each call, so that the loops are specialised. */
DC_INLINE double tile_error_any(const float *prediction, const float *target, dc_loss loss, float delta)
{
    return loss == DC_LOSS_L2   ? tile_error(prediction, target, DC_LOSS_L2, delta)
           : loss == DC_LOSS_L1 ? tile_error(prediction, target, DC_LOSS_L1, delta)
                                : tile_error(prediction, target, DC_LOSS_HUBER, delta);
}

static double tile_error_scalar(const float *prediction, const float *target, dc_loss loss, float delta)
{
    return tile_error_any(prediction, target, loss, delta);
}

DC_TARGET_AVX2 static double tile_error_avx2(const float *prediction, const float *target, dc_loss loss, float delta)
{
    return tile_error_any(prediction, target, loss, delta);
}

DC_TARGET_AVX512 static double tile_error_avx512(const float *prediction, const float *target, dc_loss loss,
                                                 float delta)
{
    return tile_error_any(prediction, target, loss, delta);
}

typedef struct eps_error_task {
    const dc_backend *backend;
    tile_error_fn tile_error;
    double *errors;
    dc_prediction prediction;
    const dc_group *groups;
    int64_t n_elem;
    dc_loss loss;
    float delta;
} eps_error_task;

/* `count` elements from `first` on of a row as float32: in place where they are float32 and fill the tile, else in `tile`,
 * with zeros after them, which add nothing because the target's tail is zero too. */
static const float *prediction_tile(float *tile, const dc_prediction *prediction, int64_t row, int64_t first,
                                    int64_t count)
{
    const char *data = (const char *)prediction->data +
                       (size_t)(row * prediction->row_stride + first) * dc_dtype_bytes(prediction->dtype);
    if (prediction->dtype == DC_FLOAT32 && count == DC_TILE)
        return (const float *)(const void *)data;
    switch (prediction->dtype) {
    case DC_FLOAT32:
        memcpy(tile, data, (size_t)count * sizeof *tile);
        break;
    case DC_FLOAT64:
        for (int64_t e = 0; e < count; e++) {
            double value;
            memcpy(&value, data + e * 8, sizeof value);
            tile[e] = (float)value;
        }
        break;
    case DC_FLOAT16:
    case DC_BFLOAT16:
        for (int64_t e = 0; e < count; e++) {
            uint16_t bits;
            memcpy(&bits, data + e * 2, sizeof bits);
            tile[e] = prediction->dtype == DC_FLOAT16 ? dc_float16_to_float(bits) : dc_bfloat16_to_float(bits);
        }
        break;
    }
    memset(tile + count, 0, (size_t)(DC_TILE - count) * sizeof *tile);
    return tile;
}

static void eps_error_group(void *argument, int64_t index)
{
    const eps_error_task *task = argument;
    const dc_group *group = &task->groups[index];
    int64_t first_row = dc_group_first_row(task->groups, index);
    double *errors = task->errors + first_row;
    float q = group->q * group->eps_sign, tile[DC_TILE], target[DC_TILE], converted[DC_TILE];
    for (int64_t row = 0; row < group->n_rows; row++)
        errors[row] = 0.0;
    for (int64_t first = 0; first < task->n_elem; first += DC_TILE) {
        int64_t count = task->n_elem - first < DC_TILE ? task->n_elem - first : DC_TILE;
        if (group->q == 0.0f) { /* x_start itself: no noise to make */
            for (int64_t e = 0; e < count; e++)
                target[e] = group->p * group->x_start[first + e];
        } else {
            const float *eps = dc_group_eps(task->backend->context, tile, group, first, count);
            for (int64_t e = 0; e < count; e++)
                target[e] = dc_mix(group->p, group->x_start[first + e], q, eps[e]);
        }
        memset(target + count, 0, (size_t)(DC_TILE - count) * sizeof *target);
        for (int64_t row = 0; row < group->n_rows; row++) {
            const float *prediction = prediction_tile(converted, &task->prediction, first_row + row, first, count);
            errors[row] += task->tile_error(prediction, target, task->loss, task->delta);
        }
    }
    for (int64_t row = 0; row < group->n_rows; row++)
        errors[row] /= (double)task->n_elem;
}

void dc_eps_error_cpu(const dc_backend *self, double *errors, dc_prediction prediction, const dc_group *groups,
                      int64_t n_groups, int64_t n_elem, dc_loss loss, float delta)
{
    const dc_cpu *cpu = self->context;
    tile_error_fn tile_error_of_simd = cpu->simd == DC_SIMD_AVX512 ? tile_error_avx512
                                       : cpu->simd == DC_SIMD_AVX2 ? tile_error_avx2
                                                                   : tile_error_scalar;
    eps_error_task task = {self, tile_error_of_simd, errors, prediction, groups, n_elem, loss, delta};
    dc_groups_run(self, eps_error_group, &task, groups, n_groups, n_elem);
}
