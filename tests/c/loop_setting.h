/* What the tests of the loop share: a denoiser in C that says what it was asked, and the settings of a loop around it. */
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "method/loop.h"
#include "test.h"

enum { N_ELEM = 37, T = 20, POOL = 40, CLASSES = 5, CONDITIONS = 8, IMAGES = 6 };

/* The denoiser answers x_t (0.5 + t / 40) + 0.02 (1 + class) sin(element): classes differ, rows do not interfere. */
typedef struct model {
    float *x_t, *answer;
    int64_t n_rows, n_calls, n_released, largest_batch, wrong_condition, wrong_input;
    int64_t nan_condition, nan_timestep; /* where to answer NaN; -1: nowhere */
    int64_t fail_input, fail_denoise;    /* the call that fails; 0: none */
} model;

static inline float answer(float x_t, int64_t timestep, int64_t condition, int64_t element)
{
    return x_t * (0.5f + (float)timestep / 40.0f) + 0.02f * (float)(1 + condition) * sinf((float)element);
}

static inline dc_status model_input(void *context, float **x_t, int64_t n_rows, int64_t n_elem, dc_error *err)
{
    model *self = context;
    if (++self->n_calls == self->fail_input)
        return dc_error_set(err, DC_ERR_DENOISER, "no input");
    free(self->x_t);
    free(self->answer);
    self->x_t = malloc((size_t)(n_rows * n_elem) * sizeof(float));
    self->answer = malloc((size_t)(n_rows * n_elem) * sizeof(float));
    self->n_rows = n_rows;
    *x_t = self->x_t;
    return DC_OK;
}

static inline dc_status model_denoise(void *context, const dc_batch *batch, dc_prediction *out, dc_error *err)
{
    model *self = context;
    if (self->n_calls == self->fail_denoise)
        return dc_error_set(err, DC_ERR_DENOISER, "no answer");
    CHECK(batch->x_t == self->x_t && batch->n_rows == self->n_rows && batch->n_elem == N_ELEM);
    self->largest_batch = batch->n_rows > self->largest_batch ? batch->n_rows : self->largest_batch;
    for (int64_t r = 0; r < batch->n_rows; r++) {
        int64_t t = batch->timesteps[r], condition = batch->condition[r] - 100;
        self->wrong_condition += condition < 0 || condition >= CONDITIONS || batch->time[r] != 0.25 * (double)t;
        const float *x_t = batch->x_t + r * N_ELEM;
        int64_t same = r > 0 && memcmp(x_t, x_t - N_ELEM, N_ELEM * sizeof *x_t) == 0;
        self->wrong_input += batch->input_of_row[r] != (r == 0 ? 0 : batch->input_of_row[r - 1] + 1 - same);
        for (int64_t e = 0; e < N_ELEM; e++)
            self->answer[r * N_ELEM + e] = answer(batch->x_t[r * N_ELEM + e], t, condition, e);
        if (condition == self->nan_condition && t == self->nan_timestep)
            self->answer[r * N_ELEM + N_ELEM - 1] = NAN;
    }
    *out = (dc_prediction){.data = self->answer, .dtype = DC_FLOAT32, .row_stride = N_ELEM};
    return DC_OK;
}

static inline void model_release(void *context)
{
    ((model *)context)->n_released++;
}

/* Everything a run needs, kept alive together. */
typedef struct setting {
    double alpha[T], sigma[T], time[T], p[T], q[T];
    dc_trial trials[POOL];
    int64_t class_of_arm[CONDITIONS], condition_offset[CONDITIONS + 1], conditions[CONDITIONS];
    float images[IMAGES][N_ELEM];
    dc_backend *backend;
    model model;
    dc_loop_params params;
} setting;

static inline void setting_open(setting *s, int n_threads, const char *simd)
{
    memset(s, 0, sizeof *s);
    CHECK(dc_cpu_backend_new(&s->backend, n_threads, simd, NULL) == DC_OK);
    for (int t = 0; t < T; t++) {
        double u = (t + 1.0) / (T + 1.0);
        s->alpha[t] = sqrt(1.0 - u), s->sigma[t] = sqrt(u), s->time[t] = 0.25 * t, s->p[t] = 0.0, s->q[t] = 1.0;
    }
    CHECK(dc_trials_pool(s->trials, POOL, T, NULL, NULL, 0, NULL) == DC_OK);
    for (int i = 0; i < IMAGES; i++)
        for (int e = 0; e < N_ELEM; e++)
            s->images[i][e] = sinf((float)(i * N_ELEM + 3 * e));
    for (int i = 0; i < CONDITIONS; i++)
        s->condition_offset[i] = i, s->conditions[i] = 100 + i;
    s->condition_offset[CLASSES] = CLASSES;
    s->model.nan_condition = s->model.nan_timestep = -1;
    s->params = (dc_loop_params){
        .backend = s->backend, .denoiser = {&s->model, model_input, model_denoise, model_release}, .n_elem = N_ELEM,
        .n_timesteps = T, .alpha = s->alpha, .sigma = s->sigma, .time = s->time, .p = s->p, .q = s->q,
        .arms = {.n_arms = CLASSES, .n_classes = CLASSES}, .condition_offset = s->condition_offset,
        .conditions = s->conditions, .trials = s->trials, .n_trials = POOL,
        .policy = {.risk = 0.05, .n_min = 4, .fill = 10, .prior_weight = 4.0}, .loss = DC_LOSS_L2, .delta = 1.0f, .seed = 11,
        .batch_size = 16, .max_in_flight = 2};
}

static inline void setting_close(setting *s)
{
    free(s->model.x_t);
    free(s->model.answer);
    dc_cpu_backend_free(s->backend);
}
