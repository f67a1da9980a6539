/* A device made of host memory and one thread: the part of the CUDA runtime and of its C++ that csrc/cuda/ uses, so that a
 * host compiler builds those very sources and every run of them is the same.  shim.cc has the device.
 *
 * What a host and a device do at the same time, happens here as late as it may: a stream only remembers what it is asked, and
 * does it when somebody waits for it.  So a number that is read too early is not there, and memory that is written again too
 * early is wrong.
 *
 * The sources are compiled with -fsanitize=thread, whose calls before every access of memory are answered by shim.cc, not by
 * the sanitizer's own library.  It reports
 *   - accesses out of bounds, of host memory, of another device's memory, and of device memory by the host;
 *   - reads of memory that nobody wrote, shared memory's anew in every block;
 *   - two threads at one place, one of them writing, with no barrier between them (or in two blocks of one launch);
 *   - barriers that not every thread of the block reaches, shuffles whose mask is not who is there;
 *   - grids and blocks that no device takes.
 * A stream that is captured remembers for the graph alone, and while one is, waiting for it, allocating and freeing are errors
 * that end the capture, as those of the real runtime are.
 * Misaligned vectors, overflowing arithmetic and indices out of an array's range are -fsanitize=undefined's. */
#ifndef DC_SHIM_CUDA_RUNTIME_H
#define DC_SHIM_CUDA_RUNTIME_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

/* ---- the language -------------------------------------------------------------------------------------------------- */

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __shared__ /* only as extern: shim.cc defines it */
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

extern "C" dim3 threadIdx, blockIdx; /* of the thread that runs now */

/* Waits for the block, or for the lanes of `mask` with a value for them; gives the value of lane `source`. */
extern "C" void shim_barrier(int line);
extern "C" uint64_t shim_exchange(unsigned mask, uint64_t value, int source, int line);
extern "C" unsigned shim_ballot(unsigned mask, int predicate, int line);
extern "C" int shim_lane(void);

#define __syncthreads() shim_barrier(__LINE__)
#define __ballot_sync(mask, predicate) shim_ballot(mask, predicate, __LINE__)

template <typename T> static inline T shim_shuffle(unsigned mask, T value, int source, int line)
{
    uint64_t bits = 0;
    static_assert(sizeof(T) <= sizeof bits, "a shuffle takes 4 or 8 bytes");
    memcpy(&bits, &value, sizeof value);
    bits = shim_exchange(mask, bits, source, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

#define __shfl_sync(mask, value, lane) shim_shuffle(mask, value, (lane) & 31, __LINE__)
#define __shfl_xor_sync(mask, value, lanes) shim_shuffle(mask, value, shim_lane() ^ (lanes), __LINE__)
#define __shfl_down_sync(mask, value, delta) \
    shim_shuffle(mask, value, shim_lane() + (int)(delta) < 32 ? shim_lane() + (int)(delta) : shim_lane(), __LINE__)

template <typename T> static inline T __ldcs(const T *data)
{
    return *data;
}

template <typename T> static inline T __ldg(const T *data)
{
    return *data;
}

static inline void sincospi(double x, double *sine, double *cosine)
{
    double turned = 3.14159265358979323846 * (x - 2.0 * rint(x / 2.0)); /* whole turns are taken off exactly */
    *sine = sin(turned), *cosine = cos(turned);
}

/* ---- the runtime --------------------------------------------------------------------------------------------------- */

#define CUDART_VERSION 13000

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorIllegalAddress = 700,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorCapturedEvent = 907,
    cudaErrorUnknown = 999,
} cudaError_t;
typedef enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 } cudaMemcpyKind;
typedef enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2 } cudaMemoryType;
typedef enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 } cudaDeviceAttr;
typedef enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal = 0 } cudaStreamCaptureMode;
enum { cudaEventDisableTiming = 2 };

typedef struct shim_stream *cudaStream_t;
typedef struct shim_event *cudaEvent_t;
typedef struct shim_graph *cudaGraph_t, *cudaGraphExec_t;
typedef void (*cudaHostFn_t)(void *argument);
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

extern "C" {
const char *cudaGetErrorString(cudaError_t status);
const char *cudaGetErrorName(cudaError_t status);
cudaError_t cudaGetLastError(void);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFree(void *memory);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n_bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void *argument);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph);
cudaError_t shim_malloc(void **out, size_t n_bytes);
cudaError_t shim_malloc_host(void **out, size_t n_bytes);
cudaError_t shim_launch(const cudaLaunchConfig_t *config, void (*call)(void *kernel, void *params), void *kernel,
                        const void *params, size_t n_bytes);
}

template <typename T> static inline cudaError_t cudaMalloc(T **out, size_t n_bytes)
{
    return shim_malloc((void **)out, n_bytes);
}

template <typename T> static inline cudaError_t cudaMallocHost(T **out, size_t n_bytes)
{
    return shim_malloc_host((void **)out, n_bytes);
}

/* Not watched: params are the launch's, on the host. */
template <typename Params> __attribute__((no_sanitize("thread"))) static void shim_call(void *kernel, void *params)
{
    ((void (*)(Params))kernel)(*(Params *)params);
}

template <typename Params>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Params), Params params)
{
    return shim_launch(config, shim_call<Params>, (void *)kernel, &params, sizeof params);
}

#endif
