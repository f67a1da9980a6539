#include "lt_double.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/dtype.h"
#include "formulas/rounding.h"
#include "shim.h"

namespace {

enum kind { HANDLE = 0x1a, DESC, LAYOUT, PREFERENCE };

/* Everything that the library hands out begins with what it is; a destroyed one is nothing. */
struct thing {
    int what;
};
struct desc : thing {
    int compute, scale, transa, transb, epilogue, bias_type; /* -1: not told */
    const void *bias;
};
struct layout : thing {
    int type;
    uint64_t rows, cols;
    int64_t ld;
};
struct preference : thing {
    size_t workspace;
    uint32_t scheme, alignment[4]; /* as the library's defaults */
};

/* What an algorithm was chosen for: all but the numbers of columns. */
struct chosen {
    uint32_t magic, workspace;
    int compute, epilogue, types[3];
    uint32_t rows[3], alignment;
};
static_assert(sizeof(chosen) <= sizeof(dc_lt_algorithm), "it is kept in the algorithm's bytes");

enum : uint32_t { MAGIC = 0x17d00b1e };

int64_t n_live, n_products;

bool wrong(bool is_wrong, const char *text)
{
    if (is_wrong)
        shim_report(text);
    return is_wrong;
}

template <typename T> int make(void **out, int what, T **own)
{
    *own = new T();
    (*own)->what = what;
    *out = *own;
    n_live++;
    return DC_LT_SUCCESS;
}

template <typename T> T *as(void *handle, int what)
{
    T *own = (T *)handle;
    if (wrong(own == nullptr || own->what != what, "cuBLASLt is given something else than what is wanted, or something destroyed"))
        return nullptr;
    return own;
}

template <typename T> int destroy(void *handle, int what)
{
    T *own = as<T>(handle, what);
    if (own == nullptr)
        return DC_LT_INVALID_VALUE;
    own->what = 0;
    delete own;
    n_live--;
    return DC_LT_SUCCESS;
}

int planned(const char *function)
{
    return (int)shim_fault(function);
}

size_t bytes_of(int type)
{
    return type == DC_LT_R_32F ? 4 : 2;
}

bool is_type(int type)
{
    return type == DC_LT_R_32F || type == DC_LT_R_16F || type == DC_LT_R_16BF;
}

float read(const void *data, int type, int64_t at)
{
    if (type == DC_LT_R_32F)
        return ((const float *)data)[at];
    uint16_t bits = ((const uint16_t *)data)[at];
    return type == DC_LT_R_16F ? dc_float16_to_float(bits) : dc_bfloat16_to_float(bits);
}

void write(void *data, int type, int64_t at, float value)
{
    if (type == DC_LT_R_32F)
        ((float *)data)[at] = value;
    else
        ((uint16_t *)data)[at] = type == DC_LT_R_16F ? dc_round_float16(value) : dc_round_bfloat16(value);
}

double gelu(double v)
{
    return 0.5 * v * (1.0 + tanh(sqrt(2.0 / M_PI) * (v + 0.044715 * v * v * v)));
}

/* Ten bits of mantissa, to nearest: what a tensor core reads of a float. */
float to_tf32(float value)
{
    dc_rounding_bits bits;
    bits.f = value;
    bits.u = (bits.u + 0xfffu + (bits.u >> 13 & 1u)) & ~0x1fffu;
    return bits.f;
}

/* The numbers of a description and three layouts fit each other; d (m, n), op(a) (m, k), op(b) (k, n). */
bool is_consistent(const desc *what, const layout *a, const layout *b, const layout *c, const layout *d)
{
    const bool a_is_t = what->transa == DC_LT_OP_T, b_is_t = what->transb == DC_LT_OP_T;
    const uint64_t m = a_is_t ? a->cols : a->rows, k = a_is_t ? a->rows : a->cols;
    const uint64_t n = b_is_t ? b->rows : b->cols;
    for (const layout *matrix : {a, b, c, d})
        if (wrong(matrix->ld < (int64_t)matrix->rows || matrix->rows < 1 || matrix->cols < 1, "a leading dimension below the rows"))
            return false;
    if (wrong((b_is_t ? b->cols : b->rows) != k, "a and b do not meet: their inner dimensions differ") ||
        wrong(d->rows != m || d->cols != n, "d is not of a's and b's outer dimensions") ||
        wrong(c->rows != d->rows || c->cols != d->cols || c->type != d->type || c->ld != d->ld, "c is not as d"))
        return false;
    /* NVIDIA's table of supported combinations, that of float32 sums */
    const bool is_32f = a->type == DC_LT_R_32F;
    return !wrong(!is_type(a->type) || a->type != b->type, "a and b are of two types") &&
           !wrong(d->type != a->type && d->type != DC_LT_R_32F, "d is of a type that a and b do not give") &&
           !wrong(what->scale != DC_LT_R_32F, "alpha and beta are not float32") &&
           !wrong(what->compute != DC_LT_COMPUTE_32F && !(is_32f && what->compute == DC_LT_COMPUTE_32F_FAST_TF32),
                  "a compute type that the types do not allow") &&
           !wrong(what->bias_type != d->type, "the bias is not of d's type") &&
           !wrong(what->epilogue != DC_LT_EPILOGUE_BIAS && what->epilogue != DC_LT_EPILOGUE_GELU_BIAS, "an epilogue without bias");
}

chosen choice_of(const desc *what, const layout *a, const layout *b, const layout *d, uint32_t alignment)
{
    chosen choice;
    memset(&choice, 0, sizeof choice);
    choice.magic = MAGIC, choice.workspace = 4096, choice.compute = what->compute, choice.epilogue = what->epilogue;
    choice.types[0] = a->type, choice.types[1] = b->type, choice.types[2] = d->type;
    choice.rows[0] = (uint32_t)a->rows, choice.rows[1] = (uint32_t)a->cols, choice.rows[2] = (uint32_t)d->rows;
    choice.alignment = alignment;
    return choice;
}

bool is_aligned(const void *data, uint32_t alignment)
{
    return (uintptr_t)data % alignment == 0;
}

size_t extent(const layout *matrix)
{
    return ((matrix->cols - 1) * (size_t)matrix->ld + matrix->rows) * bytes_of(matrix->type);
}

struct product {
    desc what;
    layout a, b, d;
    const void *a_data, *b_data;
    void *d_data;
    void *workspace;
    size_t workspace_bytes;
};

/* In the stream's turn. */
void multiply(const product &p)
{
    const bool a_is_t = p.what.transa == DC_LT_OP_T, b_is_t = p.what.transb == DC_LT_OP_T;
    const int64_t m = (int64_t)p.d.rows, n = (int64_t)p.d.cols, k = (int64_t)(a_is_t ? p.a.rows : p.a.cols);
    if (wrong(!shim_is_written(p.a_data, extent(&p.a)), "a is not on the device, or not all written") ||
        wrong(!shim_is_written(p.b_data, extent(&p.b)), "b is not on the device, or not all written") ||
        wrong(!shim_is_written(p.what.bias, (size_t)m * bytes_of(p.what.bias_type)), "the bias is not there, or not all written") ||
        wrong(!shim_is_device(p.d_data, extent(&p.d)), "d is not on the device") ||
        wrong(!shim_is_device(p.workspace, p.workspace_bytes), "the workspace is not on the device"))
        return;
    const bool is_tf32 = p.what.compute == DC_LT_COMPUTE_32F_FAST_TF32;
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            double sum = 0.0;
            for (int64_t l = 0; l < k; l++) {
                float left = read(p.a_data, p.a.type, a_is_t ? i * p.a.ld + l : l * p.a.ld + i);
                float right = read(p.b_data, p.b.type, b_is_t ? l * p.b.ld + j : j * p.b.ld + l);
                sum += is_tf32 ? (double)to_tf32(left) * to_tf32(right) : (double)left * right;
            }
            sum = (double)(float)sum + read(p.what.bias, p.what.bias_type, i);
            write(p.d_data, p.d.type, j * p.d.ld + i, (float)(p.what.epilogue == DC_LT_EPILOGUE_GELU_BIAS ? gelu(sum) : sum));
        }
    for (int64_t j = 0; j < n; j++)
        shim_write((char *)p.d_data + (size_t)(j * p.d.ld) * bytes_of(p.d.type), (size_t)m * bytes_of(p.d.type));
    memset(p.workspace, 0x5a, p.workspace_bytes < 64 ? p.workspace_bytes : 64); /* it is the library's */
    n_products++;
}

} // namespace

