/* cuBLASLt as far as it is used: its documented C ABI, declared here so that no build needs it, and a table of its functions
 * that is filled from a library found at run time.  Numbers and order of arguments are those of cublasLt.h 12 and 13; names
 * are its names without the prefix.  Matrices are column-major, as always there. */
#ifndef DC_CUDA_BLAS_H
#define DC_CUDA_BLAS_H

#include <cuda_runtime.h>

#include "base/status.h"

enum { DC_LT_SUCCESS = 0, DC_LT_ALLOC_FAILED = 3, DC_LT_INVALID_VALUE = 7, DC_LT_NOT_SUPPORTED = 15 }; /* cublasStatus_t */
enum { DC_LT_R_32F = 0, DC_LT_R_16F = 2, DC_LT_R_16BF = 14 };                     /* cudaDataType_t */
enum { DC_LT_COMPUTE_32F = 68, DC_LT_COMPUTE_32F_FAST_TF32 = 77 };                /* cublasComputeType_t */
enum { DC_LT_OP_N = 0, DC_LT_OP_T = 1 };                                          /* cublasOperation_t */
enum { DC_LT_EPILOGUE_BIAS = 4, DC_LT_EPILOGUE_GELU_BIAS = 36 };                  /* cublasLtEpilogue_t; gelu's tanh form */
enum { /* cublasLtMatmulDescAttributes_t: int32_t, but the pointer */
    DC_LT_DESC_TRANSA = 3,
    DC_LT_DESC_TRANSB = 4,
    DC_LT_DESC_EPILOGUE = 7,
    DC_LT_DESC_BIAS_POINTER = 8,
    DC_LT_DESC_BIAS_DATA_TYPE = 26,
};
enum { DC_LT_LAYOUT_COLS = 3 }; /* cublasLtMatrixLayoutAttribute_t: uint64_t */
enum { /* cublasLtMatmulPreferenceAttributes_t: uint32_t, but the workspace's size_t */
    DC_LT_PREFERENCE_MAX_WORKSPACE_BYTES = 1,
    DC_LT_PREFERENCE_REDUCTION_SCHEME_MASK = 3,
    DC_LT_PREFERENCE_MIN_ALIGNMENT_A_BYTES = 5, /* then B, C, D */
    DC_LT_PREFERENCE_MIN_ALIGNMENT_D_BYTES = 8,
};

typedef struct dc_lt_algorithm { /* cublasLtMatmulAlgo_t: plain data, may be copied */
    uint64_t data[8];
} dc_lt_algorithm;

typedef struct dc_lt_heuristic { /* cublasLtMatmulHeuristicResult_t */
    dc_lt_algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
} dc_lt_heuristic;

/* cublasLt + the name, in the order of the library's header; all return a status.  Handles are pointers to what is theirs. */
typedef struct dc_lt {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    /* d = alpha op(a) op(b) + beta c, then the epilogue */
    int (*matmul)(void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,
                  const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const dc_lt_algorithm *algorithm,
                  void *workspace, size_t workspace_bytes, cudaStream_t stream);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
    int (*layout_destroy)(void *layout);
    int (*layout_set)(void *layout, int attribute, const void *value, size_t n_bytes);
    int (*desc_create)(void **desc, int compute_type, int scale_type);
    int (*desc_destroy)(void *desc);
    int (*desc_set)(void *desc, int attribute, const void *value, size_t n_bytes);
    int (*preference_create)(void **preference);
    int (*preference_destroy)(void *preference);
    int (*preference_set)(void *preference, int attribute, const void *value, size_t n_bytes);
    int (*heuristic)(void *handle, void *desc, void *a_layout, void *b_layout, void *c_layout, void *d_layout,
                     void *preference, int n_wanted, dc_lt_heuristic *results, int *n_found);
} dc_lt;

/* Fills *out from the shared library at `path`, which stays loaded: it registers itself with the driver. */
DC_MUST_USE dc_status dc_lt_load(dc_lt *out, const char *path, dc_error *err);

#endif
