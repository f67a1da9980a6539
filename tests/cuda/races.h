/* Races for tests of the loop on a device: a denoiser on either side, seven images, and what comes out of them. */
#ifndef DC_TEST_RACES_H
#define DC_TEST_RACES_H

#include "device.h"

extern "C" {
#include "method/loop.h"
}

enum { N_ELEM = 37, T = 20, POOL = 40, CLASSES = 5, IMAGES = 7 };

/* A denoiser on either side: answers x_t (0.5 + t / 40) + 0.02 (1 + class) sin(element).  On the device it is work in the
 * stream, as a framework's would be, so it runs when the loop has long gone on.  It can be recorded: the numbers of a batch
 * are then in memory of the graph's own. */
struct model {
    device *d; /* NULL: the host's */
    float *x_t, *answer;
    int64_t n_calls, n_waiting, deepest; /* batches asked and not yet run */
    int64_t nan_condition, nan_timestep;
    int64_t rows_max, largest; /* more rows are out of memory, if it is not 0; the most that were answered */
    struct tape {
        model *self;
        int64_t n_rows;
        std::vector<int64_t> timesteps, condition;
        cudaGraph_t graph;
        cudaGraphExec_t exec;
    } graphs[DC_GRAPHS];
    int recording;            /* the graph and 1; 0: none */
    int waits_while_recorded; /* what no graph can hold: 1 after its work, 2 before anything else */
    int n_recorded, n_replayed, n_abandoned;
};

static inline void denoise_rows(const model *self, const float *x_t, int64_t n_rows, const std::vector<int64_t> &timesteps,
                                const std::vector<int64_t> &condition)
{
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t e = 0; e < N_ELEM; e++) {
            int64_t t = timesteps[(size_t)r], c = condition[(size_t)r];
            float slope = 0.5f + (float)t / 40.0f, own = 0.02f * (float)(1 + c) * sinf((float)e);
            self->answer[r * N_ELEM + e] = c == self->nan_condition && t == self->nan_timestep ? NAN
                                                                                              : x_t[r * N_ELEM + e] * slope + own;
        }
}

static inline dc_status model_input(void *context, float **x_t, int64_t, int64_t, dc_error *)
{
    *x_t = ((model *)context)->x_t;
    return DC_OK;
}

static inline void recorded_rows(void *argument)
{
    const model::tape *g = (model::tape *)argument;
    denoise_rows(g->self, g->self->x_t, g->n_rows, g->timesteps, g->condition);
}

static inline dc_status model_denoise(void *context, const dc_batch *batch, dc_prediction *out, dc_error *err)
{
    model *self = (model *)context;
    std::vector<int64_t> timesteps(batch->timesteps, batch->timesteps + batch->n_rows);
    std::vector<int64_t> condition(batch->condition, batch->condition + batch->n_rows);
    if (self->rows_max > 0 && batch->n_rows > self->rows_max)
        return dc_error_set(err, DC_ERR_NOMEM, "out of memory for %lld rows", (long long)batch->n_rows);
    self->largest = batch->n_rows > self->largest ? batch->n_rows : self->largest;
    self->n_calls++;
    *out = dense(self->answer, DC_FLOAT32, N_ELEM);
    if (self->d == NULL) {
        denoise_rows(self, batch->x_t, batch->n_rows, timesteps, condition);
        return DC_OK;
    }
    if (self->recording > 0) {
        model::tape *g = &self->graphs[self->recording - 1];
        g->self = self;
        g->n_rows = batch->n_rows;
        CHECK(cudaLaunchHostFunc(self->d->stream, recorded_rows, g) == cudaSuccess);
        if (self->waits_while_recorded == 1 && cudaStreamSynchronize(self->d->stream) != cudaSuccess)
            return dc_error_set(err, DC_ERR_DENOISER, "waiting is forbidden");
        return DC_OK;
    }
    int64_t waiting = __atomic_add_fetch(&self->n_waiting, 1, __ATOMIC_SEQ_CST); /* a real device takes from it meanwhile */
    self->deepest = waiting > self->deepest ? waiting : self->deepest;
    const float *x_t = batch->x_t;
    int64_t n_rows = batch->n_rows;
    shim_enqueue(self->d->stream, [=] {
        denoise_rows(self, x_t, n_rows, timesteps, condition);
        __atomic_sub_fetch(&self->n_waiting, 1, __ATOMIC_SEQ_CST);
    });
    return DC_OK;
}

