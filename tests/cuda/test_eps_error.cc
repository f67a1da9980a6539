/* cuda/eps_error.cu against the CPU's eps_error: equal, not close, for it sums in the same order. */
#include "cuda/context.h"
#include "device.h"

enum { N_GROUPS = 6 };

static const int64_t SIZES[] = {1, 3, 31, 33, 784, 1023, 1024, 1025, 2048, 3001};
static const int64_t ROWS[N_GROUPS] = {1, 3, 2, 5, 26, 4};
static const int64_t N_ROWS = 41;
static const dc_loss LOSSES[] = {DC_LOSS_L2, DC_LOSS_L1, DC_LOSS_HUBER};
static const dc_dtype DTYPES[] = {DC_FLOAT32, DC_FLOAT64, DC_FLOAT16, DC_BFLOAT16};
static const float DELTA = 0.375f;

static void make_groups(dc_group *groups, const float *x_start, const float *eps, int64_t n_elem)
{
    for (int g = 0; g < N_GROUPS; g++) {
        dc_group group = {};
        group.x_start = x_start + g * n_elem;
        group.eps = g == 1 || g == 4 ? eps : NULL;
        group.key = {12, (uint32_t)g, 34};
        group.eps_sign = g % 2 ? -1.0f : 1.0f;
        group.p = g == 0 ? 0.0f : -0.6f;
        group.q = g == 3 ? 0.0f : 0.8f; /* one predicts x_start */
        group.n_rows = ROWS[g];
        groups[g] = group;
    }
}

