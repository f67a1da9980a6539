/* Steps of csrc/method on the CUDA backend: recorded as graphs, and in smaller batches where memory is full.  Whatever the
 * way, races are the CPU's to the bit. */
#include "races.h"

static const int64_t MANY = 1000;

static void hosts_races(outcome *outcomes, device *d)
{
    setting *s = new setting;
    setting_open(s, d, 0, 16, 2);
    CHECK(run_images(s, outcomes, NULL) == DC_OK);
    setting_close(s);
    delete s;
}

/* One run on the device: its races must be the host's. */
struct way {
    int64_t batch_size, in_flight, rows_max;
    bool is_recorded;
    int waits_while_recorded;
    const char *failing;
    int after; /* its calls that do not fail */
};

static model run(const way *w, const outcome *wanted, int64_t *batch_size)
{
    outcome outcomes[IMAGES];
    setting *s = new setting;
    dc_error err = {};
    device d = device_open(1, 1);
    setting_open(s, &d, 1, w->batch_size, w->in_flight);
    s->net.rows_max = w->rows_max;
    s->net.waits_while_recorded = w->waits_while_recorded;
    s->params.denoiser.recorder = w->is_recorded ? &model_recorder : NULL;
    if (w->failing != NULL)
        shim_fail(w->failing, w->after, cudaErrorInvalidValue);
    CHECK(run_images(s, outcomes, &err) == DC_OK);
    CHECK(memcmp(outcomes, wanted, sizeof outcomes) == 0);
    CHECK(cudaGetLastError() == cudaSuccess && shim_reports() == 0);
    *batch_size = s->last_batch_size;
    model net = s->net;
    setting_close(s);
    delete s;
    device_close(&d);
    return net;
}

static void check_graphs(const outcome *wanted)
{
    const int64_t batch_sizes[] = {16, 1, 7, 33};
    int64_t batch_size;
    for (int64_t size : batch_sizes) {
        way w = {size, 4, 0, true, 0, NULL, 0};
        model net = run(&w, wanted, &batch_size);
        CHECK(net.n_recorded == 2 && net.n_abandoned == 0);
        CHECK(net.n_replayed > 0 && net.n_calls >= 3 + 2); /* three full ones before, two to be recorded, those not full */
        CHECK(net.deepest <= 2);
    }
    way too_large = {MANY, 3, 0, true, 0, NULL, 0}; /* never full: never recorded */
    model net = run(&too_large, wanted, &batch_size);
    CHECK(net.n_recorded == 0 && net.n_replayed == 0);
}

/* What can not be recorded is told once, and runs call by call. */
static void check_no_graph(const outcome *wanted)
{
    int64_t batch_size;
    way waits = {16, 4, 0, true, 1, NULL, 0}, no_capture = {16, 4, 0, true, 0, "cudaStreamBeginCapture", 0};
    way no_graph = {16, 4, 0, true, 0, "cudaGraphInstantiate", 0};
    way no_memory = {16, 4, 0, true, 0, "cudaMallocHost", 7}; /* four stages, two results, a graph's first */
    way waits_first = {16, 4, 0, true, 2, NULL, 0}; /* then noising and eps-error fail, too, and are forgiven */
    for (const way *w : {&waits, &waits_first, &no_capture, &no_graph, &no_memory}) {
        if (shim_is_real() && w->failing != NULL)
            continue;
        model net = run(w, wanted, &batch_size);
        CHECK(net.n_abandoned == 1 && net.n_replayed == 0 && net.n_recorded <= 1);
    }
}

/* The batch falls by halves to what fits, and graphs are made anew of it. */
static void check_memory(const outcome *wanted)
{
    int64_t batch_size;
    for (bool is_recorded : {false, true}) {
        way w = {64, 4, 9, is_recorded, 0, NULL, 0};
        model net = run(&w, wanted, &batch_size);
        CHECK(batch_size == 8 && net.largest == 8);
        CHECK(!is_recorded || (net.n_replayed > 0 && net.graphs[0].n_rows == 8));
        way odd = {7, 2, 1, is_recorded, 0, NULL, 0};
        net = run(&odd, wanted, &batch_size);
        CHECK(batch_size == 1 && net.largest == 1);
    }
}

/* Not even one row: the error. */
static void check_no_memory()
{
    outcome outcomes[IMAGES];
    setting *s = new setting;
    dc_error err = {};
    device d = device_open(1, 1);
    setting_open(s, &d, 1, 16, 2);
    s->net.rows_max = -1;
    s->params.denoiser.denoise = [](void *, const dc_batch *batch, dc_prediction *, dc_error *e) {
        return dc_error_set(e, DC_ERR_NOMEM, "%lld rows", (long long)batch->n_rows);
    };
    CHECK(run_images(s, outcomes, &err) == DC_ERR_NOMEM && strcmp(err.message, "1 rows") == 0);
    setting_close(s);
    delete s;
    device_close(&d);
}

/* In the loop nothing is allocated, and nobody waits but for a batch before the last: counted when it is warm. */
static void check_nothing_waits(device *d)
{
    static const char *const forbidden[] = {"cudaMalloc", "cudaMallocHost", "cudaFree", "cudaStreamSynchronize",
                                            "cudaEventCreateWithFlags"};
    setting *s = new setting;
    dc_loop *loop;
    const dc_race *race;
    int64_t tag;
    setting_open(s, d, 1, 16, IMAGES);
    CHECK(dc_loop_new(&loop, &s->params, NULL) == DC_OK);
    for (int i = 0; i < IMAGES; i++)
        CHECK(dc_loop_add(loop, s->images[i], NULL, 0, i, NULL) == DC_OK);
    CHECK(cudaStreamSynchronize(d->stream) == cudaSuccess);
    shim_reset(); /* of the calls so far */
    do {
        CHECK(dc_loop_advance(loop, 1, &race, &tag, NULL) == DC_OK);
    } while (race != NULL);
    for (const char *function : forbidden)
        CHECK(shim_calls(function) == 0);
    dc_loop_stats stats = dc_loop_statistics(loop);
    CHECK(shim_calls("cudaLaunchKernelEx") == 3 * stats.n_batches); /* noising, eps-error, its mean */
    CHECK(shim_calls("cudaMemcpyAsync") == 2 * stats.n_batches);
    CHECK(shim_calls("cudaEventSynchronize") == 3 * stats.n_batches); /* two stages long free, one batch before the last */
    dc_loop_free(loop);
    setting_close(s);
    delete s;
}

/* A replay costs the host one call and a mark. */
static void check_replays_call_little(device *d)
{
    setting *s = new setting;
    outcome outcomes[IMAGES];
    setting_open(s, d, 1, 4, IMAGES);
    s->params.denoiser.recorder = &model_recorder;
    CHECK(cudaStreamSynchronize(d->stream) == cudaSuccess);
    shim_reset();
    CHECK(run_images(s, outcomes, NULL) == DC_OK);
    int64_t by_call = s->net.n_calls;
    CHECK(s->net.n_replayed > 20 && shim_calls("cudaGraphLaunch") == s->net.n_replayed);
    CHECK(shim_calls("cudaLaunchKernelEx") == 3 * by_call && shim_calls("cudaMalloc") < 40);
    setting_close(s);
    delete s;
}

int main()
{
    outcome wanted[IMAGES];
    device d = device_open(1, 1);
    hosts_races(wanted, &d);
    check_graphs(wanted);
    check_no_graph(wanted);
    check_memory(wanted);
    check_no_memory();
    if (!shim_is_real()) {
        check_nothing_waits(&d);
        check_replays_call_little(&d);
    }
    device_close(&d);
    return device_done();
}
