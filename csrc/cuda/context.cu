/* The CUDA backend's life, its memory, and pieces on their way to the device. */
#include "cuda/context.h"

#include <stddef.h>
#include <string.h>

#include "cuda/dit_context.h"

#include "base/memory.h"

static const int64_t PIECE_ROWS_MIN = 4, PIECE_ROWS_MAX = 64, BLOCKS_A_MULTIPROCESSOR = 4;

/* ---- failures ------------------------------------------------------------------------------------------------------ */

bool dc_cuda_note(dc_cuda *cuda, cudaError_t status, const char *what)
{
    if (status != cudaSuccess && cuda->failure == cudaSuccess) {
        cuda->failure = status;
        cuda->failed = what;
    }
    if (status != cudaSuccess)
        (void)cudaGetLastError(); /* told here: the next caller of the runtime is not to find it */
    return status == cudaSuccess;
}

static dc_status tell(dc_error *err, cudaError_t failure, const char *what)
{
    dc_status status = failure == cudaErrorMemoryAllocation ? DC_ERR_NOMEM : DC_ERR_DEVICE;
    (void)cudaGetLastError();
    return dc_error_set(err, status, "CUDA failed in %s or before it: %s (%s)", what, cudaGetErrorString(failure),
                        cudaGetErrorName(failure));
}

static dc_status check(const dc_backend *self, dc_error *err)
{
    const dc_cuda *cuda = dc_cuda_of(self);
    return cuda->failure == cudaSuccess ? DC_OK : tell(err, cuda->failure, cuda->failed);
}

