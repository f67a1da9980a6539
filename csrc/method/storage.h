/* What the loop and the native denoiser keep where their backend computes: host memory, or a device's. */
#ifndef DC_METHOD_STORAGE_H
#define DC_METHOD_STORAGE_H

#include "backend.h"

/* *out: count items, not initialised on a device.  Returns new. */
DC_MUST_USE dc_status dc_memory_new(const dc_backend *backend, void **out, int64_t count, int64_t item_bytes,
                                    const char *what, dc_error *err);
void dc_memory_free(const dc_backend *backend, void *memory); /* takes; NULL is fine */

/* *out: count floats, a copy of `from` (count,) in host memory unless that is NULL.  Returns new. */
DC_MUST_USE dc_status dc_floats_new(const dc_backend *backend, float **out, const float *from, int64_t count,
                                    const char *what, dc_error *err);
DC_MUST_USE dc_status dc_floats_put(const dc_backend *backend, float *to, const float *from, int64_t count, dc_error *err);
void dc_floats_free(const dc_backend *backend, float *floats); /* takes; NULL is fine */

/* *out: errors (max_rows,) that the backend writes and the host reads, for rows of n_elem.  Returns new. */
DC_MUST_USE dc_status dc_results_new(const dc_backend *backend, dc_results *out, int64_t max_rows, int64_t n_elem,
                                     dc_error *err);
void dc_results_free(const dc_backend *backend, dc_results *results); /* takes, waits; a zeroed one is fine */

#endif
