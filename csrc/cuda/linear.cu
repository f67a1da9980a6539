/* y = epilogue(x weight^T + bias): the product, its bias and GELU by cuBLASLt, the other epilogues by a kernel after it.
 *
 * What is row-major here is column-major there, transposed: y^T (n_out, n_rows) = weight (n_in, n_out)^T x^T (n_in, n_rows).
 * Lt could gate with a vector of alphas, but it is one vector for all images, and the bias would stay outside of it; and it
 * has no sigmoid.  So a gated product is narrow scratch memory, like every other branch, and meets the residual in float32.
 *
 * The library chooses once for each kind of product, as for PLAN_ROWS rows, and splits no sum: a row is then added up in the
 * same order whatever its batch is, as far as that is in our hands; the library promises nothing of the kind. */
#include <string.h>

#include "cuda/dit_context.h"

enum { LINEAR_THREADS = 256, PACK_THREADS = 256, PLAN_ROWS = 8192 };

static const size_t WORKSPACE_BYTES = (size_t)32 << 20;

/* ---- placing: a layer's copy on the device ------------------------------------------------------------------------- */

typedef struct pack_params {
    void *weight;        /* (n_out, n_in) narrow */
    const float *panels; /* (ceil(n_out / 32), n_in, 32) */
    int64_t n_in, n_out;
} pack_params;

template <typename T> static __global__ void __launch_bounds__(PACK_THREADS) pack_kernel(pack_params params)
{
    const int64_t item = (int64_t)blockIdx.x * PACK_THREADS + threadIdx.x;
    if (item >= params.n_out * params.n_in)
        return;
    const int64_t j = item / params.n_in, k = item % params.n_in;
    dc_narrow((T *)params.weight + item, params.panels[(j / DC_PANEL * params.n_in + k) * DC_PANEL + j % DC_PANEL]);
}

static void pack(dc_cuda *cuda, void *weight, const float *panels, int64_t n_in, int64_t n_out, dc_precision precision)
{
    pack_params params = {weight, panels, n_in, n_out};
    dc_cuda_launch(cuda, dc_narrow_kernel(precision, pack_kernel<float>, pack_kernel<half_bits>, pack_kernel<bfloat_bits>),
                   params, (n_out * n_in + PACK_THREADS - 1) / PACK_THREADS, PACK_THREADS, 0, "placing a layer");
}

dc_status dc_place_cuda(const dc_backend *self, dc_linear *out, const dc_linear *host, dc_precision precision,
                        dc_error *err)
{
    dc_cuda *cuda = dc_cuda_of(self);
    const dc_device *device = self->device;
    const int64_t n_in = host->n_in, n_out = host->n_out, n_columns = dc_panels(n_out) * DC_PANEL;
    const int64_t item_bytes = dc_precision_bytes(precision), float_bytes = (int64_t)sizeof(float);
    void *panels = NULL, *bias = NULL;
    int before = dc_cuda_enter(cuda);
    out->n_in = n_in;
    out->n_out = n_out;
    out->precision = precision;
    dc_status status = device->memory_new(self, &out->weight, n_out * n_in * item_bytes, err);
    if (status == DC_OK)
        status = device->memory_new(self, &out->narrow_bias, n_out * item_bytes, err);
    if (status == DC_OK)
        status = device->memory_new(self, &bias, n_out * float_bytes, err);
    out->bias = (float *)bias;
    if (status == DC_OK)
        status = device->upload(self, out->bias, host->bias, n_out * float_bytes, err);
    if (status == DC_OK)
        status = device->memory_new(self, &panels, n_columns * n_in * float_bytes, err);
    if (status == DC_OK)
        status = device->upload(self, panels, host->panels, n_columns * n_in * float_bytes, err);
    if (status == DC_OK) {
        pack(cuda, out->weight, (const float *)panels, n_in, n_out, precision);
        pack(cuda, out->narrow_bias, out->bias, 1, n_out, precision); /* a bias is panels of one input */
        dc_cuda_note(cuda, cudaStreamSynchronize(cuda->stream), "placing a layer");
        status = device->check(self, err);
    }
    device->memory_free(self, panels);
    dc_cuda_leave(before);
    return status;
}

/* ---- plans --------------------------------------------------------------------------------------------------------- */