dc_status dc_cuda_device_count(int *out, dc_error *err)
{
    int driver = 0;
    *out = 0;
    cudaError_t status = cudaGetDeviceCount(out);
    if (status == cudaSuccess && *out > 0)
        return DC_OK;
    *out = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return dc_error_set(err, DC_ERR_DEVICE, "there is no NVIDIA driver");
    if (status == cudaErrorInsufficientDriver)
        return dc_error_set(err, DC_ERR_DEVICE, "the NVIDIA driver is for CUDA %d.%d, this build needs %d.%d", driver / 1000,
                            driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (status == cudaSuccess || status == cudaErrorNoDevice)
        return dc_error_set(err, DC_ERR_DEVICE, "the NVIDIA driver finds no device");
    return tell(err, status, "counting devices");
}

int dc_cuda_enter(dc_cuda *cuda)
{
    int before = cuda->device;
    dc_cuda_note(cuda, cudaGetDevice(&before), "reading the current device");
    if (before != cuda->device)
        dc_cuda_note(cuda, cudaSetDevice(cuda->device), "choosing the device");
    return before;
}

void dc_cuda_leave(int before)
{
    int now = before;
    if (cudaGetDevice(&now) == cudaSuccess && now != before)
        (void)cudaSetDevice(before); /* it was the thread's own: nothing to report */
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

static dc_status memory_new(const dc_backend *self, void **out, int64_t n_bytes, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    *out = NULL;
    cudaError_t status = cudaMalloc(out, n_bytes < 1 ? 1 : (size_t)n_bytes);
    dc_cuda_leave(before);
    return status == cudaSuccess ? DC_OK : tell(err, status, "allocating device memory");
}

static void memory_free(const dc_backend *self, void *memory)
{
    int before = dc_cuda_enter(dc_cuda_of(self));
    (void)cudaFree(memory); /* an earlier failure comes back here too; it was told */
    dc_cuda_leave(before);
}

static dc_status upload(const dc_backend *self, void *to, const void *from, int64_t n_bytes, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    cudaPointerAttributes attributes;
    int before = dc_cuda_enter(cuda);
    cudaError_t status = cudaMemcpyAsync(to, from, (size_t)n_bytes, cudaMemcpyHostToDevice, cuda->stream);
    if (status == cudaSuccess)
        status = cudaPointerGetAttributes(&attributes, from);
    if (status == cudaSuccess && attributes.type != cudaMemoryTypeUnregistered) /* pinned: read only when its turn comes */
        status = cudaStreamSynchronize(cuda->stream);
    dc_cuda_leave(before);
    return status == cudaSuccess ? DC_OK : tell(err, status, "copying to the device");
}

static void stage_clear(dc_stage *stage)
{
    (void)cudaFreeHost(stage->host);
    (void)cudaFree(stage->device);
    stage->host = stage->device = NULL;
}

static cudaError_t stage_fill(dc_stage *stage, int64_t capacity)
{
    size_t n_bytes = (size_t)capacity * sizeof(dc_piece);
    cudaError_t status = cudaMallocHost((void **)&stage->host, n_bytes);
    return status == cudaSuccess ? cudaMalloc((void **)&stage->device, n_bytes) : status;
}

static dc_status reserve(const dc_backend *self, int64_t max_rows, int64_t n_elem, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int64_t n_sums, n_bytes;
    if (!dc_size_mul(&n_sums, max_rows, dc_blocks(n_elem)) || !dc_size_mul(&n_bytes, n_sums, (int64_t)sizeof(double)))
        return dc_error_set(err, DC_ERR_NOMEM, "%lld rows of %lld elements are too many for memory", (long long)max_rows,
                            (long long)n_elem);
    if (max_rows <= cuda->capacity && n_sums <= cuda->n_sums)
        return DC_OK;
    int before = dc_cuda_enter(cuda);
    cudaError_t status = cudaStreamSynchronize(cuda->stream);
    if (status == cudaSuccess && max_rows > cuda->capacity) {
        cuda->capacity = 0;
        for (int i = 0; status == cudaSuccess && i < DC_STAGES; i++) {
            stage_clear(&cuda->stages[i]);
            status = stage_fill(&cuda->stages[i], max_rows);
        }
        if (status == cudaSuccess)
            cuda->capacity = max_rows;
    }
    if (status == cudaSuccess && n_sums > cuda->n_sums) {
        (void)cudaFree(cuda->sums);
        cuda->sums = NULL;
        cuda->n_sums = 0;
        status = cudaMalloc((void **)&cuda->sums, (size_t)n_bytes);
        if (status == cudaSuccess)
            cuda->n_sums = n_sums;
    }
    dc_cuda_leave(before);
    return status == cudaSuccess ? DC_OK : tell(err, status, "allocating scratch memory");
}

/* ---- results ------------------------------------------------------------------------------------------------------- */

static void results_free(const dc_backend *self, dc_results *results)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    if (results->errors != NULL)
        (void)cudaStreamSynchronize(cuda->stream);
    if (results->mark != NULL)
        (void)cudaEventDestroy((cudaEvent_t)results->mark);
    (void)cudaFreeHost(results->errors);
    dc_cuda_leave(before);
    results->errors = NULL;
    results->mark = NULL;
}

static dc_status results_new(const dc_backend *self, dc_results *out, int64_t max_rows, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    cudaEvent_t mark = NULL;
    out->errors = NULL;
    out->mark = NULL;
    int before = dc_cuda_enter(cuda);
    cudaError_t made = cudaMallocHost((void **)&out->errors, (size_t)max_rows * sizeof(double));
    if (made == cudaSuccess)
        made = cudaEventCreateWithFlags(&mark, cudaEventDisableTiming);
    out->mark = mark;
    dc_cuda_leave(before);
    if (made == cudaSuccess)
        return DC_OK;
    results_free(self, out);
    return tell(err, made, "allocating pinned memory");
}

static void mark(const dc_backend *self, dc_results *results)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    dc_cuda_note(cuda, cudaEventRecord((cudaEvent_t)results->mark, cuda->stream), "marking the end of a batch");
    dc_cuda_leave(before);
}

static dc_status wait(const dc_backend *self, const dc_results *results, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int before = dc_cuda_enter(cuda);
    dc_cuda_note(cuda, cudaEventSynchronize((cudaEvent_t)results->mark), "a batch");
    dc_cuda_leave(before);
    return check(self, err);
}

/* ---- pieces -------------------------------------------------------------------------------------------------------- */

/* Rows of a piece at most: as many as still leave every multiprocessor some blocks of threads to work on.  Noise is made
 * once a piece, so more rows are better; a multiple of four, which eps_error does at a time. */
static int64_t rows_of_piece(const dc_cuda *cuda, int64_t n_rows, int64_t n_elem)
{
    int64_t wanted = cuda->n_multiprocessors * BLOCKS_A_MULTIPROCESSOR;
    int64_t rows = n_rows * dc_blocks(n_elem) / wanted / PIECE_ROWS_MIN * PIECE_ROWS_MIN;
    return rows < PIECE_ROWS_MIN ? PIECE_ROWS_MIN : rows > PIECE_ROWS_MAX ? PIECE_ROWS_MAX : rows;
}