static inline void model_release(void *) {}

static inline void graph_clear(model::tape *g)
{
    if (g->exec != NULL)
        CHECK(cudaGraphExecDestroy(g->exec) == cudaSuccess);
    if (g->graph != NULL)
        CHECK(cudaGraphDestroy(g->graph) == cudaSuccess);
    g->exec = NULL;
    g->graph = NULL;
}

static inline dc_status model_record(void *context, int graph, dc_error *err)
{
    model *self = (model *)context;
    graph_clear(&self->graphs[graph]);
    if (cudaStreamBeginCapture(self->d->stream, cudaStreamCaptureModeGlobal) != cudaSuccess)
        return dc_error_set(err, DC_ERR_DENOISER, "no capture");
    self->recording = graph + 1;
    if (self->waits_while_recorded == 2)
        CHECK(cudaStreamSynchronize(self->d->stream) != cudaSuccess);
    return DC_OK;
}

static inline dc_status model_recorded(void *context, int graph, dc_error *err)
{
    model *self = (model *)context;
    model::tape *g = &self->graphs[graph];
    self->recording = 0;
    self->n_recorded++;
    if (cudaStreamEndCapture(self->d->stream, &g->graph) != cudaSuccess ||
        cudaGraphInstantiate(&g->exec, g->graph, 0) != cudaSuccess)
        return dc_error_set(err, DC_ERR_DENOISER, "no graph");
    return DC_OK;
}

static inline dc_status model_abandon(void *context, int graph, dc_error *)
{
    model *self = (model *)context;
    if (self->recording > 0)
        CHECK(cudaStreamEndCapture(self->d->stream, &self->graphs[graph].graph) != cudaSuccess);
    (void)cudaGetLastError();
    self->recording = 0;
    self->n_abandoned++;
    return DC_OK;
}

static inline dc_status model_replay(void *context, int graph, const dc_batch *batch, dc_error *err)
{
    model *self = (model *)context;
    model::tape *g = &self->graphs[graph];
    CHECK(batch->n_rows == g->n_rows && batch->x_t == NULL);
    g->timesteps.assign(batch->timesteps, batch->timesteps + batch->n_rows);
    g->condition.assign(batch->condition, batch->condition + batch->n_rows);
    self->n_replayed++;
    return cudaGraphLaunch(g->exec, self->d->stream) == cudaSuccess
               ? DC_OK
               : dc_error_set(err, DC_ERR_DENOISER, "the graph does not run");
}

static const dc_recorder model_recorder = {model_record, model_recorded, model_abandon, model_replay};

struct setting {
    double alpha[T], sigma[T], time[T], p[T], q[T];
    dc_trial trials[POOL];
    int64_t condition_offset[CLASSES + 1], conditions[CLASSES];
    float images[IMAGES][N_ELEM], noise[POOL * N_ELEM];
    model net;
    dc_loop_params params;
    int64_t last_batch_size; /* of the last run */
};

