/* cuda/linear.cu, attention.cu and dit_operations.cu against the CPU's operations, in every precision: numbers go in rounded to
 * it, so what may differ is the rounding of what comes out, and the order of sums. */
#include "device.h"
#include "cuda/dit_context.h"
#include "lt_double.h"

extern "C" {
#include "dit/operations.h"
}
#include "formulas/rounding.h"
#include <string>

static const dc_precision PRECISIONS[] = {DC_PRECISION_FLOAT32, DC_PRECISION_TF32, DC_PRECISION_FLOAT16, DC_PRECISION_BFLOAT16};

static float rounded(float value, dc_precision precision)
{
    return precision == DC_PRECISION_FLOAT16    ? dc_float16_to_float(dc_round_float16(value))
           : precision == DC_PRECISION_BFLOAT16 ? dc_bfloat16_to_float(dc_round_bfloat16(value))
                                                : value;
}

static float read(const void *data, int64_t i, dc_precision precision)
{
    return precision == DC_PRECISION_FLOAT16    ? dc_float16_to_float(((const uint16_t *)data)[i])
           : precision == DC_PRECISION_BFLOAT16 ? dc_bfloat16_to_float(((const uint16_t *)data)[i])
                                                : ((const float *)data)[i];
}

/* What rounding to it may cost, relative: half a unit in the last of 11 or 8 digits. */
static double unit_of(dc_precision precision)
{
    return precision == DC_PRECISION_FLOAT16 ? 0x1p-11 : precision == DC_PRECISION_BFLOAT16 ? 0x1p-8 : 0.0;
}

static std::vector<float> rounded(std::vector<float> values, dc_precision precision)
{
    for (float &value : values)
        value = rounded(value, precision);
    return values;
}

/* On the device in that precision, `offset` items behind a multiple of 16 bytes. */
static void *put_narrow(device *d, const std::vector<float> &values, dc_precision precision, int64_t offset = 0)
{
    if (dc_precision_bytes(precision) == 4)
        return device_put(d, values.data(), (int64_t)values.size(), offset);
    std::vector<uint16_t> bits;
    for (float value : values)
        bits.push_back(precision == DC_PRECISION_FLOAT16 ? dc_round_float16(value) : dc_round_bfloat16(value));
    return device_put(d, bits.data(), (int64_t)bits.size(), offset);
}

static void *new_narrow(device *d, int64_t count, dc_precision precision, int64_t offset = 0)
{
    return device_new<char>(d, count * dc_precision_bytes(precision), offset * dc_precision_bytes(precision));
}

/* Everything is there, and nothing is further from what is wanted than its rounding and `slack` of the largest. */
static void check_same(device *d, const void *got, const std::vector<float> &wanted, dc_precision precision, double slack,
                       const char *what)
{
    double worst = 0.0, largest = 1.0; /* what cancels was of the order of one */
    device_finish(d);
    for (float value : wanted)
        largest = fmax(largest, fabs(value));
    for (size_t i = 0; i < wanted.size(); i++) {
        double bound = unit_of(precision) * fabs(wanted[i]) + slack * largest + (precision == DC_PRECISION_FLOAT16 ? 0x1p-24 : 0.0);
        double error = fabs((double)read(got, (int64_t)i, precision) - wanted[i]) / bound;
        worst = error <= worst ? worst : error; /* a NaN is the worst */
    }
    CHECK_CLOSE(worst, 0.0, 1.0);
    if (!(worst <= 1.0))
        printf("%s, precision %d: %g times what is allowed\n", what, (int)precision, worst);
}

/* ---- rounding ------------------------------------------------------------------------------------------------------ */

/* Every float16 and what lies between two of them, against the compiler's own conversion; brain floats against the nearer
 * neighbour.  Through the kernels, by way of patches of one pixel. */
