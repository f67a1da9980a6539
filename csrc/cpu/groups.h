/* Cuts the rows of a batch into tasks: a group's rows share its noise, so a task is a group. */
#ifndef DC_CPU_GROUPS_H
#define DC_CPU_GROUPS_H

#include "cpu/cpu.h"

/* First row of group `index`. */
static inline int64_t dc_group_first_row(const dc_group *groups, int64_t index)
{
    int64_t row = 0;
    for (int64_t g = 0; g < index; g++)
        row += groups[g].n_rows;
    return row;
}

/* One task a group on the pool when there is enough to do, else inline. */
static inline void dc_groups_run(const dc_backend *self, dc_task task, void *argument, const dc_group *groups,
                                 int64_t n_groups, int64_t n_elem)
{
    if (dc_group_first_row(groups, n_groups) * n_elem >= DC_PARALLEL_MIN) {
        dc_parallel_cpu(self, task, argument, n_groups);
        return;
    }
    for (int64_t g = 0; g < n_groups; g++)
        task(argument, g);
}

/* eps of elements first .. first + count - 1 of a group without its sign: given, or made into tile (DC_TILE,). */
static inline const float *dc_group_eps(const dc_cpu *cpu, float *tile, const dc_group *group, int64_t first,
                                        int64_t count)
{
    if (group->eps != NULL)
        return group->eps + first;
    dc_noise_fill(cpu->noise_blocks, tile, group->key, first, count);
    return tile;
}

#endif
