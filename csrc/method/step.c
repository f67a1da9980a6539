#include "method/step.h"

#include <string.h>

#include "base/memory.h"

/* Floats of eps that a batch keeps at most (4 MiB): what fits in a core's share of the last cache.
 * Full batches before a step is recorded: libraries choose and load their kernels in the first ones. */
enum { KEPT_MAX = 1 << 20, N_WARM = 3 };

/* One batch on its way through a step. */
typedef struct passage {
    dc_batch batch;
    double *errors;
    int64_t n_groups;
} passage;

dc_status dc_step_init(dc_step *step, dc_loop_params *params, const dc_slot *slots, dc_error *err)
{
    void *memory = NULL;
    step->params = params;
    step->slots = slots;
    if (params->noise == NULL && params->backend->noise_of_groups != NULL) {
        int64_t room = KEPT_MAX / params->n_elem;
        step->n_kept = room < params->batch_size ? room : params->batch_size;
    }
    struct {
        void *member;
        int64_t count;
        size_t item_bytes;
    } arrays[] = {
        {&step->groups, params->batch_size, sizeof *step->groups},
        {&step->timesteps, params->batch_size, sizeof *step->timesteps},
        {&step->condition, params->batch_size, sizeof *step->condition},
        {&step->input_of_row, params->batch_size, sizeof *step->input_of_row},
        {&step->time, params->batch_size, sizeof *step->time},
        {&step->kept, step->n_kept * params->n_elem, sizeof *step->kept},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        dc_status status = dc_alloc(&memory, arrays[i].count, arrays[i].item_bytes, "the batch", err);
        if (status != DC_OK)
            return status;
        memcpy(arrays[i].member, &memory, sizeof memory);
    }
    return DC_OK;
}

void dc_step_clear(dc_step *step)
{
    dc_free(step->groups);
    dc_free(step->timesteps);
    dc_free(step->condition);
    dc_free(step->input_of_row);
    dc_free(step->time);
    dc_free(step->kept);
}

/* Rows of one (image, trial) become one group; returns the number of groups. */
static int64_t group_rows(dc_step *step, const dc_row *rows, int64_t n_rows)
{
    const dc_loop_params *params = step->params;
    int64_t n_groups = 0;
    for (int64_t r = 0; r < n_rows; r++) {
        const dc_row *row = &rows[r];
        const dc_trial *trial = &params->trials[row->trial];
        int64_t t = trial->timestep;
        step->timesteps[r] = t;
        step->time[r] = params->time[t];
        step->condition[r] = params->conditions[row->condition];
        if (r > 0 && row->slot == row[-1].slot && row->trial == row[-1].trial) {
            step->groups[n_groups - 1].n_rows++;
            step->input_of_row[r] = n_groups - 1;
            continue;
        }
        step->input_of_row[r] = n_groups;
        step->groups[n_groups++] = (dc_group){
            .x_start = step->slots[row->slot].x_start,
            .eps = params->noise != NULL ? params->noise + (int64_t)trial->noise_index * params->n_elem : NULL,
            .key = {params->seed, trial->noise_index, trial->timestep},
            .eps_sign = trial->eps_sign,
            .alpha = (float)params->alpha[t],
            .sigma = (float)params->sigma[t],
            .p = (float)params->p[t],
            .q = (float)params->q[t],
            .n_rows = 1,
        };
    }
    return n_groups;
}

/* The first groups' eps is made once and read twice; the others' is made twice.  The numbers are the same. */
static void keep_noise(dc_step *step, int64_t n_groups)
{
    const dc_loop_params *params = step->params;
    int64_t n = n_groups < step->n_kept ? n_groups : step->n_kept;
    if (n == 0)
        return;
    params->backend->noise_of_groups(params->backend, step->kept, step->groups, n, params->n_elem);
    for (int64_t g = 0; g < n; g++)
        step->groups[g].eps = step->kept + g * params->n_elem;
}