extern "C" {

int64_t lt_double_live()
{
    return n_live;
}

int64_t lt_double_products()
{
    return n_products;
}

int cublasLtCreate(void **handle)
{
    thing *own;
    int failed = planned("cublasLtCreate");
    return failed != 0 ? failed : make(handle, HANDLE, &own);
}

int cublasLtDestroy(void *handle)
{
    return destroy<thing>(handle, HANDLE);
}

int cublasLtMatmulDescCreate(void **out, int compute_type, int scale_type)
{
    desc *own;
    int failed = planned("cublasLtMatmulDescCreate");
    if (failed != 0)
        return failed;
    make(out, DESC, &own);
    own->compute = compute_type, own->scale = scale_type;
    own->transa = own->transb = DC_LT_OP_N;
    own->epilogue = own->bias_type = -1;
    return DC_LT_SUCCESS;
}

int cublasLtMatmulDescDestroy(void *handle)
{
    return destroy<desc>(handle, DESC);
}

int cublasLtMatmulDescSetAttribute(void *handle, int attribute, const void *value, size_t n_bytes)
{
    desc *own = as<desc>(handle, DESC);
    int *number = attribute == DC_LT_DESC_TRANSA           ? &own->transa
                  : attribute == DC_LT_DESC_TRANSB         ? &own->transb
                  : attribute == DC_LT_DESC_EPILOGUE       ? &own->epilogue
                  : attribute == DC_LT_DESC_BIAS_DATA_TYPE ? &own->bias_type
                                                           : nullptr;
    int failed = planned("cublasLtMatmulDescSetAttribute");
    if (failed != 0)
        return failed;
    if (wrong(number == nullptr && attribute != DC_LT_DESC_BIAS_POINTER, "a description has no such attribute") ||
        wrong(n_bytes != (number != nullptr ? sizeof *number : sizeof own->bias), "an attribute of another size"))
        return DC_LT_INVALID_VALUE;
    if (number != nullptr)
        memcpy(number, value, n_bytes);
    else
        memcpy(&own->bias, value, n_bytes);
    return DC_LT_SUCCESS;
}

int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t cols, int64_t ld)
{
    layout *own;
    int failed = planned("cublasLtMatrixLayoutCreate");
    if (failed != 0)
        return failed;
    make(out, LAYOUT, &own);
    own->type = type, own->rows = rows, own->cols = cols, own->ld = ld;
    return DC_LT_SUCCESS;
}

