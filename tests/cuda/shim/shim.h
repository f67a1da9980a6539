/* What a test may ask of the device of shim.cc; real/device.cc answers the same for a real one, as far as it can. */
#ifndef DC_SHIM_H
#define DC_SHIM_H

#include <cstddef>
#include <cstdint>
#include <functional>

#include <cuda_runtime.h>

extern "C" {
int shim_is_real();                   /* 1: the device can not be made to fail, and counts nothing */
int shim_has_room(long long n_bytes); /* for a test of sizes past 2^31 elements */
cudaError_t shim_new(void **out, size_t n_bytes); /* memory of device 0 that the test may read when the device is idle */

/* Reports since the last reset, and the last one's text. */
int shim_reports();
const char *shim_last_report();
void shim_reset(); /* reports, faults and a broken device are forgotten */

enum shim_order { SHIM_FORWARD, SHIM_BACKWARD, SHIM_MIXED };
void shim_set_order(shim_order order); /* in which a block's threads, and a grid's blocks, take their turns */

void shim_set_devices(int n_devices, int driver_version);
cudaStream_t shim_stream_new(int device);

/* The call of `function` after `after` more fails with `status`.  "execution": of a kernel; all that follows fails too. */
void shim_fail(const char *function, int after, cudaError_t status);

/* Blocks of a grid that run: the first and the last `count`.  For sizes that no test has time for; 0 is all. */
void shim_set_ends(unsigned count);

void shim_memory(void *memory, size_t n_bytes, int device); /* memory of the test's, as if cudaMalloc had given it */
void shim_forget(void *memory);                             /* it is that no longer; nothing waits */
int64_t shim_live();                                        /* allocations, events, graphs: what was not freed */
int shim_calls(const char *function);                       /* how often it was called since the last reset */

/* For the double of a library. */
cudaError_t shim_fault(const char *function); /* what shim_fail planned for it, now */
void shim_report(const char *text);
bool shim_is_device(const void *memory, size_t n_bytes);  /* one allocation's, of a device */
bool shim_is_written(const void *memory, size_t n_bytes); /* and somebody wrote all of it */
void shim_write(void *memory, size_t n_bytes);            /* the library did */
}

void shim_enqueue(cudaStream_t stream, std::function<void()> work); /* as a framework would, on the host */

#endif