/* Random bits of every dtype that are finite numbers within (-8, 8), subnormal halves among them. */
static std::vector<char> make_prediction(int64_t n, dc_dtype dtype)
{
    std::vector<float> values((size_t)n);
    size_t item = dc_dtype_bytes(dtype);
    std::vector<char> out((size_t)n * item);
    fill(values.data(), n, 8);
    for (size_t i = 0; i < (size_t)n; i++) {
        double wide = 8.0 * (double)values[i] + 1e-9;
        float narrow = (float)wide;
        uint32_t bits;
        memcpy(&bits, &narrow, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        if (dtype == DC_FLOAT16) /* any sign and mantissa, an exponent below 2^3 */
            half = (uint16_t)((bits & 0x83ffu) | (bits >> 11 & 0x7fffu) % 18 << 10);
        const void *from = dtype == DC_FLOAT64 ? (const void *)&wide : dtype == DC_FLOAT32 ? (const void *)&narrow : &half;
        memcpy(&out[i * item], from, item);
    }
    return out;
}

static void check_case(device *d, int64_t n_elem, int64_t row_stride, dc_dtype dtype, dc_loss loss, int64_t offset)
{
    dc_group groups[N_GROUPS];
    std::vector<float> x_start((size_t)(N_GROUPS * n_elem)), eps((size_t)n_elem);
    std::vector<char> prediction = make_prediction((N_ROWS - 1) * row_stride + n_elem, dtype);
    double wanted[N_ROWS], *errors = device_new<double>(d, N_ROWS);
    fill(x_start.data(), N_GROUPS * n_elem, 3);
    fill(eps.data(), n_elem, 4);
    make_groups(groups, x_start.data(), eps.data(), n_elem);
    d->host->eps_error(d->host, wanted, dense(prediction.data(), dtype, row_stride), groups, N_GROUPS, n_elem, loss, DELTA);
    make_groups(groups, device_put(d, x_start.data(), N_GROUPS * n_elem, offset), device_put(d, eps.data(), n_elem, offset / 2),
                n_elem);
    int64_t item = (int64_t)dc_dtype_bytes(dtype);
    const void *data = device_put(d, prediction.data(), (int64_t)prediction.size(), offset * item);
    d->backend->eps_error(d->backend, errors, dense(data, dtype, row_stride), groups, N_GROUPS, n_elem, loss, DELTA);
    memset(groups, 0xff, sizeof groups); /* they were taken over */
    device_finish(d);
    CHECK(memcmp(errors, wanted, sizeof wanted) == 0);
    device_clear(d);
}

/* Channels last, of any dtype, with `beside` more channels that must not be read: the CPU's errors. */
static void check_channels_last(device *d, int64_t n_channels, int64_t n_positions, dc_dtype dtype, int64_t beside, int64_t offset)
{
    dc_group groups[N_GROUPS];
    const int64_t n_elem = n_channels * n_positions, stride = n_channels + beside, row_stride = stride * n_positions + 3;
    std::vector<float> x_start((size_t)(N_GROUPS * n_elem)), eps((size_t)n_elem);
    std::vector<char> prediction = make_prediction(N_ROWS * row_stride, dtype);
    double wanted[N_ROWS], *errors = device_new<double>(d, N_ROWS);
    fill(x_start.data(), N_GROUPS * n_elem, 3);
    fill(eps.data(), n_elem, 4);
    make_groups(groups, x_start.data(), eps.data(), n_elem);
    dc_prediction rows = {prediction.data(), dtype, row_stride, n_positions, stride};
    d->host->eps_error(d->host, wanted, rows, groups, N_GROUPS, n_elem, DC_LOSS_L2, DELTA);
    make_groups(groups, device_put(d, x_start.data(), N_GROUPS * n_elem), device_put(d, eps.data(), n_elem), n_elem);
    rows.data = device_put(d, prediction.data(), (int64_t)prediction.size(), offset * (int64_t)dc_dtype_bytes(dtype));
    d->backend->eps_error(d->backend, errors, rows, groups, N_GROUPS, n_elem, DC_LOSS_L2, DELTA);
    device_finish(d);
    CHECK(memcmp(errors, wanted, sizeof wanted) == 0);
    device_clear(d);
}

/* Numbers so unlike each other that float64 rounds their sums: the order of lanes and of blocks shows. */
static void check_order(device *d)
{
    enum { N_ELEM = 1024 * 40, N = 3 };
    std::vector<float> prediction(N * N_ELEM), x_start(N_ELEM, 0.0f);
    fill(prediction.data(), N * N_ELEM, 13);
    for (int i = 0; i < N * N_ELEM; i++)
        prediction[(size_t)i] = ldexpf(prediction[(size_t)i], (i % 32 * 7 + i / 1024 * 11) % 60 - 30);
    dc_group group = {};
    group.x_start = x_start.data(), group.eps_sign = 1.0f, group.p = 1.0f, group.n_rows = N;
    double wanted[N], *errors = device_new<double>(d, N);
    d->host->eps_error(d->host, wanted, dense(prediction.data(), DC_FLOAT32, N_ELEM), &group, 1, N_ELEM, DC_LOSS_L1, 1.0f);
    group.x_start = device_put(d, x_start.data(), N_ELEM);
    const float *there = device_put(d, prediction.data(), N * N_ELEM);
    d->backend->eps_error(d->backend, errors, dense(there, DC_FLOAT32, N_ELEM), &group, 1, N_ELEM, DC_LOSS_L1, 1.0f);
    device_finish(d);
    CHECK(memcmp(errors, wanted, sizeof wanted) == 0);
    device_clear(d);
}

/* Not a number in one element of one row: that row's error is none, the others' are what they were. */
static void check_non_finite(device *d)
{
    enum { N_ELEM = 1500, N = 6 };
    for (float bad : {NAN, INFINITY}) {
        std::vector<float> prediction(N * N_ELEM), x_start(N_ELEM, 0.5f);
        fill(prediction.data(), N * N_ELEM, 9);
        dc_group group = {};
        group.x_start = x_start.data(), group.key = {1, 2, 3}, group.eps_sign = 1.0f, group.q = 1.0f, group.n_rows = N;
        prediction[4 * N_ELEM + N_ELEM - 1] = bad;
        double wanted[N], *errors = device_new<double>(d, N);
        d->host->eps_error(d->host, wanted, dense(prediction.data(), DC_FLOAT32, N_ELEM), &group, 1, N_ELEM, DC_LOSS_L2, 1.0f);
        group.x_start = device_put(d, x_start.data(), N_ELEM);
        d->backend->eps_error(d->backend, errors, dense(device_put(d, prediction.data(), N * N_ELEM), DC_FLOAT32, N_ELEM), &group, 1,
                              N_ELEM, DC_LOSS_L2, 1.0f);
        device_finish(d);
        for (int row = 0; row < N; row++)
            CHECK(row == 4 ? !std::isfinite(errors[row]) : errors[row] == wanted[row]);
        device_clear(d);
    }
}

/* Rows that begin more than 2^31 elements into the prediction. */
static void check_long_stride(device *d)
{
    enum { N_ELEM = 1100, N = 3 };
    const int64_t row_stride = (1LL << 30) + 1;
    std::vector<float> near(N * N_ELEM), x_start(N_ELEM, 0.25f);
    fill(near.data(), N * N_ELEM, 10);
    dc_group group = {};
    group.x_start = x_start.data(), group.key = {1, 2, 3}, group.eps_sign = 1.0f, group.p = group.q = 1.0f, group.n_rows = N;
    double wanted[N], *errors = device_new<double>(d, N);
    d->host->eps_error(d->host, wanted, dense(near.data(), DC_FLOAT32, N_ELEM), &group, 1, N_ELEM, DC_LOSS_L1, 1.0f);
    float *far = device_new<float>(d, (N - 1) * row_stride + N_ELEM);
    for (int row = 0; row < N; row++)
        CHECK(d->backend->device->upload(d->backend, far + row * row_stride, &near[(size_t)row * N_ELEM],
                                         N_ELEM * (int64_t)sizeof(float), NULL) == DC_OK);
    group.x_start = device_put(d, x_start.data(), N_ELEM);
    d->backend->eps_error(d->backend, errors, dense(far, DC_FLOAT32, row_stride), &group, 1, N_ELEM, DC_LOSS_L1, 1.0f);
    device_finish(d);
    CHECK(memcmp(errors, wanted, sizeof wanted) == 0);
    device_clear(d);
}

/* The last block of a row of 2^31 + 2048 elements; the kernel that adds the blocks up is kept from running. */
static void check_long_row(device *d)
{
    enum { BLOCK = 1024 };
    const int64_t n_elem = (1LL << 31) + 2048, first = n_elem - BLOCK;
    float image[BLOCK], noise[BLOCK], answer[BLOCK];
    double wanted;
    dc_error err = {};
    dc_group group = {};
    fill(image, BLOCK, 11);
    fill(answer, BLOCK, 12);
    group.key = {5, 6, 7}, group.eps_sign = -1.0f, group.p = 0.5f, group.q = 1.5f, group.n_rows = 1;
    d->host->noise(d->host, noise, group.key, first, BLOCK);
    group.x_start = image, group.eps = noise;
    d->host->eps_error(d->host, &wanted, dense(answer, DC_FLOAT32, BLOCK), &group, 1, BLOCK, DC_LOSS_L2, 1.0f);
    CHECK(d->backend->device->reserve(d->backend, 1, n_elem, &err) == DC_OK);
    float *x_start = device_new<float>(d, n_elem), *prediction = device_new<float>(d, n_elem);
    for (int64_t at : {(int64_t)0, first}) {
        CHECK(d->backend->device->upload(d->backend, x_start + at, image, sizeof image, &err) == DC_OK);
        CHECK(d->backend->device->upload(d->backend, prediction + at, answer, sizeof answer, &err) == DC_OK);
    }
    group.x_start = x_start, group.eps = NULL;
    shim_set_ends(1);
    shim_fail("cudaLaunchKernelEx", 1, cudaErrorInvalidValue);
    d->backend->eps_error(d->backend, NULL, dense(prediction, DC_FLOAT32, n_elem), &group, 1, n_elem, DC_LOSS_L2, 1.0f);
    CHECK(cudaStreamSynchronize(d->stream) == cudaSuccess && shim_reports() == 0);
    CHECK(dc_cuda_of(d->backend)->sums[n_elem / BLOCK - 1] / (double)BLOCK == wanted);
    shim_set_ends(0);
    device_clear(d);
}

int main()
{
    device d = device_open(N_ROWS, 1024 * 40);
    int i = 0;
    for (int64_t n_elem : SIZES)
        for (dc_dtype dtype : DTYPES)
            for (dc_loss loss : LOSSES) {
                const int64_t strides[] = {n_elem, n_elem + 1, 2 * n_elem, n_elem + 8};
                shim_set_order((shim_order)(i % 3));
                check_case(&d, n_elem, strides[i % 4], dtype, loss, i / 4 % 4);
                i++;
            }
    for (dc_dtype dtype : DTYPES) /* more blocks than a warp reads at a time */
        check_case(&d, 1024 * 34 + 5, 1024 * 34 + 8, dtype, DC_LOSS_L2, 0), i++;
    for (dc_dtype dtype : DTYPES) {
        check_channels_last(&d, 3, 7, dtype, 0, 0);
        check_channels_last(&d, 4, 520, dtype, 4, 1);
        check_channels_last(&d, 1, 1030, dtype, 1, 3);
        check_channels_last(&d, 340, 3, dtype, 0, 2);
    }
    check_order(&d);
    check_non_finite(&d);
    if (shim_has_room(3LL << 32))
        check_long_stride(&d);
    if (!shim_is_real()) /* it looks at sums before they are added up */
        check_long_row(&d); /* last: the backend has failed afterwards */
    device_close(&d);
    return device_done();
}
