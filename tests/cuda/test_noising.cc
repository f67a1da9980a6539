/* cuda/noising.cu against the CPU's noising, bit for bit. */
#include "device.h"

enum { N_GROUPS = 5 };

static const int64_t SIZES[] = {1, 3, 4, 5, 31, 33, 784, 1023, 1024, 1025, 2052, 3001};
static const int64_t ROWS[N_GROUPS] = {1, 3, 2, 7, 70}; /* the last is cut into pieces */
static const int64_t N_ROWS = 83;

/* Groups of every kind: made noise, its antithetic twin, given noise, given and turned, no signal at all. */
static void make_groups(dc_group *groups, const float *x_start, const float *eps, int64_t n_elem)
{
    for (int g = 0; g < N_GROUPS; g++) {
        dc_group group = {};
        group.x_start = x_start + g * n_elem;
        group.eps = g == 2 || g == 3 ? eps : NULL;
        group.key = {77, (uint32_t)g, 9};
        group.eps_sign = g % 2 ? -1.0f : 1.0f;
        group.alpha = g == 4 ? 0.0f : 0.8f - 0.1f * (float)g;
        group.sigma = g == 0 ? 0.0f : 0.6f + 0.1f * (float)g; /* -0 is a number too */
        group.n_rows = ROWS[g];
        groups[g] = group;
    }
}

static void check_size(device *d, int64_t n_elem, int64_t offset)
{
    dc_group groups[N_GROUPS];
    std::vector<float> x_start((size_t)(N_GROUPS * n_elem)), eps((size_t)n_elem), wanted((size_t)(N_ROWS * n_elem));
    fill(x_start.data(), N_GROUPS * n_elem, 3);
    fill(eps.data(), n_elem, 4);
    x_start[0] = -0.0f;
    make_groups(groups, x_start.data(), eps.data(), n_elem);
    d->host->noising(d->host, wanted.data(), groups, N_GROUPS, n_elem, PLAIN);
    float *x_t = device_new<float>(d, N_ROWS * n_elem, (offset + 1) % 4);
    make_groups(groups, device_put(d, x_start.data(), N_GROUPS * n_elem, offset), device_put(d, eps.data(), n_elem, offset / 2),
                n_elem);
    d->backend->noising(d->backend, x_t, groups, N_GROUPS, n_elem, PLAIN);
    memset(groups, 0xff, sizeof groups); /* they were taken over */
    device_finish(d);
    CHECK(memcmp(x_t, wanted.data(), wanted.size() * sizeof(float)) == 0);
    device_clear(d);
}

/* Every dtype and both layouts, rows at every alignment, against the CPU's, byte for byte. */
static void check_layout(device *d, int64_t n_channels, int64_t n_positions, dc_layout layout, int64_t offset)
{
    dc_group groups[N_GROUPS];
    int64_t n_elem = n_channels * n_positions, item = (int64_t)dc_dtype_bytes(layout.dtype);
    std::vector<float> x_start((size_t)(N_GROUPS * n_elem)), eps((size_t)n_elem);
    std::vector<char> wanted((size_t)(N_ROWS * n_elem * item));
    fill(x_start.data(), N_GROUPS * n_elem, 3);
    fill(eps.data(), n_elem, 4);
    for (float &value : x_start) /* overflow, and subnormal halves */
        value *= value > 0.99f ? 1e6f : value < -0.9f ? 1e-7f : 1.0f;
    make_groups(groups, x_start.data(), eps.data(), n_elem);
    d->host->noising(d->host, wanted.data(), groups, N_GROUPS, n_elem, layout);
    char *x_t = device_new<char>(d, N_ROWS * n_elem * item, offset * item);
    make_groups(groups, device_put(d, x_start.data(), N_GROUPS * n_elem), device_put(d, eps.data(), n_elem), n_elem);
    d->backend->noising(d->backend, x_t, groups, N_GROUPS, n_elem, layout);
    device_finish(d);
    CHECK(memcmp(x_t, wanted.data(), wanted.size()) == 0);
    device_clear(d);
}

static void check_layouts(device *d)
{
    static const int64_t shapes[][2] = {{3, 5}, {4, 256}, {1, 1030}, {16, 65}, {700, 2}};
    int64_t offset = 0;
    for (const auto &shape : shapes)
        for (dc_dtype dtype : {DC_FLOAT32, DC_FLOAT64, DC_FLOAT16, DC_BFLOAT16})
            for (int64_t n_positions : {(int64_t)0, shape[1]})
                check_layout(d, shape[0], shape[1], {dtype, n_positions}, offset++ % 3);
}

