/* shim/shim.h on a real device: the same tests, run by the real runtime (`make -C tests/cuda real`, then compute-sanitizer if you
 * like).  What only the shim can do, make things fail and count calls, is refused, and tests ask shim_is_real first.
 *
 * DIFFCLS_SHORT=1 leaves out what is past 2^31 elements: for tools that watch every access. */
#include <cstdio>
#include <cstdlib>

#include "shim/shim.h"

int shim_is_real()
{
    return 1;
}

int shim_has_room(long long n_bytes)
{
    size_t n_free = 0, n_all = 0;
    const char *is_short = getenv("DIFFCLS_SHORT");
    bool fits = cudaMemGetInfo(&n_free, &n_all) == cudaSuccess && (long long)n_free > n_bytes + n_bytes / 4;
    return fits && (is_short == nullptr || is_short[0] != '1');
}

/* Managed: the host may read it when nothing runs.  Every byte 0xff, so that what nobody wrote is no number. */
cudaError_t shim_new(void **out, size_t n_bytes)
{
    cudaError_t status = cudaMallocManaged(out, n_bytes < 1 ? 1 : n_bytes, cudaMemAttachGlobal);
    if (status == cudaSuccess)
        status = cudaMemset(*out, 0xff, n_bytes);
    return status == cudaSuccess ? cudaDeviceSynchronize() : status;
}

int shim_reports()
{
    return 0;
}

const char *shim_last_report()
{
    return "";
}

void shim_reset() {}
void shim_set_order(shim_order) {}
void shim_set_ends(unsigned) {}

cudaStream_t shim_stream_new(int device)
{
    cudaStream_t stream = nullptr;
    if (cudaSetDevice(device) != cudaSuccess || cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) {
        fprintf(stderr, "no stream on device %d: %s\n", device, cudaGetErrorString(cudaGetLastError()));
        exit(1);
    }
    return stream;
}

int64_t shim_live()
{
    return 0;
}

static void refused(const char *what)
{
    fprintf(stderr, "%s can not be asked of a real device\n", what);
    exit(1);
}

void shim_set_devices(int, int)
{
    refused("shim_set_devices");
}

void shim_fail(const char *, int, cudaError_t)
{
    refused("shim_fail");
}

void shim_memory(void *, size_t, int)
{
    refused("shim_memory");
}

void shim_forget(void *)
{
    refused("shim_forget");
}

int shim_calls(const char *)
{
    refused("shim_calls");
    return 0;
}

static void run_once(void *work)
{
    (*(std::function<void()> *)work)();
    delete (std::function<void()> *)work;
}

void shim_enqueue(cudaStream_t stream, std::function<void()> work)
{
    if (cudaLaunchHostFunc(stream, run_once, new std::function<void()>(std::move(work))) != cudaSuccess)
        refused("this host function");
}