/* pieces (as many as there are rows); returns how many there are. */
static int64_t pieces_cut(const dc_cuda *cuda, dc_piece *pieces, const dc_group *groups, int64_t n_groups, int64_t n_rows,
                          int64_t n_elem, bool for_target)
{
    int64_t rows_max = rows_of_piece(cuda, n_rows, n_elem), n_pieces = 0, first_row = 0;
    for (int64_t g = 0; g < n_groups; g++) {
        const dc_group *group = &groups[g];
        for (int64_t row = 0; row < group->n_rows; row += rows_max) {
            dc_piece *piece = &pieces[n_pieces++];
            piece->x_start = group->x_start;
            piece->eps = group->eps;
            piece->key = group->key;
            piece->a = for_target ? group->p : group->alpha;
            piece->b = (for_target ? group->q : group->sigma) * group->eps_sign;
            piece->first_row = first_row + row;
            piece->n_rows = group->n_rows - row < rows_max ? group->n_rows - row : rows_max;
        }
        first_row += group->n_rows;
    }
    return n_pieces;
}

static int64_t rows_of_groups(const dc_group *groups, int64_t n_groups)
{
    int64_t n_rows = 0;
    for (int64_t g = 0; g < n_groups; g++)
        n_rows += groups[g].n_rows;
    return n_rows;
}

static bool send(dc_cuda *cuda, const dc_stage *stage, int64_t n_pieces)
{
    return dc_cuda_note(cuda, cudaMemcpyAsync(stage->device, stage->host, (size_t)n_pieces * sizeof(dc_piece),
                                              cudaMemcpyHostToDevice, cuda->stream), "sending a batch");
}

int64_t dc_pieces_send(dc_cuda *cuda, const dc_piece **device, const dc_group *groups, int64_t n_groups, int64_t n_elem,
                       bool for_target)
{
    dc_stage *stage = cuda->recording > 0 ? &cuda->recorded[cuda->recording - 1][for_target] : &cuda->stages[cuda->next_stage];
    int64_t n_rows = rows_of_groups(groups, n_groups);
    *device = stage->device;
    if (n_rows == 0 || cuda->failure != cudaSuccess)
        return 0;
    if (n_rows > cuda->capacity || n_rows * dc_blocks(n_elem) > cuda->n_sums) {
        dc_cuda_note(cuda, cudaErrorInvalidValue, "a batch larger than what was reserved");
        return 0;
    }
    if (cuda->recording > 0) { /* refill writes them; no event, for the loop waits for the whole step */
        cuda->n_recorded[cuda->recording - 1] = n_rows;
        return send(cuda, stage, n_rows) ? n_rows : 0;
    }
    if (!dc_cuda_note(cuda, cudaEventSynchronize(stage->copied), "an earlier batch")) /* long passed, as a rule */
        return 0;
    int64_t n_pieces = pieces_cut(cuda, stage->host, groups, n_groups, n_rows, n_elem, for_target);
    if (!send(cuda, stage, n_pieces) || !dc_cuda_note(cuda, cudaEventRecord(stage->copied, cuda->stream), "sending a batch"))
        return 0;
    cuda->next_stage = (cuda->next_stage + 1) % DC_STAGES;
    return n_pieces;
}

/* ---- recorded steps ------------------------------------------------------------------------------------------------ */

static dc_status record(const dc_backend *self, int graph, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    cudaError_t status = cuda->failure;
    int before = dc_cuda_enter(cuda);
    for (int i = 0; status == cudaSuccess && i < 2; i++)
        if (cuda->recorded[graph][i].host == NULL)
            status = stage_fill(&cuda->recorded[graph][i], cuda->capacity);
    for (int i = 0; status != cudaSuccess && i < 2; i++)
        stage_clear(&cuda->recorded[graph][i]);
    dc_cuda_leave(before);
    if (status != cudaSuccess)
        return tell(err, status, "allocating memory for a graph");
    cuda->recording = graph + 1;
    return DC_OK;
}

static dc_status recorded(const dc_backend *self, dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    dc_status status = check(self, err);
    cuda->recording = 0;
    cuda->failure = cudaSuccess;
    return status;
}

