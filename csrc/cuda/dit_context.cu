/* The life of what the native DiT needs on a device: cuBLASLt, scratch memory, numbers on their way. */
#include "cuda/dit_context.h"

#include <string.h>

#include "base/memory.h"

/* What NVIDIA's frameworks give it on Hopper; older devices want less. */
static const size_t WORKSPACE_BYTES = (size_t)32 << 20;

static void run_inline(const dc_backend *self, dc_task task, void *argument, int64_t n_tasks)
{
    (void)self;
    for (int64_t index = 0; index < n_tasks; index++)
        task(argument, index);
}

dc_status dc_cuda_dit_open(dc_backend *backend, const dc_lt *functions, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(backend);
    void *memory;
    if (cuda->dit != NULL)
        return DC_OK;
    dc_status status = dc_alloc(&memory, 1, sizeof *cuda->dit, "the backend", err);
    if (status != DC_OK)
        return status;
    dc_cuda_dit *dit = (dc_cuda_dit *)memory;
    cuda->dit = dit;
    dit->lt = *functions;
    int before = dc_cuda_enter(cuda);
    int made = dit->lt.create(&dit->handle);
    cudaError_t failed = made == DC_LT_SUCCESS ? cudaMalloc(&dit->workspace, WORKSPACE_BYTES) : cudaSuccess;
    for (int i = 0; failed == cudaSuccess && i < DC_SENDS && made == DC_LT_SUCCESS; i++)
        failed = cudaEventCreateWithFlags(&dit->sends[i].copied, cudaEventDisableTiming);
    dc_cuda_leave(before);
    if (made == DC_LT_SUCCESS && failed == cudaSuccess) {
        backend->dit = &dc_cuda_dit_operations;
        backend->parallel = run_inline;
        return DC_OK;
    }
    before = dc_cuda_enter(cuda);
    dc_cuda_dit_close(cuda);
    dc_cuda_leave(before);
    (void)cudaGetLastError(); /* told here: the next caller of the runtime is not to find it */
    if (made != DC_LT_SUCCESS)
        return dc_error_set(err, DC_ERR_DEVICE, "cuBLASLt does not start: its status is %d", made);
    return dc_error_set(err, failed == cudaErrorMemoryAllocation ? DC_ERR_NOMEM : DC_ERR_DEVICE,
                        "CUDA failed in opening cuBLASLt: %s", cudaGetErrorString(failed));
}

void dc_plan_clear(const dc_lt *lt, dc_plan *plan)
{
    void *const layouts[] = {plan->weight, plan->x, plan->y};
    for (void *layout : layouts)
        if (layout != NULL)
            (void)lt->layout_destroy(layout);
    if (plan->desc != NULL)
        (void)lt->desc_destroy(plan->desc);
    memset(plan, 0, sizeof *plan);
}

void dc_cuda_dit_close(dc_cuda *cuda)
{
    dc_cuda_dit *dit = cuda->dit;
    if (dit == NULL)
        return;
    for (dc_plan &plan : dit->plans)
        dc_plan_clear(&dit->lt, &plan);
    for (dc_sending &sending : dit->sends) {
        (void)cudaFreeHost(sending.host);
        if (sending.copied != NULL)
            (void)cudaEventDestroy(sending.copied);
    }
    (void)cudaFree(dit->scratch);
    (void)cudaFree(dit->workspace);
    if (dit->handle != NULL)
        (void)dit->lt.destroy(dit->handle);
    dc_free(dit);
    cuda->dit = NULL;
}

dc_status dc_reserve_cuda(const dc_backend *self, int64_t scratch_bytes, int64_t send_bytes, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    dc_cuda_dit *dit = cuda->dit;
    if (scratch_bytes <= dit->scratch_bytes && send_bytes <= dit->send_bytes)
        return DC_OK;
    int before = dc_cuda_enter(cuda);
    cudaError_t status = cudaStreamSynchronize(cuda->stream);
    if (status == cudaSuccess && scratch_bytes > dit->scratch_bytes) {
        (void)cudaFree(dit->scratch);
        dit->scratch = NULL;
        dit->scratch_bytes = 0;
        status = cudaMalloc(&dit->scratch, (size_t)scratch_bytes);
        if (status == cudaSuccess)
            dit->scratch_bytes = scratch_bytes;
    }
    if (status == cudaSuccess && send_bytes > dit->send_bytes) {
        dit->send_bytes = 0;
        for (int i = 0; status == cudaSuccess && i < DC_SENDS; i++) {
            (void)cudaFreeHost(dit->sends[i].host);
            dit->sends[i].host = NULL;
            status = cudaMallocHost(&dit->sends[i].host, (size_t)send_bytes);
        }
        if (status == cudaSuccess)
            dit->send_bytes = send_bytes;
    }
    dc_cuda_leave(before);
    if (status == cudaSuccess)
        return DC_OK;
    (void)cudaGetLastError();
    return dc_error_set(err, status == cudaErrorMemoryAllocation ? DC_ERR_NOMEM : DC_ERR_DEVICE,
                        "CUDA failed in allocating the DiT's scratch memory: %s", cudaGetErrorString(status));
}

void dc_send_cuda(const dc_backend *self, void *to, const void *from, int64_t n_bytes)
{
    dc_cuda *cuda = dc_cuda_of(self);
    dc_cuda_dit *dit = cuda->dit;
    dc_sending *sending = &dit->sends[dit->next_send];
    if (cuda->failure != cudaSuccess)
        return;
    if (n_bytes > dit->send_bytes) {
        dc_cuda_note(cuda, cudaErrorInvalidValue, "sending more numbers than were reserved");
        return;
    }
    int before = dc_cuda_enter(cuda);
    if (dc_cuda_note(cuda, cudaEventSynchronize(sending->copied), "an earlier batch")) { /* long passed, as a rule */
        memcpy(sending->host, from, (size_t)n_bytes);
        if (dc_cuda_note(cuda, cudaMemcpyAsync(to, sending->host, (size_t)n_bytes, cudaMemcpyHostToDevice, cuda->stream),
                         "sending a batch's numbers") &&
            dc_cuda_note(cuda, cudaEventRecord(sending->copied, cuda->stream), "sending a batch's numbers"))
            dit->next_send = (dit->next_send + 1) % DC_SENDS;
    }
    dc_cuda_leave(before);
}
