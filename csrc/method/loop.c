#include "method/loop.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "method/step.h"
#include "method/storage.h"

/* One batch: being filled, or asked and not yet answered. */
typedef struct asked {
    int64_t n_rows, n_room; /* n_room: of the batches that it became */
    dc_row *rows;       /* (batch_size,) */
    dc_results results; /* errors (batch_size,) */
} asked;

struct dc_loop {
    dc_loop_params params;
    int64_t *cost_of_arm; /* (n_arms,) conditions of each arm */
    dc_slot *slots;       /* (max_in_flight,) */
    int64_t n_in_flight;
    int64_t next_slot; /* where filling goes on: an image in hand is finished before others are begun */
    int64_t reported;  /* slot lent to the caller by the last advance, or -1 */
    asked batches[2]; /* the second only with a device, which works on one while the other is filled and read */
    asked *filling, *pending; /* pending: asked and not read, or NULL */
    dc_step step;
    float *noise;   /* (n_noise, n_elem) the given noise on the device, or NULL */
    int64_t n_room; /* rows that the batches read could have held */
    dc_loop_stats stats;
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

static dc_status check_params(const dc_loop_params *params, dc_error *err)
{
    if (params->batch_size < 1 || params->batch_size > 1 << 20)
        return dc_error_set(err, DC_ERR_VALUE, "batch_size is %lld, must be 1 to %d", (long long)params->batch_size,
                            1 << 20);
    if (params->max_in_flight < 1 || params->max_in_flight > 1 << 20)
        return dc_error_set(err, DC_ERR_VALUE, "max_in_flight is %lld, must be 1 to %d", (long long)params->max_in_flight,
                            1 << 20);
    if (params->n_elem < 1)
        return dc_error_set(err, DC_ERR_SHAPE, "x_start has no elements");
    if (params->loss == DC_LOSS_HUBER && !(params->delta > 0.0f && isfinite(params->delta)))
        return dc_error_set(err, DC_ERR_VALUE, "delta is %g, must be positive", (double)params->delta);
    if (!(params->pool_temperature >= 0.0) || !isfinite(params->pool_temperature))
        return dc_error_set(err, DC_ERR_VALUE, "temperature is %g, must be positive", params->pool_temperature);
    for (int64_t i = 0; i < params->n_trials; i++) {
        if (params->trials[i].timestep >= params->n_timesteps)
            return dc_error_set(err, DC_ERR_VALUE, "trial %lld is at timestep %u, the schedule has %lld", (long long)i,
                                params->trials[i].timestep, (long long)params->n_timesteps);
        if (params->noise != NULL && params->trials[i].noise_index >= params->n_noise)
            return dc_error_set(err, DC_ERR_VALUE, "noise has %lld rows, trial %lld needs row %u",
                                (long long)params->n_noise, (long long)i, params->trials[i].noise_index);
    }
    for (int64_t a = 0; a < params->arms.n_arms; a++)
        if (params->condition_offset[a + 1] <= params->condition_offset[a])
            return dc_error_set(err, DC_ERR_VALUE, "arm %lld has no condition", (long long)a);
    return DC_OK;
}

/* Arms, trials and policy are the race's to check: a race that can be made is a race that can be run. */
static dc_status check_race(const dc_loop_params *params, dc_error *err)
{
    dc_race *race;
    dc_policy policy = params->policy;
    policy.max_evals = policy.max_evals > 0 ? 0 : policy.max_evals; /* what it must allow, an image's arms say */
    dc_status status = dc_race_new(&race, &params->arms, params->trials, params->n_trials, &policy, err);
    dc_race_free(race);
    return status;
}

dc_status dc_loop_new(dc_loop **out, const dc_loop_params *params, dc_error *err)
{
    void *memory = NULL;
    dc_loop *loop = NULL;
    *out = NULL;
    dc_status status = check_params(params, err);
    if (status != DC_OK || (status = dc_alloc(&memory, 1, sizeof *loop, "the loop", err)) != DC_OK)
        return status;
    loop = memory;
    loop->params = *params;
    loop->reported = -1;
    loop->filling = &loop->batches[0];
    int n_batches = params->backend->device != NULL ? 2 : 1;
    struct {
        void *member;
        int64_t count;
        size_t item_bytes;
    } arrays[] = {
        {&loop->cost_of_arm, params->arms.n_arms, sizeof *loop->cost_of_arm},
        {&loop->slots, params->max_in_flight, sizeof *loop->slots},
        {&loop->batches[0].rows, params->batch_size, sizeof(dc_row)},
        {&loop->batches[1].rows, n_batches == 2 ? params->batch_size : 0, sizeof(dc_row)},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if ((status = dc_alloc(&memory, arrays[i].count, arrays[i].item_bytes, "the batch", err)) != DC_OK)
            goto done;
        memcpy(arrays[i].member, &memory, sizeof memory);
    }
    for (int64_t a = 0; a < params->arms.n_arms; a++)
        loop->cost_of_arm[a] = params->condition_offset[a + 1] - params->condition_offset[a];
    loop->params.arms.cost_of_arm = loop->cost_of_arm;
    if ((status = check_race(&loop->params, err)) != DC_OK)
        goto done;
    if ((status = dc_step_init(&loop->step, &loop->params, loop->slots, err)) != DC_OK)
        goto done;
    for (int i = 0; i < n_batches; i++)
        if ((status = dc_results_new(params->backend, &loop->batches[i].results, params->batch_size, params->n_elem, err)) !=
            DC_OK)
            goto done;
    if (n_batches == 2 && params->noise != NULL) {
        int64_t count = params->n_noise * params->n_elem; /* the caller has them in memory */
        if ((status = dc_floats_new(params->backend, &loop->noise, params->noise, count, "noise", err)) != DC_OK)
            goto done;
        loop->params.noise = loop->noise;
    }
    *out = loop;
    loop = NULL;
done:
    dc_loop_free(loop);
    return status;
}

void dc_loop_free(dc_loop *loop)
{
    if (loop == NULL)
        return;
    const dc_backend *backend = loop->params.backend;
    for (int i = 0; i < 2; i++) { /* first: this waits for a device that still works on the batch */
        dc_results_free(backend, &loop->batches[i].results);
        dc_free(loop->batches[i].rows);
    }
    for (int64_t i = 0; loop->slots != NULL && i < loop->params.max_in_flight; i++) {
        dc_slot_clear(&loop->slots[i]);
        dc_floats_free(backend, loop->slots[i].x_start);
    }
    dc_floats_free(backend, loop->noise);
    dc_free(loop->cost_of_arm);
    dc_free(loop->slots);
    dc_step_clear(&loop->step);
    dc_free(loop);
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

int dc_loop_wants_image(const dc_loop *loop)
{
    return loop->n_in_flight < loop->params.max_in_flight;
}

/* The race handed to the caller by the last advance is done with. */
static void release_reported(dc_loop *loop)
{
    if (loop->reported < 0)
        return;
    dc_slot_clear(&loop->slots[loop->reported]);
    loop->n_in_flight--;
    loop->reported = -1;
}

dc_status dc_loop_add(dc_loop *loop, const float *x_start, const int64_t *listed, int64_t n_listed, int64_t tag,
                      dc_error *err)
{
    const dc_loop_params *params = &loop->params;
    release_reported(loop);
    if (!dc_loop_wants_image(loop))
        return dc_error_set(err, DC_ERR_VALUE, "%lld images are in flight already", (long long)loop->n_in_flight);
    for (int64_t e = 0; e < params->n_elem; e++)
        if (!isfinite(x_start[e]))
            return dc_error_set(err, DC_ERR_VALUE, "image %lld is %g at element %lld, must be finite", (long long)tag,
                                (double)x_start[e], (long long)e);
    dc_slot *slot = loop->slots;
    while (slot->race != NULL)
        slot++;
    dc_status status = DC_OK;
    if (slot->x_start == NULL)
        status = dc_floats_new(params->backend, &slot->x_start, x_start, params->n_elem, "x_start", err);
    else
        status = dc_floats_put(params->backend, slot->x_start, x_start, params->n_elem, err);
    dc_arms own = params->arms;
    if (status == DC_OK && listed != NULL)
        status = dc_slot_list(slot, &own, &params->arms, listed, n_listed, err);
    if (status == DC_OK)
        status = dc_race_new(&slot->race, &own, params->trials, params->n_trials, &params->policy, err);
    if (status != DC_OK) {
        dc_slot_clear(slot);
        return status;
    }
    slot->tag = tag;
    dc_plan_open(slot);
    loop->n_in_flight++;
    return DC_OK;
}

/* ---- one batch --------------------------------------------------------------------------------------------------- */

static void fill_batch(dc_loop *loop)
{
    const dc_loop_params *params = &loop->params;
    asked *batch = loop->filling;
    for (int64_t i = 0; i < params->max_in_flight && batch->n_rows < params->batch_size; i++) {
        int64_t index = (loop->next_slot + i) % params->max_in_flight;
        dc_slot *slot = &loop->slots[index];
        if (slot->race != NULL && !slot->finished)
            batch->n_rows = dc_plan_fill(slot, index, params->condition_offset, batch->rows, batch->n_rows,
                                         params->batch_size);
    }
}

/* Adds to the arm's sum of errors, or of exp(-(e - lowest) / T): relative to the lowest, so that nothing underflows. */
static void pool_error(dc_slot *slot, double error, double temperature, int is_first)
{
    if (is_first) {
        slot->lowest = error;
        slot->pooled = temperature > 0.0 ? 1.0 : error;
    } else if (!(temperature > 0.0)) {
        slot->pooled += error;
    } else if (error < slot->lowest) {
        slot->pooled = slot->pooled * exp((error - slot->lowest) / temperature) + 1.0;
        slot->lowest = error;
    } else {
        slot->pooled += exp((slot->lowest - error) / temperature);
    }
}

/* One answered row: the last condition of an arm's trial completes the trial's error. */
static void record_row(dc_loop *loop, const dc_row *row, double error)
{
    const dc_loop_params *params = &loop->params;
    dc_slot *slot = &loop->slots[row->slot];
    int64_t arm = dc_slot_arm(slot, row->arm);
    int64_t first = params->condition_offset[arm], n = params->condition_offset[arm + 1] - first;
    double temperature = params->pool_temperature;
    slot->n_waiting--;
    if (n > 1) {
        pool_error(slot, error, temperature, row->condition == first);
        if (row->condition < first + n - 1)
            return;
        error = temperature > 0.0 ? slot->lowest - temperature * log(slot->pooled / (double)n) : slot->pooled / (double)n;
    }
    dc_race_record(slot->race, row->arm, row->trial, error);
}

static dc_status check_errors(const dc_loop *loop, const asked *batch, dc_error *err)
{
    const dc_loop_params *params = &loop->params;
    for (int64_t r = 0; r < batch->n_rows; r++) {
        if (isfinite(batch->results.errors[r]))
            continue;
        const dc_row *row = &batch->rows[r];
        const dc_trial *trial = &params->trials[row->trial];
        int64_t arm = dc_slot_arm(&loop->slots[row->slot], row->arm);
        int64_t class_index = params->arms.class_of_arm != NULL ? params->arms.class_of_arm[arm] : arm;
        if (err != NULL) {
            err->class_index = class_index;
            err->timestep = trial->timestep;
            err->noise_index = trial->noise_index;
        }
        return dc_error_set(err, DC_ERR_NONFINITE,
                            "the denoiser's prediction is not finite for class %lld at timestep %u, noise index %u",
                            (long long)class_index, trial->timestep, trial->noise_index);
    }
    return DC_OK;
}

/* The batch that was filled goes through noising, denoiser and eps-error; a device may still be at it afterwards. */
static dc_status ask_batch(dc_loop *loop, dc_error *err)
{
    asked *batch = loop->filling;
    int graph = batch == &loop->batches[1];
    dc_status status =
        dc_step_ask(&loop->step, batch->results.errors, batch->rows, batch->n_rows, graph, &batch->n_room, err);
    if (status == DC_OK)
        loop->next_slot = batch->rows[batch->n_rows - 1].slot;
    return status;
}

/* Its errors go to the races. */
static dc_status read_batch(dc_loop *loop, asked *batch, dc_error *err)
{
    const dc_loop_params *params = &loop->params;
    const dc_device *device = params->backend->device;
    dc_status status = DC_OK;
    if (device != NULL)
        status = device->wait(params->backend, &batch->results, err);
    if (status != DC_OK || (status = check_errors(loop, batch, err)) != DC_OK)
        return status;
    for (int64_t r = 0; r < batch->n_rows; r++)
        record_row(loop, &batch->rows[r], batch->results.errors[r]);
    loop->stats.n_evals += batch->n_rows;
    loop->stats.n_batches++;
    loop->n_room += batch->n_room;
    batch->n_rows = 0;
    if (params->after_batch != NULL)
        status = params->after_batch(params->after_batch_context, loop->stats.n_evals, err);
    return status;
}

/* Asks the filled batch and reads one: on the host the same, with a device the one before it, if there is one.  A batch
 * that was asked too early to know of the other's losses is of rounds that were open anyway: no number depends on it. */
static dc_status ask_and_read(dc_loop *loop, dc_error *err)
{
    const dc_device *device = loop->params.backend->device;
    asked *now = loop->filling, *before = loop->pending;
    dc_status status = ask_batch(loop, err);
    if (status != DC_OK)
        return status;
    if (device == NULL)
        return read_batch(loop, now, err);
    device->mark(loop->params.backend, &now->results);
    loop->pending = now;
    loop->filling = now == &loop->batches[0] ? &loop->batches[1] : &loop->batches[0];
    return before != NULL ? read_batch(loop, before, err) : DC_OK;
}

static dc_status read_pending(dc_loop *loop, dc_error *err)
{
    asked *batch = loop->pending;
    loop->pending = NULL;
    return read_batch(loop, batch, err);
}

static dc_status close_rounds(dc_loop *loop, dc_error *err)
{
    for (int64_t i = 0; i < loop->params.max_in_flight; i++) {
        dc_slot *slot = &loop->slots[i];
        if (slot->race == NULL || slot->finished || !dc_plan_round_done(slot))
            continue;
        dc_race_status race_status;
        dc_status status = dc_race_close_round(slot->race, &race_status, err);
        if (status != DC_OK)
            return status;
        slot->finished = race_status != DC_RACE_RUNNING;
        if (!slot->finished)
            dc_plan_open(slot);
    }
    return DC_OK;
}

dc_status dc_loop_advance(dc_loop *loop, int drain, const dc_race **race, int64_t *tag, dc_error *err)
{
    *race = NULL;
    release_reported(loop);
    for (;;) {
        for (int64_t i = 0; i < loop->params.max_in_flight; i++) {
            if (loop->slots[i].race != NULL && loop->slots[i].finished) {
                loop->reported = i;
                *race = loop->slots[i].race;
                *tag = loop->slots[i].tag;
                return DC_OK;
            }
        }
        fill_batch(loop);
        int64_t n_rows = loop->filling->n_rows;
        int is_full = n_rows == loop->params.batch_size, is_short = !is_full && !drain && dc_loop_wants_image(loop);
        dc_status status;
        if (!is_full && loop->pending != NULL) /* what it says may open more rounds */
            status = read_pending(loop, err);
        else if (n_rows == 0 || is_short)
            return DC_OK;
        else
            status = ask_and_read(loop, err);
        if (status == DC_OK)
            status = close_rounds(loop, err);
        if (status != DC_OK)
            return status;
    }
}

dc_loop_stats dc_loop_statistics(const dc_loop *loop)
{
    dc_loop_stats stats = loop->stats;
    stats.batch_size = loop->params.batch_size;
    if (loop->n_room > 0)
        stats.fill = (double)stats.n_evals / (double)loop->n_room;
    return stats;
}
