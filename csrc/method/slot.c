#include "method/slot.h"

#include "base/memory.h"

dc_status dc_slot_list(dc_slot *slot, dc_arms *own, const dc_arms *arms, const int64_t *listed, int64_t n_listed,
                       dc_error *err)
{
    void *memory;
    int64_t size, n = n_listed;
    if (n < 1 || !dc_size_mul(&size, n, 3))
        return dc_error_set(err, DC_ERR_VALUE, "%lld arms are listed, must be 1 or more", (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (listed[i] < 0 || listed[i] >= arms->n_arms || (i > 0 && listed[i] <= listed[i - 1]))
            return dc_error_set(err, DC_ERR_VALUE, "listed[%lld] is %lld, must be 0 to %lld and rise", (long long)i,
                                (long long)listed[i], (long long)(arms->n_arms - 1));
    dc_status status = dc_alloc(&memory, size, sizeof(int64_t), "the listed arms", err);
    if (status != DC_OK)
        return status;
    int64_t *copy = slot->listed = memory, *class_of_arm = copy + n, *cost_of_arm = copy + 2 * n;
    for (int64_t i = 0; i < n; i++) {
        copy[i] = listed[i];
        class_of_arm[i] = arms->class_of_arm != NULL ? arms->class_of_arm[listed[i]] : listed[i];
        cost_of_arm[i] = arms->cost_of_arm != NULL ? arms->cost_of_arm[listed[i]] : 1;
    }
    *own = (dc_arms){n, arms->n_classes, class_of_arm, cost_of_arm};
    return DC_OK;
}

void dc_slot_clear(dc_slot *slot)
{
    dc_race_free(slot->race);
    dc_free(slot->listed);
    slot->race = NULL;
    slot->listed = NULL;
    slot->n_waiting = 0;
    slot->finished = 0;
    slot->n_watched = 0;
}