static void refill(const dc_backend *self, int graph, const dc_group *groups, int64_t n_groups, int64_t n_elem)
{
    dc_cuda *cuda = dc_cuda_of(self);
    int64_t n_rows = rows_of_groups(groups, n_groups), n_all = cuda->n_recorded[graph];
    if (n_rows != n_all) {
        dc_cuda_note(cuda, cudaErrorInvalidValue, "a graph of another number of rows");
        return;
    }
    for (int i = 0; i < 2; i++) {
        dc_piece *pieces = cuda->recorded[graph][i].host;
        int64_t n_pieces = pieces_cut(cuda, pieces, groups, n_groups, n_rows, n_elem, i == 1);
        memset(pieces + n_pieces, 0, (size_t)(n_all - n_pieces) * sizeof *pieces);
    }
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

static const dc_device cuda_device = {memory_new, memory_free, upload, reserve, results_new, results_free,
                                      mark, wait, check, record, recorded, refill};

static cudaError_t open_device(dc_cuda *cuda)
{
    int before = dc_cuda_enter(cuda);
    cudaError_t status = cudaDeviceGetAttribute(&cuda->n_multiprocessors, cudaDevAttrMultiProcessorCount, cuda->device);
    for (int i = 0; status == cudaSuccess && i < DC_STAGES; i++)
        status = cudaEventCreateWithFlags(&cuda->stages[i].copied, cudaEventDisableTiming);
    dc_cuda_leave(before);
    return cuda->failure != cudaSuccess ? cuda->failure : status;
}

dc_status dc_cuda_open_products(dc_backend *backend, const char *path, dc_error *err)
{
    dc_lt functions;
    dc_status status = dc_lt_load(&functions, path, err);
    return status == DC_OK ? dc_cuda_dit_open(backend, &functions, err) : status;
}

dc_status dc_cuda_backend_new(dc_backend **out, int device, uint64_t stream, dc_error *err)
{
    void *memory = NULL;
    dc_backend *backend = NULL;
    dc_cuda *cuda = NULL;
    cudaError_t opened;
    int n_devices;
    *out = NULL;
    dc_status status = dc_cuda_device_count(&n_devices, err);
    if (status != DC_OK)
        return status;
    if (device < 0 || device >= n_devices)
        return dc_error_set(err, DC_ERR_DEVICE, "device is cuda:%d, there are %d", device, n_devices);
    if ((status = dc_alloc(&memory, 1, sizeof *backend, "the backend", err)) != DC_OK)
        return status;
    backend = (dc_backend *)memory;
    if ((status = dc_alloc(&memory, 1, sizeof *cuda, "the backend", err)) != DC_OK)
        goto done;
    backend->context = cuda = (dc_cuda *)memory;
    cuda->device = device;
    cuda->stream = (cudaStream_t)(uintptr_t)stream;
    if ((opened = open_device(cuda)) != cudaSuccess) {
        status = tell(err, opened, "opening the device");
        goto done;
    }
    backend->name = "cuda";
    backend->noise = dc_noise_cuda;
    backend->noising = dc_noising_cuda;
    backend->eps_error = dc_eps_error_cuda;
    backend->n_threads = 1;
    backend->device = &cuda_device;
    backend->device_index = device;
    backend->stream = stream;
    *out = backend;
    backend = NULL;
done:
    dc_cuda_backend_free(backend);
    return status;
}

void dc_cuda_backend_free(dc_backend *backend)
{
    if (backend == NULL)
        return;
    dc_cuda *cuda = dc_cuda_of(backend);
    if (cuda != NULL) {
        int before = dc_cuda_enter(cuda);
        (void)cudaStreamSynchronize(cuda->stream);
        dc_cuda_dit_close(cuda);
        for (int i = 0; i < DC_STAGES; i++) {
            stage_clear(&cuda->stages[i]);
            if (cuda->stages[i].copied != NULL)
                (void)cudaEventDestroy(cuda->stages[i].copied);
        }
        for (int graph = 0; graph < DC_GRAPHS; graph++)
            for (int i = 0; i < 2; i++)
                stage_clear(&cuda->recorded[graph][i]);
        (void)cudaFree(cuda->sums);
        dc_cuda_leave(before);
    }
    dc_free(cuda);
    dc_free(backend);
}
