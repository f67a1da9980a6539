/* The device of cuda_runtime.h.  One thread, no parallelism: blocks run one after another, threads of a block are fibers that
 * take turns where they wait for each other. */
#include "shim.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace {

enum { WARP = 32, MAX_THREADS = 1024, STACK = 1 << 16, GRAIN = 2, REDZONE = 1 << 12, SHARED_MAX = 48 << 10 };
enum kind { DEVICE, PINNED, SHARED };

/* What is known of two bytes: who came last, and whether anybody wrote there since they exist. */
struct cell {
    uint32_t launch, writer, writer_epoch, reader, reader_epoch, other_reader, other_epoch; /* threads from 1 */
    uint32_t is_written;
};

struct region {
    uintptr_t begin, end;
    kind what;
    int device;
    cell *cells;
    size_t n_cells;
    void *mapped;
    size_t n_mapped;
};

enum state { READY, AT_BARRIER, AT_EXCHANGE, DONE };

struct fiber {
    ucontext_t context;
    char *stack;
    state now;
    int line;
    unsigned mask;
    uint64_t value;
    int source;
    uint32_t epoch;
};

struct world {
    std::map<uintptr_t, region> regions; /* by their end */
    int n_reports = 0, n_events = 0, n_graphs = 0;
    char text[512] = "";
    shim_order order = SHIM_FORWARD;
    int n_devices = 1, driver = 13000, device = 0;
    unsigned ends = 0;
    std::map<std::string, std::pair<int, cudaError_t>> faults;
    cudaError_t broken = cudaSuccess, last = cudaSuccess;
    std::map<std::string, int> calls;
    /* the launch under way */
    bool in_kernel = false;
    uint32_t launch = 0;
    int launch_device = 0;
    fiber fibers[MAX_THREADS];
    unsigned n_threads = 0;
    int running = -1;
    uint64_t block = 0;
    ucontext_t scheduler;
    void (*call)(void *, void *) = nullptr;
    void *kernel = nullptr, *params = nullptr;
} the;

void report(const char *format, ...)
{
    va_list arguments;
    char text[sizeof the.text - 64];
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (the.running >= 0)
        snprintf(the.text, sizeof the.text, "%s (block %llu, thread %d)", text, (unsigned long long)the.block, the.running);
    else
        snprintf(the.text, sizeof the.text, "%s", text);
    if (++the.n_reports <= 3)
        fprintf(stderr, "shim: %s\n", the.text);
}

} // namespace

struct shim_stream {
    int device;
    std::deque<std::function<void()>> work;
    uint64_t n_begun, n_done;
    struct shim_graph *capture; /* what is begun goes there, if it is not NULL */
};
struct shim_event {
    shim_stream *stream;
    uint64_t n_begun;
    bool is_captured;
};
struct shim_graph {
    std::vector<std::function<void()>> work;
    bool is_invalid;
};

extern "C" {
dim3 threadIdx, blockIdx;
__attribute__((aligned(16))) float dc_terms[SHARED_MAX / sizeof(float)]; /* the kernels' shared memory */
}

