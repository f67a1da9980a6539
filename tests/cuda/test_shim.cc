/* The shim itself: what is right passes, and each kind of wrong is seen and named. */
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "wrong_kernels.h"

enum { N = 64 };

static const struct {
    const char *kernel;
    unsigned n_blocks;
    const char *report; /* a part of it, or NULL */
} CASES[] = {
    {"right", 3, "race in global"}, /* three blocks write the same out */
    {"right", 1, NULL},
    {"ballot", 1, NULL},
    {"no_barrier", 1, "shared memory"},
    {"write_after_read", 1, "race in shared"},
    {"two_writers", 1, "race in global"},
    {"blocks_meet", 1, NULL},
    {"blocks_meet", 2, "race in global"},
    {"unwritten_shared", 1, "shared memory is read that nobody wrote"},
    {"unwritten_global", 1, "global memory is read that nobody wrote"},
    {"divergent", 1, "divergent barrier"},
    {"two_barriers", 1, "divergent barrier"},
    {"past_the_end", 1, "out of bounds"},
    {"past_shared", 1, "out of bounds"},
    {"of_the_host", 1, "not its own"},
    {"short_mask", 1, "leaves it out"},
    {"lanes_left", 1, "do not come"},
    {"left_out", 1, "leaves out"},
};

static void check_case(device *d, const char *kernel, unsigned n_blocks, const char *wanted)
{
    float host[N] = {1.0f}, *out = device_new<float>(d, N), *in = device_new<float>(d, 2 * N);
    CHECK(d->backend->device->upload(d->backend, in, host, sizeof host, NULL) == DC_OK);
    wrong_launch(kernel, d->stream, n_blocks, {out, in, host});
    uint32_t before;
    memcpy(&before, out, sizeof before);
    CHECK(before == UINT32_MAX); /* nothing runs before somebody waits */
    CHECK(cudaStreamSynchronize(d->stream) == cudaSuccess);
    int ok = wanted == NULL ? shim_reports() == 0 : shim_reports() > 0 && strstr(shim_last_report(), wanted) != NULL;
    if (!ok)
        printf("%s: %s\n", kernel, shim_last_report());
    CHECK(ok);
    if (wanted == NULL && strcmp(kernel, "blocks_meet") != 0)
        for (int i = 0; i < N; i++) /* "right" turns its threads around, "ballot" moves them down by one lane */
            CHECK(out[i] == (float)(kernel[0] == 'r' ? N - 1 - i : i % 32 == 31 ? i : i + 1));
    shim_reset();
    device_clear(d);
}

/* In a process of its own, because it ends there. */
static void check_misaligned_ends(device *d)
{
    float *memory = device_new<float>(d, 8);
    pid_t child = fork();
    int status = 0;
    if (child == 0) {
        fclose(stderr);
        misaligned(memory + 1);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && !(WIFEXITED(status) && WEXITSTATUS(status) == 0));
    CHECK(shim_reports() == 0);
    (void)host_reads(memory);
    CHECK(strstr(shim_last_report(), "the host touches") != NULL);
    shim_reset();
    device_clear(d);
}

/* What is captured runs when its graph does, as often as that; what a capture forbids ends it with an error. */
static void check_capture(device *d)
{
    float *out = device_new<float>(d, N), *in = device_new<float>(d, 2 * N);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t event;
    void *memory;
    int ran = 0;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    CHECK(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeGlobal) == cudaErrorStreamCaptureUnsupported); /* the default one */
    CHECK(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    wrong_launch("right", d->stream, 1, {out, in, NULL});
    CHECK(cudaLaunchHostFunc(d->stream, [](void *count) { ++*(int *)count; }, &ran) == cudaSuccess);
    CHECK(cudaStreamEndCapture(d->stream, &graph) == cudaSuccess && graph != NULL);
    CHECK(cudaStreamSynchronize(d->stream) == cudaSuccess && ran == 0);
    CHECK(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess);
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(exec, d->stream) == cudaSuccess && ran == 0);
    CHECK(cudaStreamSynchronize(d->stream) == cudaSuccess && ran == 3 && out[0] == (float)(N - 1));
    CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
    for (int forbidden = 0; forbidden < 6; forbidden++) {
        float pageable[2] = {};
        CHECK(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
        CHECK(cudaEventRecord(event, d->stream) == cudaSuccess);
        cudaError_t said = forbidden == 0   ? cudaMalloc(&memory, 4)
                           : forbidden == 1 ? cudaMallocHost(&memory, 4)
                           : forbidden == 2 ? cudaFree(out)
                           : forbidden == 3 ? cudaStreamSynchronize(d->stream)
                           : forbidden == 4 ? cudaEventSynchronize(event)
                                            : cudaMemcpyAsync(out, pageable, 8, cudaMemcpyHostToDevice, d->stream);
        CHECK(said == (forbidden == 4 ? cudaErrorCapturedEvent : cudaErrorStreamCaptureUnsupported));
        CHECK(cudaGetLastError() == said && cudaGetLastError() == cudaSuccess);
        CHECK(cudaStreamEndCapture(d->stream, &graph) == cudaErrorStreamCaptureInvalidated && graph == NULL);
    }
    (void)cudaGetLastError();
    CHECK(cudaEventDestroy(event) == cudaSuccess && shim_reports() == 0);
    device_clear(d);
}

int main()
{
    device d = device_open(1, 1);
    fclose(stderr); /* the reports that are wanted */
    for (shim_order order : {SHIM_FORWARD, SHIM_BACKWARD, SHIM_MIXED}) {
        shim_set_order(order);
        for (const auto &item : CASES)
            check_case(&d, item.kernel, item.n_blocks, item.report);
    }
    check_capture(&d);
    check_misaligned_ends(&d);
    device_close(&d);
    return device_done();
}