/* An x_t of more than 2^31 elements: in one row, and in three. */
static void check_long(device *d, int64_t n_elem, int64_t n_rows, int64_t n_channels)
{
    enum { END = 512 };
    float image[END], eps[END], wanted[END];
    dc_group group = {};
    fill(image, END, 5);
    float *x_start = device_new<float>(d, n_elem), *x_t = device_new<float>(d, n_rows * n_elem);
    for (int64_t first : {(int64_t)0, n_elem - END, n_elem / 1024 * 1024 - 2048, (int64_t)512, (int64_t)1024, (int64_t)1536}) {
        dc_error err = {};
        for (int64_t e = first; e < n_elem && e < first + 4096; e += END) {
            int64_t start = e + END <= n_elem ? e : n_elem - END;
            CHECK(d->backend->device->upload(d->backend, x_start + start, image, sizeof image, &err) == DC_OK);
        }
    }
    CHECK(d->backend->device->upload(d->backend, x_start + n_elem - END, image, sizeof image, NULL) == DC_OK);
    group.x_start = x_start;
    group.key = {1, 2, 3};
    group.eps_sign = 1.0f;
    group.alpha = 0.5f;
    group.sigma = 0.75f;
    group.n_rows = n_rows;
    shim_set_ends(2);
    const int64_t n_positions = n_channels == 1 ? 0 : n_elem / n_channels;
    d->backend->noising(d->backend, x_t, &group, 1, n_elem, {DC_FLOAT32, n_positions});
    device_finish(d);
    d->host->noise(d->host, eps, group.key, n_elem - END, END);
    for (int e = 0; e < END; e++)
        wanted[e] = dc_mix(group.alpha, image[e], group.sigma, eps[e]);
    for (int64_t row = 0; row < n_rows; row++)
        for (int64_t e = 0; e < END; e++) {
            int64_t position = n_positions - END + e; /* of the last channel */
            const float *end = x_t + (row + 1) * n_elem - END + e;
            CHECK((n_positions == 0 ? *end : x_t[row * n_elem + position * n_channels + n_channels - 1]) == wanted[e]);
        }
    shim_set_ends(0);
    device_clear(d);
}

/* Many batches before anybody waits: what was sent of the first is not written over by the last. */
static void check_many_at_once(device *d)
{
    enum { BATCHES = 11, N_ELEM = 9 };
    float x_start[N_ELEM], wanted[2 * N_ELEM], *x_t[BATCHES];
    dc_group group = {};
    fill(x_start, N_ELEM, 6);
    const float *there = device_put(d, x_start, N_ELEM);
    group.eps_sign = 1.0f, group.alpha = 0.5f, group.sigma = 2.0f, group.n_rows = 2;
    for (int i = 0; i < BATCHES; i++) {
        group.x_start = there;
        group.key = {1, (uint32_t)i, 3};
        x_t[i] = device_new<float>(d, 2 * N_ELEM);
        d->backend->noising(d->backend, x_t[i], &group, 1, N_ELEM, PLAIN);
    }
    device_finish(d);
    for (int i = 0; i < BATCHES; i++) {
        group.x_start = x_start;
        group.key = {1, (uint32_t)i, 3};
        d->host->noising(d->host, wanted, &group, 1, N_ELEM, PLAIN);
        CHECK(memcmp(x_t[i], wanted, sizeof wanted) == 0);
    }
    device_clear(d);
}

/* `from` may be written again when upload returns, pinned or not. */
static void check_upload(device *d)
{
    dc_results pinned = {};
    double pageable[3] = {1.0, 2.0, 3.0};
    CHECK(d->backend->device->results_new(d->backend, &pinned, 3, NULL) == DC_OK);
    for (double *from : {pageable, pinned.errors}) {
        memcpy(from, pageable, sizeof pageable);
        const double *to = device_put(d, from, 3);
        memset(from, 0xff, sizeof pageable);
        device_finish(d);
        CHECK(to[0] == 1.0 && to[1] == 2.0 && to[2] == 3.0);
        for (int i = 0; i < 3; i++)
            pageable[i] = i + 1.0;
    }
    d->backend->device->results_free(d->backend, &pinned);
    CHECK(pinned.errors == NULL && pinned.mark == NULL);
    d->backend->device->results_free(d->backend, &pinned);
    device_clear(d);
}

int main()
{
    device d = device_open(N_ROWS, 3001);
    int i = 0;
    for (int64_t n_elem : SIZES)
        for (int64_t offset = 0; offset < 4; offset++) {
            shim_set_order((shim_order)(i++ % 3));
            check_size(&d, n_elem, offset);
        }
    d.backend->noising(d.backend, NULL, NULL, 0, 5, PLAIN);
    device_finish(&d);
    check_layouts(&d);
    check_many_at_once(&d);
    check_upload(&d);
    if (shim_has_room(40LL << 30)) {
        CHECK(d.backend->device->reserve(d.backend, 3, (1LL << 32) + 2048, NULL) == DC_OK);
        check_long(&d, (1LL << 31) + 1003, 1, 1);
        check_long(&d, (1LL << 30) + 1004, 3, 1);
        check_long(&d, (1LL << 31) + 1002, 1, 2);
        check_long(&d, (1LL << 32) + 2048, 1, 4); /* too far for 32 bits, too */
    }
    device_close(&d);
    return device_done();
}