static void check_rounding(device *d)
{
    std::vector<float> values;
    for (uint32_t bits = 0; bits < 0x7c00; bits += 7) {
        float low = dc_float16_to_float((uint16_t)bits), high = bits < 0x7bff ? dc_float16_to_float((uint16_t)(bits + 1)) : 65536.0f;
        float middle = low + (high - low) / 2;
        for (float value : {low, middle, std::nextafterf(middle, 0.0f), std::nextafterf(middle, 1e9f)})
            values.push_back(bits % 2 ? -value : value);
    }
    for (float value : {65519.0f, 65520.0f, 1e30f, -1e-9f, 3e38f, INFINITY, -INFINITY, 1e-41f, 0x1p-25f, 0x1.000002p-25f})
        values.push_back(value);
    while (values.size() % 16 != 0)
        values.push_back(0.0f);
    const int64_t n = (int64_t)values.size() / 16;
    std::vector<int64_t> rows((size_t)n);
    for (int64_t i = 0; i < n; i++)
        rows[(size_t)i] = i;
    const float *x = device_put(d, values.data(), 16 * n);
    const int64_t *row_of = device_put(d, rows.data(), n);
    uint16_t *half = device_new<uint16_t>(d, 16 * n), *brain = device_new<uint16_t>(d, 16 * n);
    d->backend->dit->patchify(d->backend, half, x, row_of, n, {4, 4, 1}, DC_PRECISION_FLOAT16);
    d->backend->dit->patchify(d->backend, brain, x, row_of, n, {4, 4, 1}, DC_PRECISION_BFLOAT16);
    device_finish(d);
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < 16 * n; i++) {
        _Float16 wanted = (_Float16)values[(size_t)i];
        n_wrong += memcmp(&wanted, &half[i], sizeof wanted) != 0;
        uint32_t bits;
        memcpy(&bits, &values[(size_t)i], sizeof bits);
        uint16_t low = (uint16_t)(bits >> 16);
        double below = dc_bfloat16_to_float(low), above = dc_bfloat16_to_float((uint16_t)(low + 1)), value = values[(size_t)i];
        above = std::isinf(above) && !std::isinf(below) ? copysign(0x1p128, below) : above;
        bool is_nearer = fabs(value - below) < fabs(above - value) || (fabs(value - below) == fabs(above - value) && low % 2 == 0);
        n_wrong += brain[i] != (std::isinf(value) || is_nearer ? low : (uint16_t)(low + 1));
    }
    CHECK(n_wrong == 0);
    device_clear(d);
}

/* ---- modulate ------------------------------------------------------------------------------------------------------ */

static void check_modulate(device *d, int64_t hidden, dc_precision precision, int64_t offset)
{
    const dc_tokens tokens = {3, 5, hidden, precision};
    const int64_t n_rows = tokens.n_images * tokens.n_tokens, stride = 2 * hidden + 4 * offset, row_of[] = {1, 3, 1};
    std::vector<float> x = random_floats(n_rows * hidden, 1.0f, 1), table = random_floats(4 * stride, 1.0f, 2);
    std::vector<float> wanted((size_t)(n_rows * hidden));
    for (size_t i = 0; i < x.size(); i++)
        x[i] = x[i] * ((int64_t)i / hidden % 2 ? 0.01f : 2.0f) + ((int64_t)i / hidden % 3 ? 0.0f : 1.0f);
    d->host->dit->modulate(d->host, wanted.data(), x.data(), table.data(), table.data() + hidden, {row_of, stride}, 1e-5f, tokens);
    const float *there = device_put(d, table.data(), 4 * stride, offset);
    void *out = new_narrow(d, n_rows * hidden, precision, 3 * offset);
    d->backend->dit->modulate(d->backend, out, device_put(d, x.data(), n_rows * hidden, offset), there, there + hidden,
                              {device_put(d, row_of, 3), stride}, 1e-5f, tokens);
    check_same(d, out, wanted, precision, 3e-5, "modulate"); /* a mean of 1 and a deviation of 0.006: a unit, 170 times */
    device_clear(d);
}

/* ---- attention ----------------------------------------------------------------------------------------------------- */

static void check_attention(device *d, int64_t n_tokens, int64_t n_heads, int64_t head_dim, dc_precision precision, float size)
{
    const dc_tokens tokens = {2, n_tokens, n_heads * head_dim, precision};
    const int64_t total = tokens.n_images * n_tokens * tokens.hidden;
    std::vector<float> qkv = random_floats(3 * total, 1.0f, 1), wanted((size_t)total);
    for (size_t i = 0; i < qkv.size(); i++)
        qkv[i] *= (int64_t)i % (3 * tokens.hidden) < 2 * tokens.hidden ? size : 1.0f;
    qkv = rounded(qkv, precision);
    std::vector<float> scratch((size_t)dc_attention_scratch(n_tokens, head_dim));
    d->host->dit->attention(d->host, wanted.data(), qkv.data(), scratch.data(), n_heads, tokens);
    void *out = new_narrow(d, total, precision, 1);
    d->backend->dit->attention(d->backend, out, put_narrow(d, qkv, precision, 1), NULL, n_heads, tokens);
    check_same(d, out, wanted, precision, 1e-6 + 0x1p-23 * size * size * sqrt((double)head_dim), "attention");
    device_clear(d);
}