static inline void setting_open(setting *s, device *d, int on_device, int64_t batch_size, int64_t in_flight)
{
    const int64_t ROWS_MAX = 1000;
    *s = {};
    for (int t = 0; t < T; t++) {
        double u = (double)(t + 1) / (double)(T + 1);
        s->alpha[t] = sqrt(1.0 - u), s->sigma[t] = sqrt(u), s->time[t] = t, s->q[t] = 1.0;
    }
    CHECK(dc_trials_pool(s->trials, POOL, T, NULL, NULL, 1, NULL) == DC_OK); /* antithetic pairs */
    for (int i = 0; i < IMAGES; i++)
        for (int e = 0; e < N_ELEM; e++)
            s->images[i][e] = sinf((float)(i * N_ELEM + 3 * e));
    for (int i = 0; i < POOL * N_ELEM; i++)
        s->noise[i] = cosf((float)i);
    for (int i = 0; i < CLASSES; i++)
        s->condition_offset[i] = s->conditions[i] = i;
    s->condition_offset[CLASSES] = CLASSES;
    s->net.d = on_device ? d : NULL;
    s->net.nan_condition = -1;
    if (on_device) {
        std::vector<float> zeros((size_t)ROWS_MAX * N_ELEM); /* the framework's writes are none that the shim sees */
        s->net.x_t = device_new<float>(d, ROWS_MAX * N_ELEM);
        s->net.answer = device_put(d, zeros.data(), ROWS_MAX * N_ELEM);
    } else {
        s->net.x_t = (float *)malloc((size_t)(ROWS_MAX * N_ELEM) * sizeof(float));
        s->net.answer = (float *)malloc((size_t)(ROWS_MAX * N_ELEM) * sizeof(float));
    }
    s->params = {};
    s->params.backend = on_device ? d->backend : d->host;
    s->params.denoiser = {&s->net, model_input, model_denoise, model_release, NULL, NULL};
    s->params.n_elem = N_ELEM;
    s->params.n_timesteps = T;
    s->params.alpha = s->alpha, s->params.sigma = s->sigma, s->params.time = s->time, s->params.p = s->p, s->params.q = s->q;
    s->params.arms.n_arms = s->params.arms.n_classes = CLASSES;
    s->params.condition_offset = s->condition_offset;
    s->params.conditions = s->conditions;
    s->params.trials = s->trials;
    s->params.n_trials = POOL;
    s->params.policy.risk = 0.05, s->params.policy.n_min = 4, s->params.policy.fill = 10, s->params.policy.prior_weight = 4.0;
    s->params.loss = DC_LOSS_L2;
    s->params.delta = 1.0f;
    s->params.seed = 11;
    s->params.batch_size = batch_size;
    s->params.max_in_flight = in_flight;
}

static inline void setting_close(setting *s)
{
    for (model::tape &g : s->net.graphs)
        graph_clear(&g);
    if (s->net.d == NULL) {
        free(s->net.x_t);
        free(s->net.answer);
    } else {
        device_clear(s->net.d);
    }
}

struct outcome {
    double losses[CLASSES], stderrs[CLASSES], excess[CLASSES], p_disagree;
    int64_t n_trials[CLASSES], index, n_evals;
};

static inline void read_race(outcome *out, const dc_race *race)
{
    dc_race_result result = {};
    result.losses = out->losses, result.stderrs = out->stderrs, result.excess = out->excess, result.n_trials = out->n_trials;
    CHECK(dc_race_read(race, &result, NULL) == DC_OK);
    out->index = result.index, out->n_evals = result.n_evals, out->p_disagree = result.p_disagree;
}

/* All images through one loop; stops at the first failure. */
static inline dc_status run_images(setting *s, outcome *outcomes, dc_error *err)
{
    dc_loop *loop;
    const dc_race *race;
    int64_t tag, n_added = 0, n_done = 0;
    memset(outcomes, 0, IMAGES * sizeof *outcomes);
    dc_status status = dc_loop_new(&loop, &s->params, err);
    while (status == DC_OK && n_done < IMAGES) {
        while (status == DC_OK && n_added < IMAGES && dc_loop_wants_image(loop)) {
            status = dc_loop_add(loop, s->images[n_added], NULL, 0, n_added, err);
            n_added++;
        }
        if (status == DC_OK)
            status = dc_loop_advance(loop, n_added == IMAGES, &race, &tag, err);
        if (status == DC_OK && race != NULL) {
            read_race(&outcomes[tag], race);
            n_done++;
        }
    }
    s->last_batch_size = loop == NULL ? 0 : dc_loop_statistics(loop).batch_size;
    dc_loop_free(loop);
    return status;
}

#endif
