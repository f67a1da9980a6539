/* The part of DLPack's ABI that an importer reads (dmlc/dlpack, versions 0.x and 1.x). */
#ifndef DC_PYTHON_DLPACK_H
#define DC_PYTHON_DLPACK_H

#include <stdint.h>

enum { DLPACK_CPU = 1, DLPACK_CUDA = 2, DLPACK_CUDA_HOST = 3, DLPACK_CUDA_MANAGED = 13, DLPACK_FLOAT = 2, DLPACK_BFLOAT = 4 };

typedef struct dlpack_tensor {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t n_dims;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides; /* strides NULL: dense */
    uint64_t byte_offset;
} dlpack_tensor;

/* In the flags of a versioned tensor: its memory must not be written. */
#define DLPACK_READ_ONLY UINT64_C(1)

typedef struct dlpack_managed {
    dlpack_tensor tensor;
    void *manager;
    void (*deleter)(struct dlpack_managed *self);
} dlpack_managed;

typedef struct dlpack_versioned {
    struct {
        uint32_t major, minor;
    } version;
    void *manager;
    void (*deleter)(struct dlpack_versioned *self);
    uint64_t flags;
    dlpack_tensor tensor;
} dlpack_versioned;

#endif
