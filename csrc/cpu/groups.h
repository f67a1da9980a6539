/* Cuts the rows of a batch into equal shares, one a thread.  A share may begin and end inside a group: its noise is then
 * made in both, and the numbers are the same. */
#ifndef DC_CPU_GROUPS_H
#define DC_CPU_GROUPS_H

#include "cpu/cpu.h"

/* Does rows first_row .. first_row + n_rows - 1 of the batch, all of one group. */
typedef void (*dc_rows_fn)(const void *argument, const dc_group *group, int64_t first_row, int64_t n_rows);

/* All rows of all groups; on the pool when there is enough to do, else inline. */
void dc_groups_run(const dc_backend *self, dc_rows_fn rows, const void *argument, const dc_group *groups,
                   int64_t n_groups, int64_t n_elem);

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
