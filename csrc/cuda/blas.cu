/* Where the table of cuBLASLt's functions comes from. */
#include "cuda/blas.h"

#include <dlfcn.h>
#include <string.h>

dc_status dc_lt_load(dc_lt *out, const char *path, dc_error *err)
{
    const struct {
        const char *name;
        void *member; /* a pointer to a function */
    } functions[] = {
        {"cublasLtCreate", &out->create},
        {"cublasLtDestroy", &out->destroy},
        {"cublasLtMatmul", &out->matmul},
        {"cublasLtMatrixLayoutCreate", &out->layout_create},
        {"cublasLtMatrixLayoutDestroy", &out->layout_destroy},
        {"cublasLtMatrixLayoutSetAttribute", &out->layout_set},
        {"cublasLtMatmulDescCreate", &out->desc_create},
        {"cublasLtMatmulDescDestroy", &out->desc_destroy},
        {"cublasLtMatmulDescSetAttribute", &out->desc_set},
        {"cublasLtMatmulPreferenceCreate", &out->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &out->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &out->preference_set},
        {"cublasLtMatmulAlgoGetHeuristic", &out->heuristic},
    };
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *reason = dlerror();
        return dc_error_set(err, DC_ERR_DEVICE, "cuBLASLt can not be loaded: %.400s", reason == NULL ? path : reason);
    }
    for (const auto &function : functions) {
        void *address = dlsym(library, function.name);
        if (address == NULL)
            return dc_error_set(err, DC_ERR_DEVICE, "%.300s has no %s: it is no cuBLASLt, or an old one", path, function.name);
        memcpy(function.member, &address, sizeof address);
    }
    return DC_OK;
}
