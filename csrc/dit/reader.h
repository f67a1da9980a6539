/* Weights by name from one or several safetensors files, straight into the layout that the operations read: a large
 * weight is copied once, row by row, whatever its dtype in the file. */
#ifndef DC_DIT_READER_H
#define DC_DIT_READER_H

#include "dit/operations.h"
#include "dit/safetensors.h"

/* A file in memory, or a part of it. */
typedef struct dc_bytes {
    const void *data;
    int64_t n_bytes;
} dc_bytes;

typedef struct dc_reader {
    int64_t n_files;
    dc_tensors *files;
    int64_t n_read, n_parameters; /* so that a tensor that the model does not know is noticed at the end */
    dc_error *err;
} dc_reader;

/* Borrows files and err for the life of *out. */
DC_MUST_USE dc_status dc_reader_open(dc_reader *out, const dc_bytes *files, int64_t n_files, dc_error *err);
void dc_reader_close(dc_reader *reader);

/* *out: the float32 items of tensor `name`, whose shape must be exactly shape (n_dims,).  Returns new. */
DC_MUST_USE dc_status dc_reader_floats(dc_reader *reader, float **out, const char *name, int n_dims,
                                       const int64_t *shape);

/* A layer from n_parts tensors `parts[i]`.weight of the given shape, n_out rows first, and `parts[i]`.bias, their outputs
 * one after another.  Fills *layer, which is zeroed; dc_linear_clear frees it, after a failure too. */
DC_MUST_USE dc_status dc_reader_layer(dc_reader *reader, dc_linear *layer, const char *const *parts, int n_parts,
                                      int n_dims, const int64_t *shape);
void dc_linear_clear(dc_linear *layer);

/* Whether both are there with the same dtype, shape and bytes; then `name` counts as read. */
int dc_reader_is_copy(dc_reader *reader, const char *name, const char *of);

/* DC_ERR_FORMAT where the files have tensors that were not read. */
DC_MUST_USE dc_status dc_reader_end(const dc_reader *reader);

#endif
