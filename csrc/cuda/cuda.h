/* The CUDA backend: backend.h's table, filled in for one device and one of the caller's streams. */
#ifndef DC_CUDA_CUDA_H
#define DC_CUDA_CUDA_H

#include "backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* *out = how many devices there are; with none, err says why: no driver, an old one, no device. */
DC_MUST_USE dc_status dc_cuda_device_count(int *out, dc_error *err);

/* For work on `stream`, numbered as DLPack does (1 the default stream, 2 the calling thread's, else its handle), which must
 * live as long.  Not for use by two threads at once.  *out: returns new. */
DC_MUST_USE dc_status dc_cuda_backend_new(dc_backend **out, int device, uint64_t stream, dc_error *err);
void dc_cuda_backend_free(dc_backend *backend); /* takes, waits for what was begun; NULL is fine */

/* The backend's operations of the native DiT, with matrix products by the cuBLASLt at `path`. */
DC_MUST_USE dc_status dc_cuda_open_products(dc_backend *backend, const char *path, dc_error *err);

/* The operations, one file each; comments in backend.h. */
void dc_noise_cuda(const dc_backend *self, float *eps, dc_noise_key key, int64_t first, int64_t count);
void dc_noising_cuda(const dc_backend *self, void *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem,
                     dc_layout layout);
void dc_eps_error_cuda(const dc_backend *self, double *errors, dc_prediction prediction, const dc_group *groups,
                       int64_t n_groups, int64_t n_elem, dc_loss loss, float delta);

#ifdef __cplusplus
}
#endif
#endif
