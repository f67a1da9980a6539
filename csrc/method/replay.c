#include "method/replay.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

typedef struct replay_job {
    dc_replay_row *rows;
    const dc_replay_params *params;
} replay_job;

static dc_status check_params(const dc_replay_params *params, dc_error *err)
{
    for (int64_t t = 0; t < params->n_trials; t++)
        if (params->columns[t] < 0 || params->columns[t] >= params->n_stored)
            return dc_error_set(err, DC_ERR_VALUE, "columns[%lld] is %lld, must be 0 to %lld", (long long)t,
                                (long long)params->columns[t], (long long)(params->n_stored - 1));
    return DC_OK;
}

/* Runs the race to its end. */
static dc_status run_race(dc_race *race, const dc_replay_params *params, int64_t image, dc_error *err)
{
    const double *errors = params->errors + image * params->arms.n_arms * params->n_stored;
    dc_race_status race_status = DC_RACE_RUNNING;
    dc_status status = DC_OK;
    while (status == DC_OK && race_status == DC_RACE_RUNNING) {
        dc_race_round round = dc_race_open_round(race);
        for (int64_t t = round.first; t < round.first + round.count; t++) {
            int64_t column = params->columns[t];
            for (int64_t i = 0; i < round.n_alive; i++) {
                double error = errors[round.alive[i] * params->n_stored + column];
                if (!isfinite(error))
                    return dc_error_set(err, DC_ERR_VALUE,
                                        "the table has no finite error for prompt %lld at trial %lld of image %lld",
                                        (long long)round.alive[i], (long long)column,
                                        (long long)(params->first_image + image));
                dc_race_record(race, round.alive[i], t, error);
            }
        }
        status = dc_race_close_round(race, &race_status, err);
    }
    return status;
}

static dc_status keep_rounds(dc_replay_row *row, const dc_race *race, dc_error *err)
{
    void *memory;
    const dc_round *rounds = dc_race_rounds(race, &row->n_rounds);
    dc_status status = dc_alloc(&memory, row->n_rounds, sizeof *rounds, "the trace", err);
    if (status != DC_OK)
        return status;
    row->rounds = memory;
    memcpy(memory, rounds, (size_t)row->n_rounds * sizeof *rounds);
    return DC_OK;
}

static dc_status replay_image(const replay_job *job, int64_t image, dc_error *err)
{
    const dc_replay_params *params = job->params;
    dc_replay_row *row = &job->rows[image];
    dc_race *race;
    dc_status status = dc_race_new(&race, &params->arms, params->trials, params->n_trials, &params->policy, err);
    if (status == DC_OK)
        status = run_race(race, params, image, err);
    if (status == DC_OK)
        status = dc_race_read(race, &row->result, err);
    if (status == DC_OK)
        status = keep_rounds(row, race, err);
    dc_race_free(race);
    return status;
}

static void replay_task(void *argument, int64_t image)
{
    const replay_job *job = argument;
    job->rows[image].status = replay_image(job, image, NULL);
}

dc_status dc_replay(dc_replay_row *rows, const dc_replay_params *params, dc_error *err)
{
    replay_job job = {rows, params};
    dc_status status = check_params(params, err);
    if (status != DC_OK)
        return status;
    params->backend->parallel(params->backend, replay_task, &job, params->n_images);
    for (int64_t i = 0; status == DC_OK && i < params->n_images; i++)
        if (rows[i].status != DC_OK)
            status = rows[i].status = replay_image(&job, i, err); /* once more, for its sentence */
    return status;
}