static const char *name_of(int status)
{
    return status == DC_LT_NOT_SUPPORTED   ? "a product that this cuBLASLt has no algorithm for"
           : status == DC_LT_INVALID_VALUE ? "a product that cuBLASLt says is inconsistent"
                                           : "a product of cuBLASLt";
}

/* Remembers a failure of the library; true when all is well. */
static bool note(dc_cuda *cuda, int status)
{
    cudaError_t failure = status == DC_LT_ALLOC_FAILED ? cudaErrorMemoryAllocation : cudaErrorUnknown;
    return status == DC_LT_SUCCESS || dc_cuda_note(cuda, failure, name_of(status));
}

static int set_number(const dc_lt *lt, void *desc, int attribute, int32_t value)
{
    return lt->desc_set(desc, attribute, &value, sizeof value);
}

/* What a chosen algorithm may rely on. */
static int set_preference(const dc_lt *lt, void *preference, uint32_t alignment)
{
    const uint32_t no_split = 0; /* CUBLASLT_REDUCTION_SCHEME_NONE */
    int status = lt->preference_set(preference, DC_LT_PREFERENCE_MAX_WORKSPACE_BYTES, &WORKSPACE_BYTES, sizeof WORKSPACE_BYTES);
    if (status == DC_LT_SUCCESS)
        status = lt->preference_set(preference, DC_LT_PREFERENCE_REDUCTION_SCHEME_MASK, &no_split, sizeof no_split);
    for (int matrix = DC_LT_PREFERENCE_MIN_ALIGNMENT_A_BYTES;
         matrix <= DC_LT_PREFERENCE_MIN_ALIGNMENT_D_BYTES && status == DC_LT_SUCCESS; matrix++)
        status = lt->preference_set(preference, matrix, &alignment, sizeof alignment);
    return status;
}

static int choose(const dc_lt *lt, void *handle, dc_plan *plan)
{
    void *preference;
    dc_lt_heuristic found;
    int n_found = 0, status = lt->preference_create(&preference);
    if (status != DC_LT_SUCCESS)
        return status;
    status = set_preference(lt, preference, plan->is_aligned ? 16 : (uint32_t)dc_precision_bytes(plan->precision));
    if (status == DC_LT_SUCCESS)
        status = lt->heuristic(handle, plan->desc, plan->weight, plan->x, plan->y, plan->y, preference, 1, &found, &n_found);
    if (status == DC_LT_SUCCESS)
        status = n_found < 1 ? DC_LT_NOT_SUPPORTED : found.state;
    if (status == DC_LT_SUCCESS)
        plan->algorithm = found.algorithm;
    (void)lt->preference_destroy(preference);
    return status;
}

static int type_of(dc_precision precision)
{
    if (precision == DC_PRECISION_FLOAT16)
        return DC_LT_R_16F;
    if (precision == DC_PRECISION_BFLOAT16)
        return DC_LT_R_16BF;
    return DC_LT_R_32F;
}

static int plan_make(const dc_lt *lt, void *handle, dc_plan *plan)
{
    const int narrow = type_of(plan->precision), of_y = plan->is_wide ? type_of(DC_PRECISION_FLOAT32) : narrow;
    const uint64_t n_in = (uint64_t)plan->n_in, n_out = (uint64_t)plan->n_out;
    int status = lt->desc_create(&plan->desc,
                                 plan->precision == DC_PRECISION_TF32 ? DC_LT_COMPUTE_32F_FAST_TF32 : DC_LT_COMPUTE_32F,
                                 DC_LT_R_32F);
    if (status == DC_LT_SUCCESS)
        status = set_number(lt, plan->desc, DC_LT_DESC_TRANSA, DC_LT_OP_T);
    if (status == DC_LT_SUCCESS)
        status = set_number(lt, plan->desc, DC_LT_DESC_TRANSB, DC_LT_OP_N);
    if (status == DC_LT_SUCCESS)
        status = set_number(lt, plan->desc, DC_LT_DESC_EPILOGUE,
                            plan->is_gelu ? DC_LT_EPILOGUE_GELU_BIAS : DC_LT_EPILOGUE_BIAS);
    if (status == DC_LT_SUCCESS)
        status = set_number(lt, plan->desc, DC_LT_DESC_BIAS_DATA_TYPE, of_y);
    if (status == DC_LT_SUCCESS)
        status = lt->layout_create(&plan->weight, narrow, n_in, n_out, plan->n_in);
    if (status == DC_LT_SUCCESS)
        status = lt->layout_create(&plan->x, narrow, n_in, PLAN_ROWS, plan->n_in);
    if (status == DC_LT_SUCCESS)
        status = lt->layout_create(&plan->y, of_y, n_out, PLAN_ROWS, plan->n_out);
    return status == DC_LT_SUCCESS ? choose(lt, handle, plan) : status;
}

