/* x_t = alpha * x_start + sigma * eps, tile by tile: eps lives in L1 only. */
#include <string.h>

#include "cpu/groups.h"

typedef struct noising_task {
    const dc_backend *backend;
    float *x_t;
    const dc_group *groups;
    int64_t n_elem;
} noising_task;

static void noising_group(void *argument, int64_t index)
{
    const noising_task *task = argument;
    const dc_group *group = &task->groups[index];
    float *x_t = task->x_t + dc_group_first_row(task->groups, index) * task->n_elem;
    float alpha = group->alpha, sigma = group->sigma * group->eps_sign, tile[DC_TILE];
    for (int64_t first = 0; first < task->n_elem; first += DC_TILE) {
        int64_t count = task->n_elem - first < DC_TILE ? task->n_elem - first : DC_TILE;
        const float *eps = dc_group_eps(task->backend->context, tile, group, first, count);
        for (int64_t e = 0; e < count; e++)
            x_t[first + e] = dc_mix(alpha, group->x_start[first + e], sigma, eps[e]);
    }
    for (int64_t row = 1; row < group->n_rows; row++)
        memcpy(x_t + row * task->n_elem, x_t, (size_t)task->n_elem * sizeof *x_t);
}

void dc_noising_cpu(const dc_backend *self, float *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem)
{
    noising_task task = {self, x_t, groups, n_elem};
    dc_groups_run(self, noising_group, &task, groups, n_groups, n_elem);
}
