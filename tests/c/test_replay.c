/* Replay of a table: what the race says of each image, on any number of threads, and which mistake is told. */
#include <string.h>

#include "base/memory.h"
#include "cpu/cpu.h"
#include "method/replay.h"
#include "test.h"

enum { IMAGES = 50, ARMS = 4, STORED = 40, POOL = 30 };

static double errors[IMAGES][ARMS][STORED];
static dc_trial trials[POOL];
static int64_t columns[POOL];

typedef struct outcome {
    dc_replay_row rows[IMAGES];
    double losses[IMAGES][ARMS];
    uint8_t alive[IMAGES][ARMS];
} outcome;

static void make_table(void)
{
    uint32_t state = 1;
    for (int64_t i = 0; i < IMAGES * ARMS * STORED; i++) {
        state = state * 1664525u + 1013904223u;
        (&errors[0][0][0])[i] = 1.0 + 0.02 * (double)(i / STORED % ARMS) + (double)(state >> 8) * 0x1p-26;
    }
    for (int64_t t = 0; t < POOL; t++) {
        trials[t] = (dc_trial){0, (uint32_t)t, 1.0f, t % 2 ? 1.5 : 0.5};
        columns[t] = STORED - 1 - t; /* the table has the policy's trials backwards */
    }
}

static dc_status replay(outcome *out, int n_threads, int64_t first, dc_error *err)
{
    dc_backend *backend;
    CHECK(dc_cpu_backend_new(&backend, n_threads, "scalar", err) == DC_OK);
    dc_replay_params params = {.backend = backend,
                               .arms = {ARMS, ARMS, NULL, NULL},
                               .errors = &errors[first][0][0],
                               .n_images = IMAGES - first,
                               .n_stored = STORED,
                               .first_image = first,
                               .columns = columns,
                               .trials = trials,
                               .n_trials = POOL,
                               .policy = {.risk = 0.1, .n_min = 4, .fill = 1, .prior_weight = 4.0}};
    memset(out, 0, sizeof *out);
    for (int64_t i = 0; i < IMAGES - first; i++)
        out->rows[i].result = (dc_race_result){.losses = out->losses[i], .alive = out->alive[i]};
    dc_status status = dc_replay(out->rows, &params, err);
    dc_cpu_backend_free(backend);
    return status;
}

static void free_rows(outcome *out)
{
    for (int64_t i = 0; i < IMAGES; i++)
        dc_free(out->rows[i].rounds);
}

/* Losses are weighted means over the trials that the image's race read, backwards in the table. */
static void check_losses(const outcome *out)
{
    int64_t decided = 0;
    for (int64_t i = 0; i < IMAGES; i++) {
        const dc_replay_row *row = &out->rows[i];
        int64_t n = row->rounds[row->n_rounds - 1].n_trials, winner = row->result.index;
        double sum = 0.0;
        for (int64_t t = 0; t < n; t++)
            sum += trials[t].weight * errors[i][winner][columns[t]];
        CHECK_CLOSE(out->losses[i][winner], sum / (double)n, 1e-14);
        CHECK(row->rounds[row->n_rounds - 1].n_evals == row->result.n_evals && out->alive[i][winner]);
        decided += row->result.status == DC_RACE_DECIDED;
    }
    CHECK(decided > IMAGES / 4);
}

static void check_threads(const outcome *one)
{
    outcome many;
    dc_error err = {0};
    CHECK(replay(&many, 4, 0, &err) == DC_OK);
    CHECK(memcmp(one->losses, many.losses, sizeof one->losses) == 0);
    for (int64_t i = 0; i < IMAGES; i++) {
        CHECK(one->rows[i].result.index == many.rows[i].result.index && one->rows[i].n_rounds == many.rows[i].n_rounds);
        CHECK(memcmp(one->rows[i].rounds, many.rows[i].rounds, (size_t)many.rows[i].n_rounds * sizeof(dc_round)) == 0);
    }
    free_rows(&many);
}

static void check_mistakes(void)
{
    outcome out;
    dc_error err = {0};
    errors[40][1][columns[2]] = NAN;
    errors[33][2][columns[0]] = INFINITY;
    for (int n_threads = 1; n_threads <= 4; n_threads += 3) {
        CHECK(replay(&out, n_threads, 20, &err) == DC_ERR_VALUE);
        CHECK(strcmp(err.message, "the table has no finite error for prompt 2 at trial 39 of image 33") == 0);
        free_rows(&out);
    }
    columns[3] = STORED;
    CHECK(replay(&out, 1, 0, &err) == DC_ERR_VALUE && strcmp(err.message, "columns[3] is 40, must be 0 to 39") == 0);
    free_rows(&out);
}

int main(void)
{
    outcome one;
    dc_error err = {0};
    make_table();
    CHECK(replay(&one, 1, 0, &err) == DC_OK);
    check_losses(&one);
    check_threads(&one);
    free_rows(&one);
    check_mistakes();
    return test_done();
}