static bool is_same(const dc_plan *a, const dc_plan *b)
{
    return a->n_in == b->n_in && a->n_out == b->n_out && a->precision == b->precision && a->is_gelu == b->is_gelu &&
           a->is_wide == b->is_wide && a->is_aligned == b->is_aligned;
}

/* The plan of that kind, made when it is first asked for; NULL after a failure. */
static dc_plan *plan_for(dc_cuda *cuda, dc_plan kind)
{
    dc_cuda_dit *dit = cuda->dit;
    for (int64_t i = 0; i < DC_PLANS && i < dit->n_plans; i++)
        if (is_same(&dit->plans[i], &kind))
            return &dit->plans[i];
    dc_plan *plan = &dit->plans[dit->n_plans % DC_PLANS];
    dc_plan_clear(&dit->lt, plan);
    *plan = kind;
    if (!note(cuda, plan_make(&dit->lt, dit->handle, plan))) {
        dc_plan_clear(&dit->lt, plan);
        return NULL;
    }
    dit->n_plans++;
    return plan;
}

/* ---- what follows a product ---------------------------------------------------------------------------------------- */

typedef struct finish_params {
    void *y;       /* (n_rows, n_out) */
    const void *v; /* the product, where it is not y */
    const float *other;
    const int64_t *other_of;
    int64_t other_stride;
    unsigned n_out, rows_per_other;
} finish_params;

/* y += other[row mod rows_per_other] */
static __global__ void __launch_bounds__(LINEAR_THREADS) add_kernel(finish_params params)
{
    const unsigned row = blockIdx.x, n_out = params.n_out;
    float *y = (float *)params.y + (int64_t)row * n_out;
    const float *other = params.other + row % params.rows_per_other * params.other_stride;
    for (unsigned e = 4 * threadIdx.x; e < n_out; e += 4 * LINEAR_THREADS) {
        float items[4], added[4];
        dc_read_unit(items, y, e, n_out, dc_is_aligned(y));
        dc_read_unit(added, other, e, n_out, dc_is_aligned(other));
#pragma unroll
        for (int i = 0; i < 4; i++)
            items[i] += added[i];
        dc_write_unit(y, items, e, n_out);
    }
}

/* y += other[other_of[row / rows_per_other]] * v */
template <typename T> static __global__ void __launch_bounds__(LINEAR_THREADS) gate_kernel(finish_params params)
{
    constexpr unsigned UNIT = DC_UNIT<T>;
    const unsigned row = blockIdx.x, n_out = params.n_out;
    float *y = (float *)params.y + (int64_t)row * n_out;
    const T *v = (const T *)params.v + (int64_t)row * n_out;
    const float *other = params.other + params.other_of[row / params.rows_per_other] * params.other_stride;
    const bool are_aligned = dc_is_aligned(y) && dc_is_aligned(other), v_is_aligned = dc_is_aligned(v);
    for (unsigned e = UNIT * threadIdx.x; e < n_out; e += UNIT * LINEAR_THREADS) {
        float items[UNIT], gates[UNIT], products[UNIT];
        dc_read_unit(products, v, e, n_out, v_is_aligned);
#pragma unroll
        for (unsigned i = 0; i < UNIT; i += 4) {
            dc_read_unit(items + i, y, e + i, n_out, are_aligned);
            dc_read_unit(gates + i, other, e + i, n_out, are_aligned);
        }
#pragma unroll
        for (unsigned i = 0; i < UNIT; i++)
            items[i] += gates[i] * products[i];
#pragma unroll
        for (unsigned i = 0; i < UNIT; i += 4)
            dc_write_unit(y, items + i, e + i, n_out);
    }
}

