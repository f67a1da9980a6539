/* The plan: rows are trial-major, a round may straddle batches, survivors only. */
#include "method/plan.h"
#include "test.h"

enum { LIMIT = 64 };

/* Arms 0, 1, 2 with conditions {0, 1}, {2}, {3, 4, 5}. */
static const int64_t condition_offset[4] = {0, 2, 3, 6}, cost_of_arm[3] = {2, 1, 3}, arm_of_condition[6] = {0, 0, 1, 2, 2, 2};

static dc_race *make_race(const dc_trial *trials, const dc_cap *cap)
{
    dc_race *race;
    dc_arms arms = {3, 3, NULL, cost_of_arm};
    dc_policy policy = {.fill = 1, .caps = cap, .n_caps = 1};
    CHECK(dc_race_new(&race, &arms, trials, 5, &policy, NULL) == DC_OK);
    return race;
}

/* Two trials of all arms, then three of the survivor; batches of any size hand out the same rows in the same order. */
static void check_batches(int64_t batch)
{
    const dc_trial trials[5] = {{0, 0, 1, 1}, {0, 1, 1, 1}, {0, 2, 1, 1}, {0, 3, 1, 1}, {0, 4, 1, 1}};
    const dc_cap cap = {2, 1};
    dc_race_status status = DC_RACE_RUNNING;
    dc_row rows[LIMIT];
    int64_t place = 0;
    dc_slot slot = {.race = make_race(trials, &cap)};
    dc_plan_open(&slot);
    CHECK(!dc_plan_round_done(&slot));
    while (status == DC_RACE_RUNNING) {
        int64_t n = dc_plan_fill(&slot, 7, condition_offset, rows, 0, batch);
        CHECK(n > 0 && n <= batch && slot.n_waiting == n);
        for (int64_t r = 0; r < n; r++, place++) {
            int64_t after = place - 12, trial = place < 12 ? place / 6 : 2 + after; /* arm 1, one condition, survives */
            int64_t condition = place < 12 ? place % 6 : 2;
            CHECK(rows[r].slot == 7 && rows[r].trial == trial && rows[r].condition == condition);
            CHECK(rows[r].arm == arm_of_condition[condition]);
            dc_race_record(slot.race, rows[r].arm, rows[r].trial, rows[r].arm == 1 ? 1.0 : 2.0);
        }
        CHECK(!dc_plan_round_done(&slot)); /* handed out, not answered */
        slot.n_waiting = 0;
        if (dc_plan_round_done(&slot)) {
            CHECK(dc_race_close_round(slot.race, &status, NULL) == DC_OK);
            dc_plan_open(&slot);
        }
    }
    CHECK(place == 12 + 3 && status == DC_RACE_DECIDED);
    dc_race_free(slot.race);
}

static void check_appending(void)
{
    const dc_trial trials[5] = {{0, 0, 1, 1}, {0, 1, 1, 1}, {0, 2, 1, 1}, {0, 3, 1, 1}, {0, 4, 1, 1}};
    const dc_cap cap = {2, 1};
    dc_row rows[LIMIT];
    dc_slot slots[2] = {{.race = make_race(trials, &cap)}, {.race = make_race(trials, &cap)}};
    int64_t n = 0;
    for (int i = 0; i < 2; i++) {
        dc_plan_open(&slots[i]);
        n = dc_plan_fill(&slots[i], i, condition_offset, rows, n, 20);
    }
    CHECK(n == 20 && slots[0].n_waiting == 12 && slots[1].n_waiting == 8);
    CHECK(rows[11].slot == 0 && rows[12].slot == 1 && rows[12].trial == 0 && rows[19].trial == 1 && rows[19].condition == 1);
    CHECK(dc_plan_fill(&slots[0], 0, condition_offset, rows, 0, LIMIT) == 0); /* nothing left in the open round */
    CHECK(dc_plan_fill(&slots[1], 1, condition_offset, rows, 0, LIMIT) == 4);
    for (int i = 0; i < 2; i++)
        dc_race_free(slots[i].race);
}

int main(void)
{
    for (int64_t batch = 1; batch <= 13; batch++)
        check_batches(batch);
    check_appending();
    return test_done();
}