int cublasLtMatrixLayoutDestroy(void *handle)
{
    return destroy<layout>(handle, LAYOUT);
}

int cublasLtMatrixLayoutSetAttribute(void *handle, int attribute, const void *value, size_t n_bytes)
{
    layout *own = as<layout>(handle, LAYOUT);
    int failed = planned("cublasLtMatrixLayoutSetAttribute");
    if (failed != 0)
        return failed;
    if (wrong(attribute != DC_LT_LAYOUT_COLS || n_bytes != sizeof own->cols, "a layout has no such attribute of that size"))
        return DC_LT_INVALID_VALUE;
    memcpy(&own->cols, value, n_bytes);
    return DC_LT_SUCCESS;
}

int cublasLtMatmulPreferenceCreate(void **out)
{
    preference *own;
    int failed = planned("cublasLtMatmulPreferenceCreate");
    if (failed != 0)
        return failed;
    make(out, PREFERENCE, &own);
    own->workspace = 0, own->scheme = 7;
    for (uint32_t &alignment : own->alignment)
        alignment = 256;
    return DC_LT_SUCCESS;
}

int cublasLtMatmulPreferenceDestroy(void *handle)
{
    return destroy<preference>(handle, PREFERENCE);
}

int cublasLtMatmulPreferenceSetAttribute(void *handle, int attribute, const void *value, size_t n_bytes)
{
    preference *own = as<preference>(handle, PREFERENCE);
    const int of = attribute - DC_LT_PREFERENCE_MIN_ALIGNMENT_A_BYTES;
    void *to = attribute == DC_LT_PREFERENCE_MAX_WORKSPACE_BYTES       ? (void *)&own->workspace
               : attribute == DC_LT_PREFERENCE_REDUCTION_SCHEME_MASK   ? (void *)&own->scheme
               : of >= 0 && of < 4                                     ? (void *)&own->alignment[of]
                                                                       : nullptr;
    const size_t wanted = to == &own->workspace ? sizeof own->workspace : sizeof(uint32_t);
    if (wrong(to == nullptr || n_bytes != wanted, "a preference has no such attribute of that size"))
        return DC_LT_INVALID_VALUE;
    memcpy(to, value, n_bytes);
    return DC_LT_SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *what, void *a_layout, void *b_layout, void *c_layout, void *d_layout,
                                   void *wish, int n_wanted, dc_lt_heuristic *results, int *n_found)
{
    const desc *own = as<desc>(what, DESC);
    const layout *a = as<layout>(a_layout, LAYOUT), *b = as<layout>(b_layout, LAYOUT), *c = as<layout>(c_layout, LAYOUT);
    const layout *d = as<layout>(d_layout, LAYOUT);
    const preference *wanted = as<preference>(wish, PREFERENCE);
    int failed = planned("cublasLtMatmulAlgoGetHeuristic");
    *n_found = 0;
    if (failed != 0)
        return failed == DC_LT_NOT_SUPPORTED ? DC_LT_SUCCESS : failed; /* no algorithm is no failure of the call */
    if (as<thing>(handle, HANDLE) == nullptr || !is_consistent(own, a, b, c, d) || wrong(n_wanted != 1, "one algorithm is enough"))
        return DC_LT_INVALID_VALUE;
    uint32_t alignment = 256;
    for (uint32_t least : wanted->alignment)
        alignment = least < alignment ? least : alignment;
    if (wrong(wanted->scheme != 0, "an algorithm may split the sum: rows would know their batch") ||
        wrong(wanted->workspace < 4096, "no workspace is allowed"))
        return DC_LT_INVALID_VALUE;
    chosen choice = choice_of(own, a, b, d, alignment);
    memset(results, 0, sizeof *results);
    memcpy(&results->algorithm, &choice, sizeof choice);
    results->workspace_bytes = choice.workspace;
    *n_found = 1;
    return DC_LT_SUCCESS;
}