/* ---- linear -------------------------------------------------------------------------------------------------------- */

/* Panels as dit/operations.h says, from weight (n_out, n_in). */
static std::vector<float> packed(const std::vector<float> &weight, int64_t n_in, int64_t n_out)
{
    std::vector<float> panels((size_t)(dc_panels(n_out) * n_in * DC_PANEL));
    for (int64_t j = 0; j < n_out; j++)
        for (int64_t k = 0; k < n_in; k++)
            panels[(size_t)((j / DC_PANEL * n_in + k) * DC_PANEL + j % DC_PANEL)] = weight[(size_t)(j * n_in + k)];
    return panels;
}

static void check_linear(device *d, int64_t n_rows, int64_t n_in, int64_t n_out, dc_epilogue epilogue, dc_precision precision,
                         int64_t offset)
{
    static const int64_t CHOICE[] = {2, 0, 3, 1, 2, 0, 3, 1, 3};
    const bool is_gate = epilogue == DC_EPILOGUE_GATE, is_narrow = !is_gate && epilogue != DC_EPILOGUE_ADD && epilogue != DC_EPILOGUE_WIDE;
    const dc_precision of_y = is_narrow ? precision : DC_PRECISION_FLOAT32;
    const int64_t total = n_rows * n_out, stride = n_out + 4 * offset;
    dc_error err = {};
    std::vector<float> x = rounded(random_floats(n_rows * n_in, 1.0f, 1), precision), other = random_floats(4 * stride, 1.0f, 4);
    std::vector<float> weight = rounded(random_floats(n_out * n_in, 1.0f, 2), precision);
    std::vector<float> bias = rounded(random_floats(dc_panels(n_out) * DC_PANEL, 1.0f, 3), precision), y = random_floats(total, 1.0f, 5);
    std::vector<float> panels = packed(weight, n_in, n_out);
    dc_linear host = {}, placed = {};
    host.n_in = n_in, host.n_out = n_out, host.panels = panels.data(), host.bias = bias.data();
    CHECK(d->backend->dit->place(d->backend, &placed, &host, precision, &err) == DC_OK);
    CHECK(d->backend->dit->reserve(d->backend, n_rows * n_out * dc_precision_bytes(precision), 8, &err) == DC_OK);
    dc_finish finish = {epilogue, other.data(), stride, n_rows < 3 ? n_rows : 3, CHOICE};
    void *there = is_gate ? device_put(d, y.data(), total, offset) : new_narrow(d, total, of_y, offset);
    dc_finish on_device = finish;
    on_device.other = device_put(d, other.data(), 4 * stride, offset);
    on_device.other_of = device_put(d, CHOICE, 9);
    d->backend->dit->linear(d->backend, there, put_narrow(d, x, precision, offset), &placed, n_rows, on_device);
    d->host->dit->linear(d->host, y.data(), x.data(), &host, n_rows, finish);
    /* a gated product is rounded before it is gated, silu's input before its output, TF32 before the product */
    const double branch = is_gate || epilogue == DC_EPILOGUE_SILU ? unit_of(precision) : 0.0;
    const double products = precision == DC_PRECISION_TF32 ? 0x1p-10 * sqrt((double)n_in) : 3e-6;
    check_same(d, there, y, of_y, branch + products, std::to_string(epilogue).c_str());
    device_clear(d);
    for (void *memory : {placed.weight, placed.narrow_bias, (void *)placed.bias})
        d->backend->device->memory_free(d->backend, memory);
}

/* ---- embeddings, pictures ------------------------------------------------------------------------------------------ */