namespace {

shim_stream default_streams[3]; /* 0 and 1 are the default stream, 2 the calling thread's */

shim_stream *stream_of(cudaStream_t handle)
{
    uintptr_t number = (uintptr_t)handle;
    if (number > 2)
        return handle;
    default_streams[number / 2].device = the.device;
    return &default_streams[number / 2];
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

region *region_of(uintptr_t address)
{
    auto at = the.regions.upper_bound(address);
    return at != the.regions.end() && at->second.begin <= address ? &at->second : nullptr;
}

region *nearest(uintptr_t address)
{
    for (auto &item : the.regions)
        if (address + REDZONE >= item.second.begin && address < item.second.end + REDZONE)
            return &item.second;
    return nullptr;
}

void region_add(void *memory, size_t n_bytes, kind what, void *mapped, size_t n_mapped)
{
    region r = {(uintptr_t)memory, (uintptr_t)memory + n_bytes, what, the.device, nullptr, n_bytes / GRAIN + 2, mapped, n_mapped};
    r.cells = (cell *)mmap(nullptr, r.n_cells * sizeof(cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                           -1, 0);
    if (r.cells == MAP_FAILED)
        abort();
    the.regions[r.end] = r;
}

void region_remove(void *memory, kind what)
{
    for (auto at = the.regions.begin(); at != the.regions.end(); ++at) {
        region &r = at->second;
        if (r.begin != (uintptr_t)memory || r.what != what)
            continue;
        munmap(r.cells, r.n_cells * sizeof(cell));
        if (r.mapped != nullptr)
            munmap(r.mapped, r.n_mapped);
        the.regions.erase(at);
        return;
    }
    report("memory is freed that nobody gave, or twice");
}

cudaError_t memory_new(void **out, size_t n_bytes, kind what)
{
    size_t n_mapped = n_bytes + 2 * REDZONE;
    char *mapped = (char *)mmap(nullptr, n_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    memset(mapped, 0xff, n_bytes < 1 << 20 ? n_mapped : (size_t)REDZONE); /* not a number, whatever reads it */
    region_add(mapped + REDZONE, n_bytes, what, mapped, n_mapped);
    *out = mapped + REDZONE;
    return cudaSuccess;
}

void mark_written(const region *r, uintptr_t address, size_t n_bytes)
{
    for (size_t at = (address - r->begin) / GRAIN; at * GRAIN < address - r->begin + n_bytes; at++)
        r->cells[at].is_written = 1;
}

bool is_ordered(uint32_t thread, uint32_t epoch)
{
    return (thread - 1) / the.n_threads == the.block && epoch < the.fibers[the.running].epoch;
}

void touch(cell *c, bool is_write, const region *r)
{
    const char *where = r->what == SHARED ? "shared" : "global";
    uint32_t me = (uint32_t)(the.block * the.n_threads + (uint64_t)the.running + 1), epoch = the.fibers[the.running].epoch;
    if (c->launch != the.launch) {
        uint32_t is_written = c->is_written;
        *c = cell{};
        c->launch = the.launch;
        c->is_written = is_written;
    }
    if (!is_write && !c->is_written && r->what != PINNED)
        report("%s memory is read that nobody wrote", where);
    if (c->writer != 0 && c->writer != me && !is_ordered(c->writer, c->writer_epoch))
        report("race in %s memory: thread %u wrote what this one %s", where, (c->writer - 1) % the.n_threads,
               is_write ? "writes" : "reads");
    if (is_write) {
        if ((c->reader != 0 && c->reader != me && !is_ordered(c->reader, c->reader_epoch)) ||
            (c->other_reader != 0 && c->other_reader != me && !is_ordered(c->other_reader, c->other_epoch)))
            report("race in %s memory: another thread read what this one writes", where);
        c->writer = me;
        c->writer_epoch = epoch;
        c->is_written = 1;
    } else if (c->reader != me) {
        c->other_reader = c->reader;
        c->other_epoch = c->reader_epoch;
        c->reader = me;
        c->reader_epoch = epoch;
    } else {
        c->reader_epoch = epoch;
    }
}

/* Every access of memory by the code of csrc/cuda/. */
void access(void *memory, size_t n_bytes, bool is_write)
{
    uintptr_t address = (uintptr_t)memory;
    region *r = region_of(address);
    if (!the.in_kernel) {
        if (r != nullptr && r->what == DEVICE)
            report("the host touches device memory");
        return;
    }
    const fiber &f = the.fibers[the.running];
    if (address - (uintptr_t)f.stack < STACK)
        return; /* its own */
    if (!is_write && (address - (uintptr_t)&threadIdx < sizeof threadIdx || address - (uintptr_t)&blockIdx < sizeof blockIdx))
        return;
    if (r == nullptr || address + n_bytes > r->end) {
        region *near = r != nullptr ? r : nearest(address);
        if (near != nullptr)
            report("%zu bytes at offset %lld of %zu are out of bounds", n_bytes, (long long)(address - near->begin),
                   (size_t)(near->end - near->begin));
        else
            report("the device touches memory that is not its own");
        return;
    }
    if (r->what == DEVICE && r->device != the.launch_device)
        report("device %d touches memory of device %d", the.launch_device, r->device);
    for (size_t at = (address - r->begin) / GRAIN; at * GRAIN < address - r->begin + n_bytes; at++)
        touch(&r->cells[at], is_write, r);
}

/* ---- one block ----------------------------------------------------------------------------------------------------- */

void fiber_main()
{
    the.call(the.kernel, the.params);
    the.fibers[the.running].now = DONE;
    swapcontext(&the.fibers[the.running].context, &the.scheduler);
}

void stop(state now, int line)
{
    fiber &f = the.fibers[the.running];
    f.now = now;
    f.line = line;
    swapcontext(&f.context, &the.scheduler);
}

/* Lets lanes that wait for the same lanes go on; false when nobody can. */
bool exchange(unsigned first)
{
    bool any = false;
    for (unsigned lane = 0; lane < WARP && first + lane < the.n_threads; lane++) {
        fiber &f = the.fibers[first + lane];
        bool all = f.now == AT_EXCHANGE && (f.mask >> lane & 1);
        for (unsigned other = 0; all && other < WARP; other++) {
            const fiber &o = the.fibers[first + other];
            if (f.mask >> other & 1)
                all = first + other < the.n_threads && o.now == AT_EXCHANGE && o.line == f.line && o.mask == f.mask;
        }
        if (!all)
            continue;
        uint64_t values[WARP];
        unsigned mask = f.mask;
        for (unsigned other = 0; other < WARP; other++)
            values[other] = mask >> other & 1 ? the.fibers[first + other].value : 0;
        for (unsigned other = 0; other < WARP; other++) {
            fiber &o = the.fibers[first + other];
            if (!(mask >> other & 1))
                continue;
            if (o.source >= 0 && !(mask >> o.source & 1))
                report("a shuffle reads lane %d, which its mask %08x leaves out", o.source, mask);
            if (o.source >= 0) {
                o.value = values[o.source];
            } else {
                unsigned votes = 0;
                for (unsigned i = 0; i < WARP; i++)
                    votes |= (unsigned)(values[i] != 0) << i;
                o.value = votes;
            }
            o.now = READY;
        }
        any = true;
    }
    return any;
}

/* Everybody waits: who may go on?  False: nobody, ever. */
bool release()
{
    bool any = false;
    unsigned n_waiting = 0, n_done = 0;
    int line = 0;
    bool same = true;
    for (unsigned first = 0; first < the.n_threads; first += WARP)
        any |= exchange(first);
    if (any)
        return true;
    for (unsigned i = 0; i < the.n_threads; i++) {
        const fiber &f = the.fibers[i];
        n_done += f.now == DONE;
        if (f.now != AT_BARRIER)
            continue;
        same = same && (n_waiting == 0 || f.line == line);
        line = f.line;
        n_waiting++;
    }
    if (n_waiting + n_done < the.n_threads) {
        report("lanes wait at a shuffle for lanes of their mask that do not come");
        return false;
    }
    if (n_done > 0 || !same) {
        report("divergent barrier: %u threads wait at one, %u have left%s", n_waiting, n_done, same ? "" : ", at two lines");
        return false;
    }
    for (unsigned i = 0; i < the.n_threads; i++) {
        the.fibers[i].now = READY;
        the.fibers[i].epoch++;
    }
    return true;
}

void run_block(uint64_t block, size_t shared_bytes)
{
    unsigned n = the.n_threads, turn[MAX_THREADS];
    region shared = {(uintptr_t)dc_terms, (uintptr_t)dc_terms + shared_bytes, SHARED, 0, nullptr, 0, nullptr, 0};
    std::vector<cell> cells(shared_bytes / GRAIN + 1);
    shared.cells = cells.data();
    the.regions[shared.end] = shared;
    memset(dc_terms, 0xff, shared_bytes);
    the.block = block;
    for (unsigned i = 0; i < n; i++) {
        fiber &f = the.fibers[i];
        if (f.stack == nullptr && (f.stack = (char *)malloc(STACK)) == nullptr)
            abort();
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack;
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = nullptr;
        makecontext(&f.context, fiber_main, 0);
        f.now = READY;
        f.epoch = 0;
        turn[i] = the.order == SHIM_BACKWARD ? n - 1 - i : the.order == SHIM_MIXED ? (i * 421u + 7) % n : i;
    }
    if (the.order == SHIM_MIXED && std::gcd(421u, n) != 1)
        std::iota(turn, turn + n, 0u);
    for (;;) {
        bool any = false, all_done = true;
        for (unsigned i = 0; i < n; i++) {
            fiber &f = the.fibers[turn[i]];
            if (f.now == READY) {
                any = true;
                the.running = (int)turn[i];
                threadIdx = dim3(turn[i], 0, 0);
                swapcontext(&the.scheduler, &f.context);
            }
            all_done = all_done && f.now == DONE;
        }
        the.running = -1;
        if (all_done || (!any && !release()))
            break;
    }
    the.regions.erase(shared.end);
}

void run_grid(const cudaLaunchConfig_t &config, int device)
{
    uint64_t n = config.gridDim.x;
    the.in_kernel = true;
    the.launch++;
    the.launch_device = device;
    the.n_threads = config.blockDim.x;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t block = the.order == SHIM_BACKWARD ? n - 1 - i : i;
        if (the.ends != 0 && i == the.ends && n > 2 * (uint64_t)the.ends)
            i = block = n - the.ends;
        blockIdx = dim3((unsigned)block, 0, 0);
        run_block(block, config.dynamicSmemBytes);
    }
    the.in_kernel = false;
}

/* ---- streams ------------------------------------------------------------------------------------------------------- */

std::deque<shim_stream> streams;

/* An error that the next cudaGetLastError finds. */
cudaError_t fail(cudaError_t status)
{
    the.last = status;
    return status;
}

cudaError_t fault(const char *function)
{
    auto at = the.faults.find(function);
    the.calls[function]++;
    if (at != the.faults.end() && at->second.first-- == 0) {
        cudaError_t status = at->second.second;
        the.faults.erase(at);
        return fail(status);
    }
    return the.broken;
}

shim_stream *capturing()
{
    for (shim_stream &stream : streams)
        if (stream.capture != nullptr)
            return &stream;
    return nullptr;
}

/* For a call that is forbidden while a stream is captured. */
cudaError_t forbid(shim_stream *stream)
{
    if (stream == nullptr || stream->capture == nullptr)
        return cudaSuccess;
    stream->capture->is_invalid = true;
    return fail(cudaErrorStreamCaptureUnsupported);
}

void flush(shim_stream *stream, uint64_t until)
{
    while (stream->n_done < until && !stream->work.empty()) {
        std::function<void()> work = std::move(stream->work.front());
        stream->work.pop_front();
        work();
        stream->n_done++;
    }
}

void begin(shim_stream *stream, std::function<void()> work)
{
    if (stream->capture != nullptr) {
        stream->capture->work.push_back(std::move(work));
        return;
    }
    stream->work.push_back(std::move(work));
    stream->n_begun++;
}


void flush_all()
{
    for (shim_stream &stream : default_streams)
        flush(&stream, UINT64_MAX);
    for (shim_stream &stream : streams)
        flush(&stream, UINT64_MAX);
}

} // namespace

/* ---- what the kernels call ----------------------------------------------------------------------------------------- */

extern "C" {

void shim_barrier(int line)
{
    stop(AT_BARRIER, line);
}

uint64_t shim_exchange(unsigned mask, uint64_t value, int source, int line)
{
    fiber &f = the.fibers[the.running];
    if (!(mask >> (the.running % WARP) & 1)) {
        report("lane %d shuffles with a mask %08x that leaves it out", the.running % WARP, mask);
        return value;
    }
    f.mask = mask;
    f.value = value;
    f.source = source;
    stop(AT_EXCHANGE, line);
    return the.fibers[the.running].value;
}

unsigned shim_ballot(unsigned mask, int predicate, int line)
{
    return (unsigned)shim_exchange(mask, predicate != 0, -1, line);
}

int shim_lane(void)
{
    return the.running % WARP;
}

/* ---- what -fsanitize=thread calls ---------------------------------------------------------------------------------- */

void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
#define ACCESS(n)                                                         \
    void __tsan_read##n(void *memory) { access(memory, n, false); }       \
    void __tsan_write##n(void *memory) { access(memory, n, true); }       \
    void __tsan_unaligned_read##n(void *memory) { access(memory, n, false); } \
    void __tsan_unaligned_write##n(void *memory) { access(memory, n, true); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *memory, size_t n_bytes) { access(memory, n_bytes, false); }
void __tsan_write_range(void *memory, size_t n_bytes) { access(memory, n_bytes, true); }
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}

/* ---- the runtime --------------------------------------------------------------------------------------------------- */

#define RETURN(status)                \
    do {                              \
        cudaError_t failed = (status); \
        if (failed != cudaSuccess)    \
            return failed;            \
    } while (0)
#define FAULT RETURN(fault(__func__))

const char *cudaGetErrorString(cudaError_t status)
{
    return status == cudaErrorMemoryAllocation ? "out of memory" : status == cudaErrorIllegalAddress ? "an illegal memory access"
                                                                                                     : "an error";
}

const char *cudaGetErrorName(cudaError_t status)
{
    return status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : status == cudaErrorIllegalAddress
                                                                                   ? "cudaErrorIllegalAddress"
                                                                                   : "cudaErrorSomething";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t last = the.broken != cudaSuccess ? the.broken : the.last; /* a lost device stays lost */
    the.last = cudaSuccess;
    return last;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    FAULT;
    *count = the.n_devices;
    return the.driver < CUDART_VERSION ? cudaErrorInsufficientDriver : the.n_devices < 1 ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = the.driver;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = the.device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    FAULT;
    if (device < 0 || device >= the.n_devices)
        return fail(cudaErrorInvalidDevice);
    the.device = device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int)
{
    FAULT;
    *value = 2; /* few, so that small tests have pieces of many rows */
    return cudaSuccess;
}

cudaError_t shim_malloc(void **out, size_t n_bytes)
{
    RETURN(fault("cudaMalloc"));
    RETURN(forbid(capturing()));
    return memory_new(out, n_bytes, DEVICE);
}

cudaError_t shim_malloc_host(void **out, size_t n_bytes)
{
    RETURN(fault("cudaMallocHost"));
    RETURN(forbid(capturing()));
    return memory_new(out, n_bytes, PINNED);
}

cudaError_t cudaFree(void *memory)
{
    if (memory == nullptr)
        return the.broken;
    RETURN(forbid(capturing()));
    flush_all(); /* as the real one waits */
    region_remove(memory, DEVICE);
    return the.broken;
}

cudaError_t cudaFreeHost(void *memory)
{
    if (memory != nullptr)
        region_remove(memory, PINNED);
    return the.broken;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *memory)
{
    FAULT;
    region *r = region_of((uintptr_t)memory);
    out->type = r == nullptr ? cudaMemoryTypeUnregistered : r->what == PINNED ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    out->device = r == nullptr ? 0 : r->device;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n_bytes, cudaMemcpyKind kind, cudaStream_t handle)
{
    FAULT;
    region *source = region_of((uintptr_t)from), *target = region_of((uintptr_t)to);
    region *device = kind == cudaMemcpyHostToDevice ? target : source;
    if (device == nullptr || device->what != DEVICE || (uintptr_t)(device == target ? to : from) + n_bytes > device->end) {
        report("a copy of %zu bytes leaves the device's memory", n_bytes);
        return fail(cudaErrorInvalidValue);
    }
    bool is_pinned = source != nullptr;
    if (!is_pinned)
        RETURN(forbid(stream_of(handle)));
    std::string now(is_pinned ? 0 : n_bytes, '\0'); /* pageable memory is read at once, pinned memory when its turn comes */
    if (!is_pinned)
        memcpy(&now[0], from, n_bytes);
    begin(stream_of(handle), [=] {
        memcpy(to, is_pinned ? (const char *)from : now.data(), n_bytes);
        region *r = region_of((uintptr_t)to);
        if (r != nullptr)
            mark_written(r, (uintptr_t)to, n_bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    FAULT;
    RETURN(forbid(stream_of(handle)));
    flush(stream_of(handle), UINT64_MAX);
    return the.broken;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    FAULT;
    *out = new shim_event{nullptr, 0, false};
    the.n_events++;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    the.n_events--;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    FAULT;
    shim_stream *stream = stream_of(handle);
    if (stream->device != the.device)
        return fail(cudaErrorInvalidResourceHandle);
    event->stream = stream;
    event->n_begun = stream->n_begun;
    event->is_captured = stream->capture != nullptr;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    FAULT;
    if (event->is_captured) {
        (void)forbid(event->stream);
        return fail(cudaErrorCapturedEvent);
    }
    if (event->stream != nullptr)
        flush(event->stream, event->n_begun);
    return the.broken;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t call, void *argument)
{
    FAULT;
    begin(stream_of(handle), [=] { call(argument); });
    return cudaSuccess;
}

/* ---- graphs -------------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode)
{
    FAULT;
    shim_stream *stream = stream_of(handle);
    if (stream == &default_streams[0] || stream->capture != nullptr)
        return fail(cudaErrorStreamCaptureUnsupported);
    stream->capture = new shim_graph{};
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *out)
{
    shim_stream *stream = stream_of(handle);
    shim_graph *graph = stream->capture;
    *out = nullptr;
    stream->capture = nullptr;
    if (graph == nullptr)
        return fail(cudaErrorInvalidValue);
    if (graph->is_invalid) {
        delete graph;
        return fail(cudaErrorStreamCaptureInvalidated);
    }
    *out = graph;
    the.n_graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long)
{
    FAULT;
    *out = new shim_graph(*graph);
    the.n_graphs++;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t handle)
{
    FAULT;
    for (const std::function<void()> &work : graph->work)
        begin(stream_of(handle), work);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    the.n_graphs--;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    return cudaGraphDestroy(graph);
}

cudaError_t shim_launch(const cudaLaunchConfig_t *config, void (*call)(void *, void *), void *kernel, const void *params,
                        size_t n_bytes)
{
    RETURN(fault("cudaLaunchKernelEx"));
    shim_stream *stream = stream_of(config->stream);
    cudaLaunchConfig_t copy = *config;
    std::string bytes((const char *)params, n_bytes);
    if (stream->capture != nullptr && stream->capture->is_invalid)
        return fail(cudaErrorStreamCaptureInvalidated);
    if (stream->device != the.device)
        return fail(cudaErrorInvalidResourceHandle);
    if (config->gridDim.x < 1 || config->gridDim.x > INT32_MAX || config->blockDim.x < 1 || config->blockDim.x > MAX_THREADS ||
        config->dynamicSmemBytes > SHARED_MAX) {
        report("a launch of %u blocks of %u threads with %zu bytes of shared memory", config->gridDim.x, config->blockDim.x,
               config->dynamicSmemBytes);
        return fail(cudaErrorInvalidConfiguration);
    }
    begin(stream, [=]() mutable {
        if (the.broken == cudaSuccess)
            the.broken = fault("execution");
        if (the.broken != cudaSuccess)
            return;
        alignas(16) char own[512];
        memcpy(own, bytes.data(), bytes.size());
        the.call = call;
        the.kernel = kernel;
        the.params = own;
        run_grid(copy, stream->device);
    });
    return cudaSuccess;
}

} // extern "C"

/* ---- what tests call ----------------------------------------------------------------------------------------------- */

int shim_is_real()
{
    return 0;
}

int shim_has_room(long long)
{
    return 1;
}

cudaError_t shim_new(void **out, size_t n_bytes)
{
    return shim_malloc(out, n_bytes);
}

int shim_reports()
{
    return the.n_reports;
}

const char *shim_last_report()
{
    return the.text;
}

void shim_reset()
{
    the.n_reports = 0;
    the.text[0] = '\0';
    the.faults.clear();
    the.calls.clear();
    the.broken = the.last = cudaSuccess;
    for (shim_stream &stream : default_streams)
        stream.work.clear();
    for (shim_stream &stream : streams)
        stream.work.clear();
}

void shim_set_order(shim_order order)
{
    the.order = order;
}

void shim_set_devices(int n_devices, int driver_version)
{
    the.n_devices = n_devices;
    the.driver = driver_version;
}

cudaStream_t shim_stream_new(int device)
{
    streams.push_back(shim_stream{device, {}, 0, 0, nullptr});
    return &streams.back();
}

void shim_enqueue(cudaStream_t stream, std::function<void()> work)
{
    begin(stream_of(stream), std::move(work));
}

void shim_fail(const char *function, int after, cudaError_t status)
{
    the.faults[function] = {after, status};
}

cudaError_t shim_fault(const char *function)
{
    return fault(function);
}

void shim_report(const char *text)
{
    report("%s", text);
}

bool shim_is_device(const void *memory, size_t n_bytes)
{
    const region *r = region_of((uintptr_t)memory);
    return r != nullptr && r->what == DEVICE && (uintptr_t)memory + n_bytes <= r->end;
}

bool shim_is_written(const void *memory, size_t n_bytes)
{
    const region *r = region_of((uintptr_t)memory);
    if (!shim_is_device(memory, n_bytes))
        return false;
    for (size_t at = ((uintptr_t)memory - r->begin) / GRAIN; at * GRAIN < (uintptr_t)memory - r->begin + n_bytes; at++)
        if (!r->cells[at].is_written)
            return false;
    return true;
}

void shim_write(void *memory, size_t n_bytes)
{
    mark_written(region_of((uintptr_t)memory), (uintptr_t)memory, n_bytes);
}

void shim_set_ends(unsigned count)
{
    the.ends = count;
}

void shim_memory(void *memory, size_t n_bytes, int device)
{
    region_add(memory, n_bytes, DEVICE, nullptr, 0);
    region *r = region_of((uintptr_t)memory);
    r->device = device;
    mark_written(r, r->begin, n_bytes);
}

void shim_forget(void *memory)
{
    region_remove(memory, DEVICE);
}

int64_t shim_live()
{
    return (int64_t)the.regions.size() + the.n_events + the.n_graphs;
}

int shim_calls(const char *function)
{
    return the.calls[function];
}