int cublasLtMatmul(void *handle, void *what, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,
                   const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const dc_lt_algorithm *algorithm,
                   void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    int failed = planned("cublasLtMatmul");
    if (failed != 0)
        return failed;
    const desc *own = as<desc>(what, DESC);
    const layout *of_a = as<layout>(a_layout, LAYOUT), *of_b = as<layout>(b_layout, LAYOUT), *of_c = as<layout>(c_layout, LAYOUT);
    const layout *of_d = as<layout>(d_layout, LAYOUT);
    if (as<thing>(handle, HANDLE) == nullptr || !is_consistent(own, of_a, of_b, of_c, of_d))
        return DC_LT_INVALID_VALUE;
    chosen choice;
    memcpy(&choice, algorithm, sizeof choice);
    const chosen now = choice_of(own, of_a, of_b, of_d, choice.alignment);
    const uint32_t alignment = choice.alignment;
    if (wrong(choice.magic != MAGIC, "an algorithm that nobody chose") ||
        wrong(memcmp(&choice, &now, sizeof now) != 0, "an algorithm that was chosen for something else") ||
        wrong(*(const float *)alpha != 1.0f || *(const float *)beta != 0.0f, "alpha is not one, or beta not zero") ||
        wrong(c != d, "c is not d") || wrong(workspace_bytes < choice.workspace, "the workspace is too small") ||
        wrong(workspace == nullptr || !is_aligned(workspace, 16), "the workspace is not aligned") ||
        wrong(!is_aligned(a, alignment) || !is_aligned(b, alignment) || !is_aligned(d, alignment),
              "a matrix is not aligned as was promised when the algorithm was chosen") ||
        wrong(!is_aligned(own->bias, (uint32_t)bytes_of(own->bias_type)), "the bias is not aligned"))
        return DC_LT_INVALID_VALUE;
    product p = {*own, *of_a, *of_b, *of_d, a, b, d, workspace, workspace_bytes};
    shim_enqueue(stream, [=] { multiply(p); });
    return DC_LT_SUCCESS;
}

} // extern "C"

dc_lt lt_double()
{
    return {cublasLtCreate,
            cublasLtDestroy,
            cublasLtMatmul,
            cublasLtMatrixLayoutCreate,
            cublasLtMatrixLayoutDestroy,
            cublasLtMatrixLayoutSetAttribute,
            cublasLtMatmulDescCreate,
            cublasLtMatmulDescDestroy,
            cublasLtMatmulDescSetAttribute,
            cublasLtMatmulPreferenceCreate,
            cublasLtMatmulPreferenceDestroy,
            cublasLtMatmulPreferenceSetAttribute,
            cublasLtMatmulAlgoGetHeuristic};
}