static void check_embeddings(device *d, dc_precision precision)
{
    static const double times[] = {0.0, 1.0, 0.5, 37.0, 999.0};
    enum { N = 5, HIDDEN = 37, PAIRS = 4 };
    for (int shift = 0; shift < 2; shift++)
        for (int64_t size : {(int64_t)256, (int64_t)34}) {
            std::vector<float> wanted((size_t)(N * size));
            d->host->dit->timestep_embedding(d->host, wanted.data(), times, N, size, shift, precision);
            void *out = new_narrow(d, N * size, precision);
            d->backend->dit->timestep_embedding(d->backend, out, device_put(d, times, N), N, size, shift, precision);
            check_same(d, out, wanted, precision, 1e-4, "timestep_embedding"); /* a unit of the frequency, times 999 */
            device_clear(d);
        }
    static const int64_t time_of_pair[PAIRS] = {2, 0, 1, 2}, class_of_pair[PAIRS] = {0, 2, 1, 1};
    std::vector<float> of_time = random_floats(3 * HIDDEN, 5.0f, 1), table = random_floats(3 * HIDDEN, 5.0f, 2), wanted(PAIRS * HIDDEN);
    d->host->dit->condition(d->host, wanted.data(), of_time.data(), table.data(), time_of_pair, class_of_pair, PAIRS, HIDDEN, precision);
    void *c = new_narrow(d, PAIRS * HIDDEN, precision);
    d->backend->dit->condition(d->backend, c, device_put(d, of_time.data(), 3 * HIDDEN), device_put(d, table.data(), 3 * HIDDEN),
                               device_put(d, time_of_pair, PAIRS), device_put(d, class_of_pair, PAIRS), PAIRS, HIDDEN, precision);
    check_same(d, c, wanted, precision, 1e-6, "condition");
    device_clear(d);
}

static void check_pictures(device *d, dc_picture picture, dc_precision precision, int64_t offset)
{
    const int64_t n_elem = picture.channels * picture.size * picture.size, row_of[] = {3, 1, 1};
    std::vector<float> x = rounded(random_floats(4 * n_elem, 1.0f, 1), precision), wanted((size_t)(3 * n_elem));
    const float *there = device_put(d, x.data(), 4 * n_elem, offset);
    const int64_t *index = device_put(d, row_of, 3);
    d->host->dit->patchify(d->host, wanted.data(), x.data(), row_of, 3, picture, precision);
    void *patches = new_narrow(d, 3 * n_elem, precision);
    d->backend->dit->patchify(d->backend, patches, there, index, 3, picture, precision);
    device_finish(d);
    int same = 1;
    for (int64_t i = 0; i < 3 * n_elem; i++)
        same &= read(patches, i, precision) == wanted[(size_t)i];
    float *out = device_new<float>(d, 3 * n_elem, offset);
    for (int gathers = 0; gathers < 2; gathers++) {
        if (gathers) {
            d->host->dit->gather(d->host, wanted.data(), x.data(), row_of, 3, n_elem);
            d->backend->dit->gather(d->backend, out, there, index, 3, n_elem);
        } else {
            d->host->dit->unpatchify(d->host, wanted.data(), x.data(), 3, picture);
            d->backend->dit->unpatchify(d->backend, out, there, 3, picture);
        }
        device_finish(d);
        same &= memcmp(out, wanted.data(), wanted.size() * sizeof(float)) == 0;
    }
    CHECK(same);
    device_clear(d);
}

/* More than fits in the ring at once, before anybody waits: the last is not written over the first. */
static void check_sends(device *d)
{
    enum { N = 3 * 8 + 1 };
    int64_t *there[N];
    dc_error err = {};
    CHECK(d->backend->dit->reserve(d->backend, 1, 24, &err) == DC_OK);
    for (int64_t i = 0; i < N; i++) {
        int64_t numbers[3] = {i, -i, 7};
        there[i] = device_new<int64_t>(d, 3);
        d->backend->dit->send(d->backend, there[i], numbers, sizeof numbers);
        memset(numbers, 0xff, sizeof numbers);
        if (i == DC_SENDS - 1)
            CHECK(there[0][0] == -1); /* nobody has waited: nothing has run */
    }
    device_finish(d);
    for (int64_t i = 0; i < N; i++)
        CHECK(there[i][0] == i && there[i][1] == -i && there[i][2] == 7);
    device_clear(d);
}