/* Noising, denoiser, eps-error, one call after another. */
static dc_status call_by_call(dc_step *step, const passage *asked, dc_error *err)
{
    const dc_loop_params *params = step->params;
    const dc_backend *backend = params->backend;
    const dc_denoiser *denoiser = &params->denoiser;
    const dc_layout plain = {DC_FLOAT32, 0};
    float *x_t;
    dc_batch batch = asked->batch;
    dc_prediction prediction;
    dc_status status = denoiser->input(denoiser->context, &x_t, batch.n_rows, batch.n_elem, err);
    if (status != DC_OK)
        return status;
    backend->noising(backend, x_t, step->groups, asked->n_groups, batch.n_elem,
                     denoiser->layout != NULL ? *denoiser->layout : plain);
    batch.x_t = x_t;
    if ((status = denoiser->denoise(denoiser->context, &batch, &prediction, err)) != DC_OK)
        return status;
    backend->eps_error(backend, asked->errors, prediction, step->groups, asked->n_groups, batch.n_elem, params->loss,
                       params->delta);
    denoiser->release(denoiser->context);
    return DC_OK;
}

/* The same calls, recorded: nothing runs.  Where that can not be, the denoiser tells why, and no step is recorded again. */
static dc_status record(dc_step *step, const passage *asked, int graph, dc_error *err)
{
    const dc_loop_params *params = step->params;
    const dc_denoiser *denoiser = &params->denoiser;
    const dc_device *device = params->backend->device;
    dc_status status = device->record(params->backend, graph, err);
    if (status == DC_OK) {
        status = denoiser->recorder->begin(denoiser->context, graph, err);
        if (status == DC_OK)
            status = call_by_call(step, asked, err);
        if (status == DC_OK)
            status = denoiser->recorder->end(denoiser->context, graph, err);
        dc_status seen = device->recorded(params->backend, status == DC_OK ? err : NULL);
        if (status == DC_OK)
            status = seen;
    }
    step->is_recorded[graph] = status == DC_OK;
    step->is_unrecordable = status != DC_OK;
    return status == DC_OK ? DC_OK : denoiser->recorder->abandon(denoiser->context, graph, err);
}

/* One batch.  A graph needs all the rows that it was recorded with. */
static dc_status ask(dc_step *step, const passage *asked, int graph, int is_full, dc_error *err)
{
    const dc_loop_params *params = step->params;
    const dc_denoiser *denoiser = &params->denoiser;
    dc_status status = DC_OK;
    if (params->backend->device == NULL || denoiser->recorder == NULL || !is_full || step->is_unrecordable)
        return call_by_call(step, asked, err);
    if (step->n_warm < N_WARM) {
        step->n_warm++;
        return call_by_call(step, asked, err);
    }
    if (!step->is_recorded[graph] && (status = record(step, asked, graph, err)) != DC_OK)
        return status;
    if (!step->is_recorded[graph])
        return call_by_call(step, asked, err);
    params->backend->device->refill(params->backend, graph, step->groups, asked->n_groups, params->n_elem);
    return denoiser->recorder->replay(denoiser->context, graph, &asked->batch, err);
}

dc_status dc_step_ask(dc_step *step, double *errors, const dc_row *rows, int64_t n_rows, int graph, int64_t *n_room,
                      dc_error *err)
{
    dc_loop_params *params = step->params;
    int64_t first = 0;
    *n_room = 0;
    while (first < n_rows) {
        int64_t n = n_rows - first < params->batch_size ? n_rows - first : params->batch_size;
        passage asked = {.batch = {n, params->n_elem, NULL, step->timesteps, step->time, step->condition, step->input_of_row},
                         .errors = errors + first,
                         .n_groups = group_rows(step, rows + first, n)};
        keep_noise(step, asked.n_groups);
        dc_status status = ask(step, &asked, graph, n == n_rows && n == params->batch_size, err);
        if (status == DC_ERR_NOMEM && n > 1) { /* the same rows again, in smaller batches */
            params->batch_size = (n + 1) / 2;
            memset(step->is_recorded, 0, sizeof step->is_recorded);
            continue;
        }
        if (status != DC_OK)
            return status;
        *n_room += params->batch_size;
        first += n;
    }
    return DC_OK;
}
