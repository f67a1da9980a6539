/* A safetensors file in memory: eight bytes of header length, a JSON header, dense little-endian data.  The file is hostile
 * until read here: lengths, offsets, shapes, dtypes and names are all checked, and every byte of data belongs to exactly
 * one tensor, as the format demands. */
#ifndef DC_DIT_SAFETENSORS_H
#define DC_DIT_SAFETENSORS_H

#include "base/dtype.h"
#include "base/status.h"

enum { DC_TENSOR_NAME = 128, DC_TENSOR_DIMS = 8, DC_TENSORS_MAX = 4096, DC_HEADER_MAX = 16 << 20 };

typedef struct dc_tensor {
    char name[DC_TENSOR_NAME];
    dc_dtype dtype;
    int n_dims;
    int64_t shape[DC_TENSOR_DIMS];
    int64_t n_items;
    const char *data; /* borrowed from the file; not aligned */
    int64_t begin, end;
} dc_tensor;

typedef struct dc_tensors {
    int64_t n;
    dc_tensor *items; /* by offset */
} dc_tensors;

/* Borrows file (n_bytes,) for the life of *out.  DC_ERR_FORMAT says what is wrong. */
DC_MUST_USE dc_status dc_tensors_read(dc_tensors *out, const void *file, int64_t n_bytes, dc_error *err);
void dc_tensors_clear(dc_tensors *tensors);

/* NULL when there is none. */
const dc_tensor *dc_tensors_find(const dc_tensors *tensors, const char *name);

/* out (count,): items first .. first + count - 1 as float32; DC_ERR_FORMAT names the tensor when one is not finite. */
DC_MUST_USE dc_status dc_tensor_to_float(float *out, const dc_tensor *tensor, int64_t first, int64_t count,
                                         dc_error *err);

#endif
