#include "cpu/groups.h"

typedef struct shares {
    dc_rows_fn rows;
    const void *argument;
    const dc_group *groups;
    int64_t n_groups, n_rows, n_shares;
} shares;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t share_begin(const shares *all, int64_t index)
{
    return all->n_rows / all->n_shares * index + smaller(index, all->n_rows % all->n_shares);
}

static void run_share(void *argument, int64_t index)
{
    const shares *all = argument;
    int64_t begin = share_begin(all, index), end = share_begin(all, index + 1), row = 0;
    for (int64_t g = 0; g < all->n_groups && row < end; g++) {
        int64_t first = larger(row, begin), last = smaller(row + all->groups[g].n_rows, end);
        if (first < last)
            all->rows(all->argument, &all->groups[g], first, last - first);
        row += all->groups[g].n_rows;
    }
}

void dc_groups_run(const dc_backend *self, dc_rows_fn rows, const void *argument, const dc_group *groups,
                   int64_t n_groups, int64_t n_elem)
{
    shares all = {rows, argument, groups, n_groups, 0, 1};
    for (int64_t g = 0; g < n_groups; g++)
        all.n_rows += groups[g].n_rows;
    if (all.n_rows * n_elem >= DC_PARALLEL_MIN)
        all.n_shares = self->n_threads;
    dc_parallel_cpu(self, run_share, &all, all.n_shares);
}
