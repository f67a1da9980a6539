#include "method/plan.h"

void dc_plan_open(dc_slot *slot)
{
    slot->round = dc_race_open_round(slot->race);
    slot->trial = slot->arm = slot->condition = 0;
}

int64_t dc_plan_fill(dc_slot *slot, int64_t index, const int64_t *condition_offset, dc_row *rows, int64_t n_rows,
                     int64_t limit)
{
    while (n_rows < limit && slot->trial < slot->round.count) {
        int64_t own = slot->round.alive[slot->arm], arm = dc_slot_arm(slot, own), first = condition_offset[arm];
        rows[n_rows++] = (dc_row){index, own, slot->round.first + slot->trial, first + slot->condition};
        slot->n_waiting++;
        if (++slot->condition < condition_offset[arm + 1] - first)
            continue;
        slot->condition = 0;
        if (++slot->arm < slot->round.n_alive)
            continue;
        slot->arm = 0;
        slot->trial++;
    }
    return n_rows;
}

int dc_plan_round_done(const dc_slot *slot)
{
    return slot->trial == slot->round.count && slot->n_waiting == 0;
}