/* More than was reserved is an error, not a crash. */
static void check_reserved()
{
    device d = device_open(1, 1);
    dc_lt lt = lt_double();
    dc_error err = {};
    float panels[DC_PANEL] = {}, bias[DC_PANEL] = {};
    dc_linear host = {}, placed = {};
    char number = 0;
    host.n_in = host.n_out = 1, host.panels = panels, host.bias = bias;
    CHECK(dc_cuda_dit_open(d.backend, &lt, &err) == DC_OK);
    CHECK(dc_cuda_dit_open(d.backend, &lt, &err) == DC_OK); /* again is nothing */
    CHECK(d.backend->dit->place(d.backend, &placed, &host, DC_PRECISION_FLOAT32, &err) == DC_OK);
    dc_finish gate = {};
    gate.epilogue = DC_EPILOGUE_GATE;
    d.backend->dit->linear(d.backend, panels, panels, &placed, 1, gate);
    CHECK(d.backend->device->check(d.backend, &err) == DC_ERR_DEVICE && strstr(err.message, "larger than what was reserved") != NULL);
    for (void *memory : {placed.weight, placed.narrow_bias, (void *)placed.bias})
        d.backend->device->memory_free(d.backend, memory);
    device_close(&d);
    d = device_open(1, 1);
    CHECK(dc_cuda_dit_open(d.backend, &lt, &err) == DC_OK);
    d.backend->dit->send(d.backend, NULL, &number, 1);
    CHECK(d.backend->device->check(d.backend, &err) == DC_ERR_DEVICE && strstr(err.message, "more numbers than were reserved") != NULL);
    device_close(&d);
}

static void check_loading()
{
    device d = device_open(1, 1);
    dc_error err = {};
    CHECK(dc_cuda_open_products(d.backend, "/no/such/libcublasLt.so", &err) == DC_ERR_DEVICE);
    CHECK(strstr(err.message, "cuBLASLt can not be loaded") != NULL && strstr(err.message, "/no/such/libcublasLt.so") != NULL);
    CHECK(dc_cuda_open_products(d.backend, "libm.so.6", &err) == DC_ERR_DEVICE);
    CHECK(strstr(err.message, "libm.so.6 has no cublasLtCreate") != NULL && d.backend->dit == NULL);
    device_close(&d);
}

int main()
{
    device d = device_open(1, 1);
    dc_lt lt = lt_double();
    dc_error err = {};
    int order = 0;
    CHECK(dc_cuda_dit_open(d.backend, &lt, &err) == DC_OK);
    check_rounding(&d);
    for (dc_precision precision : PRECISIONS) {
        for (int epilogue = DC_EPILOGUE_NONE; epilogue <= DC_EPILOGUE_GATE; epilogue++) {
            check_linear(&d, 1, 1, 1, (dc_epilogue)epilogue, precision, 0);
            check_linear(&d, 7, 5, 33, (dc_epilogue)epilogue, precision, 1);
            check_linear(&d, 9, 40, 64, (dc_epilogue)epilogue, precision, 0);
            check_linear(&d, 3, 16, 1100, (dc_epilogue)epilogue, precision, epilogue % 2); /* more than a block of threads at once */
        }
        if (precision == DC_PRECISION_TF32) /* float32 everywhere but in a product */
            continue;
        check_embeddings(&d, precision);
        check_pictures(&d, {6, 2, 3}, precision, 0);
        check_pictures(&d, {15, 5, 1}, precision, 1);
        check_pictures(&d, {34, 2, 1}, precision, 0); /* more than one block of threads a row */
        for (int64_t hidden : {1, 5, 33, 128, 384, 516, 768, 1152, 1300})
            for (int64_t offset = 0; offset < 2; offset++) {
                shim_set_order((shim_order)(order++ % 3));
                check_modulate(&d, hidden, precision, offset);
            }
        for (int64_t n_tokens : {1, 7, 33, 70})
            for (int64_t head_dim : {1, 5, 32}) {
                shim_set_order((shim_order)(order++ % 3));
                check_attention(&d, n_tokens, 1 + n_tokens % 3, head_dim, precision, 2.0f);
            }
        check_attention(&d, 40, 2, 72, precision, 2.0f);
        check_attention(&d, 33, 1, 130, precision, 1.0f); /* two blocks of threads a head */
        check_attention(&d, 40, 1, 32, precision, 20.0f); /* scores of hundreds: exp alone would overflow */
        if (test_n_failed > 0)
            break; /* the other precisions would say it again */
    }
    check_sends(&d);
    device_close(&d);
    check_reserved();
    check_loading();
    CHECK(lt_double_live() == 0 && lt_double_products() > 0);
    return device_done();
}
