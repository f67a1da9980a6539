/* One image in flight: its race, which arms run in it, and how far its open round was handed out and answered. */
#ifndef DC_METHOD_SLOT_H
#define DC_METHOD_SLOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "method/race.h"

typedef struct dc_slot {
    dc_race *race; /* NULL: free */
    float *x_start; /* (n_elem,) */
    int64_t tag;
    int64_t *listed; /* (n of the race's arms,) the loop's arms that race, owned; NULL: all of them */
    dc_race_round round;
    int64_t trial, arm, condition; /* cursor: offset in the round, position in alive, condition of that arm */
    int64_t n_waiting;             /* rows handed out and not answered */
    int finished;
    int64_t n_watched; /* rounds that dc_loop_watch was stopped at */
    double pooled, lowest; /* of the arm and trial being answered: sum of e, or of exp(-(e - lowest) / T) */
} dc_slot;

/* *own: those of `arms` that are in listed (n_listed,), rising numbers, which are copied into the slot; own borrows from it.
 * A race of them numbers its arms 0 .. n_listed - 1 and keeps the classes' numbers: it computes what the race of a
 * classifier with these arms alone computes, to the bit, and a class without an arm has no trial. */
DC_MUST_USE dc_status dc_slot_list(dc_slot *slot, dc_arms *own, const dc_arms *arms, const int64_t *listed,
                                   int64_t n_listed, dc_error *err);
void dc_slot_clear(dc_slot *slot); /* frees race and list, keeps x_start */

/* The loop's number of an arm of the slot's race. */
static inline int64_t dc_slot_arm(const dc_slot *slot, int64_t arm)
{
    return slot->listed != NULL ? slot->listed[arm] : arm;
}

#endif