/* y = y sigmoid(y) */
template <typename T> static __global__ void __launch_bounds__(LINEAR_THREADS) silu_kernel(finish_params params)
{
    T *y = (T *)params.y + (int64_t)blockIdx.x * params.n_out;
    for (unsigned e = threadIdx.x; e < params.n_out; e += LINEAR_THREADS) {
        float v = dc_widen(y[e]);
        dc_narrow(&y[e], v / (1.0f + expf(-v)));
    }
}

static void finish_product(dc_cuda *cuda, finish_params params, int64_t n_rows, dc_epilogue epilogue, dc_precision precision)
{
    void (*kernel)(finish_params) =
        epilogue == DC_EPILOGUE_ADD ? add_kernel
        : epilogue == DC_EPILOGUE_GATE
            ? dc_narrow_kernel(precision, gate_kernel<float>, gate_kernel<half_bits>, gate_kernel<bfloat_bits>)
            : dc_narrow_kernel(precision, silu_kernel<float>, silu_kernel<half_bits>, silu_kernel<bfloat_bits>);
    dc_cuda_launch(cuda, kernel, params, n_rows, LINEAR_THREADS, 0, "linear");
}

/* ---- launch -------------------------------------------------------------------------------------------------------- */

/* The product with its bias, and GELU where it is asked, into `to`. */
static bool multiply(dc_cuda *cuda, void *to, const void *x, const dc_linear *layer, int64_t n_rows, bool is_gelu, bool is_wide)
{
    dc_cuda_dit *dit = cuda->dit;
    const dc_lt *lt = &dit->lt;
    const float one = 1.0f, zero = 0.0f;
    const uint64_t rows = (uint64_t)n_rows;
    const void *bias = is_wide ? layer->bias : layer->narrow_bias;
    dc_plan kind = {};
    kind.n_in = layer->n_in, kind.n_out = layer->n_out, kind.precision = layer->precision;
    kind.is_gelu = is_gelu, kind.is_wide = is_wide, kind.is_aligned = ((uintptr_t)to | (uintptr_t)x) % 16 == 0;
    dc_plan *plan = plan_for(cuda, kind);
    return plan != NULL && note(cuda, lt->layout_set(plan->x, DC_LT_LAYOUT_COLS, &rows, sizeof rows)) &&
           note(cuda, lt->layout_set(plan->y, DC_LT_LAYOUT_COLS, &rows, sizeof rows)) &&
           note(cuda, lt->desc_set(plan->desc, DC_LT_DESC_BIAS_POINTER, &bias, sizeof bias)) &&
           note(cuda, lt->matmul(dit->handle, plan->desc, &one, layer->weight, plan->weight, x, plan->x, &zero, to, plan->y, to,
                                 plan->y, &plan->algorithm, dit->workspace, WORKSPACE_BYTES, cuda->stream));
}

void dc_linear_cuda(const dc_backend *self, void *y, const void *x, const dc_linear *layer, int64_t n_rows,
                    dc_finish finish)
{
    dc_cuda *cuda = dc_cuda_of(self);
    const dc_epilogue epilogue = finish.epilogue;
    const bool is_gate = epilogue == DC_EPILOGUE_GATE, is_add = epilogue == DC_EPILOGUE_ADD;
    if (n_rows < 1 || cuda->failure != cudaSuccess)
        return;
    if (is_gate && n_rows * layer->n_out * dc_precision_bytes(layer->precision) > cuda->dit->scratch_bytes) {
        dc_cuda_note(cuda, cudaErrorInvalidValue, "a chunk larger than what was reserved");
        return;
    }
    int before = dc_cuda_enter(cuda);
    void *to = is_gate ? cuda->dit->scratch : y;
    bool begun = multiply(cuda, to, x, layer, n_rows, epilogue == DC_EPILOGUE_GELU, is_add || epilogue == DC_EPILOGUE_WIDE);
    if (begun && (is_gate || is_add || epilogue == DC_EPILOGUE_SILU)) {
        finish_params params = {y, to, finish.other, finish.other_of, finish.other_stride, (unsigned)layer->n_out,
                                (unsigned)finish.rows_per_other};
        finish_product(cuda, params, n_rows, epilogue, layer->precision);
    }
    dc_cuda_leave(before);
}
