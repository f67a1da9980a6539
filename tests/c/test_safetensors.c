/* The weights reader: what a good file says, and that a bad one is refused with the reason, never read beyond its end. */
#include <stdlib.h>
#include <string.h>

#include "dit/safetensors.h"
#include "test.h"

/* A file in memory of exactly its size: a sanitizer sees one byte too many. */
typedef struct file {
    char *bytes;
    int64_t n_bytes;
} file;

/* Header text, as long as it claims to be (or `claim`, when not negative), then data. */
static file make_file(const char *header, int64_t claim, const void *data, size_t n_data)
{
    size_t length = strlen(header);
    uint64_t told = claim < 0 ? length : (uint64_t)claim;
    file f = {malloc(8 + length + n_data), (int64_t)(8 + length + n_data)};
    for (int i = 0; i < 8; i++)
        f.bytes[i] = (char)(told >> 8 * i);
    memcpy(f.bytes + 8, header, length);
    if (n_data > 0)
        memcpy(f.bytes + 8 + length, data, n_data);
    return f;
}

/* ---- a good file ------------------------------------------------------------------------------------------------- */

static const char GOOD[] =
    " {\"__metadata__\": {\"format\": \"pt\", \"a \\\"quoted\\\" key\": \"\\u00e9 \xc3\xa9\"},\n"
    "\t\"doubles\":{\"data_offsets\":[18,34],\"dtype\":\"F64\",\"shape\":[2,1]} ,\r\n"
    "\"halves\": {\"dtype\": \"F16\", \"shape\": [2], \"data_offsets\": [12, 16]},\n"
    "\"nothing\": {\"dtype\": \"F32\", \"shape\": [3, 0], \"data_offsets\": [12, 12]},\n"
    "\"scalar\": {\"dtype\": \"BF16\", \"shape\": [], \"data_offsets\": [16, 18]},\n"
    "\"floats\": {\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, 12]}}   ";

static file good_file(void)
{
    const float floats[3] = {1.5f, -0.0f, 3e38f};
    const uint16_t halves[2] = {0xc000, 0x0001}, scalar = 0x4049; /* -2, 2^-24; 3.140625 */
    const double doubles[2] = {0.1, -1e-50};
    char data[34];
    memcpy(data, floats, 12);
    memcpy(data + 12, halves, 4);
    memcpy(data + 16, &scalar, 2);
    memcpy(data + 18, doubles, 16);
    return make_file(GOOD, -1, data, sizeof data);
}

static void check_tensor(const dc_tensors *tensors, const char *name, dc_dtype dtype, int n_dims, int64_t n_items,
                         const float *items)
{
    float got[3];
    dc_error err = {0};
    const dc_tensor *tensor = dc_tensors_find(tensors, name);
    CHECK(tensor != NULL);
    if (tensor == NULL)
        return;
    CHECK(tensor->dtype == dtype && tensor->n_dims == n_dims && tensor->n_items == n_items);
    CHECK(dc_tensor_to_float(got, tensor, 0, n_items, &err) == DC_OK);
    CHECK(n_items == 0 || memcmp(got, items, (size_t)n_items * sizeof *items) == 0); /* the sign of zero too */
    for (int64_t i = 0; i < n_items; i++) {
        CHECK(dc_tensor_to_float(got, tensor, i, 1, &err) == DC_OK);
        CHECK(memcmp(got, items + i, sizeof *items) == 0);
    }
}

static void check_good_file(void)
{
    file f = good_file();
    dc_tensors tensors;
    dc_error err = {0};
    CHECK(dc_tensors_read(&tensors, f.bytes, f.n_bytes, &err) == DC_OK);
    CHECK(tensors.n == 5 && tensors.items[0].begin == 0 && tensors.items[4].end == 34); /* by offset */
    check_tensor(&tensors, "floats", DC_FLOAT32, 1, 3, (float[]){1.5f, -0.0f, 3e38f});
    check_tensor(&tensors, "halves", DC_FLOAT16, 1, 2, (float[]){-2.0f, 0x1p-24f});
    check_tensor(&tensors, "scalar", DC_BFLOAT16, 0, 1, (float[]){3.140625f});
    check_tensor(&tensors, "doubles", DC_FLOAT64, 2, 2, (float[]){0.1f, -0.0f});
    check_tensor(&tensors, "nothing", DC_FLOAT32, 2, 0, NULL);
    CHECK(dc_tensors_find(&tensors, "nothing")->shape[0] == 3 && dc_tensors_find(&tensors, "nothing")->shape[1] == 0);
    CHECK(dc_tensors_find(&tensors, "float") == NULL && dc_tensors_find(&tensors, "") == NULL);
    dc_tensors_clear(&tensors);
    dc_tensors_clear(&tensors);
    free(f.bytes);
    f = make_file("{}", -1, NULL, 0);
    CHECK(dc_tensors_read(&tensors, f.bytes, f.n_bytes, &err) == DC_OK && tensors.n == 0);
    dc_tensors_clear(&tensors);
    free(f.bytes);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void check_refused(file f, const char *words)
{
    dc_tensors tensors;
    dc_error err = {0};
    CHECK(dc_tensors_read(&tensors, f.bytes, f.n_bytes, &err) == DC_ERR_FORMAT);
    CHECK(tensors.items == NULL && tensors.n == 0);
    CHECK(strstr(err.message, words) != NULL);
    if (strstr(err.message, words) == NULL)
        printf("  \"%s\" has no \"%s\"\n", err.message, words);
    free(f.bytes);
}

#define ENTRY(dtype, shape, offsets) "{\"dtype\": \"" dtype "\", \"shape\": " shape ", \"data_offsets\": " offsets "}"
#define ONE(dtype, shape, offsets) "{\"w\": " ENTRY(dtype, shape, offsets) "}"
#define TWO(shape, first, second) "{\"w\": " ENTRY("F32", shape, first) ", \"v\": " ENTRY("F32", shape, second) "}"

/* Each with eight bytes of data. */
static const struct {
    const char *header, *words;
} BAD[] = {
    {"", "not a JSON object"},
    {"[]", "not a JSON object"},
    {"{", "breaks off after tensor 0"},
    {"{\"w", "breaks off after tensor 0"},
    {"{\"w\"", "breaks off"},
    {"{\"w\": 3}", "tensor w of the weights file has no valid"},
    {"{\"w\": {}}", "no valid"},
    {"{\"w\": {\"dtype\": \"F32\", \"shape\": [2]}}", "no valid"},
    {"{\"w\": {\"dtype\": \"F32\", \"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", "no valid"},
    {"{\"w\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8], \"more\": 1}}", "no valid"},
    {ONE("I32", "[2]", "[0, 8]"), "no valid dtype (F64, F32, F16, BF16)"},
    {ONE("f32", "[2]", "[0, 8]"), "no valid"},
    {ONE("F32 and more", "[2]", "[0, 8]"), "no valid"},
    {ONE("F32", "2", "[0, 8]"), "no valid"},
    {ONE("F32", "[-2]", "[0, 8]"), "no valid"},
    {ONE("F32", "[2.0]", "[0, 8]"), "no valid"},
    {ONE("F32", "[02]", "[0, 8]"), "no valid"},
    {ONE("F32", "[2e0]", "[0, 8]"), "no valid"},
    {ONE("F32", "[2,]", "[0, 8]"), "no valid"},
    {ONE("F32", "[1,1,1,1,1,1,1,1,2]", "[0, 8]"), "no valid"},
    {ONE("F32", "[99999999999999999999999]", "[0, 8]"), "no valid"},
    {ONE("F32", "[4611686018427387904, 4]", "[0, 8]"), "no valid"},
    {ONE("F32", "[2147483648, 4294967296]", "[0, 8]"), "the shape of tensor w overflows"},
    {ONE("F32", "[1073741824, 4294967296]", "[0, 8]"), "the size of tensor w overflows"},
    {ONE("F32", "[2]", "[0]"), "no valid"},
    {ONE("F32", "[2]", "[0, 8, 16]"), "no valid"},
    {ONE("F32", "[2]", "[-8, 8]"), "no valid"},
    {ONE("F32", "[2]", "[8, 0]"), "claims bytes 8 to 0 of 8; its shape needs 8 bytes from 0 on"},
    {ONE("F32", "[2]", "[0, 4]"), "claims bytes 0 to 4"},
    {ONE("F32", "[2]", "[4, 12]"), "claims bytes 4 to 12"},
    {ONE("F32", "[3]", "[0, 12]"), "claims bytes 0 to 12 of 8"},
    {ONE("F32", "[2]", "[288230376151711744, 288230376151711752]"), "claims bytes 288230376151711744"},
    {ONE("F64", "[2]", "[0, 8]"), "needs 16 bytes"},
    {ONE("F32", "[1]", "[0, 4]"), "has 8 bytes of data, its tensors cover 4"},
    {TWO("[2]", "[0, 8]", "[0, 8]"), "claims bytes 0 to 8"},
    {TWO("[1]", "[0, 4]", "[2, 6]"), "claims bytes 2 to 6"},
    {"{\"w\": " ENTRY("F32", "[1]", "[0, 4]") ", \"w\": " ENTRY("F32", "[1]", "[4, 8]") "}", "has tensor w twice"},
    {ONE("F32", "[2]", "[0, 8]") "x", "text after its object"},
    {ONE("F32", "[2]", "[0, 8]") "{}", "text after its object"},
    {"{\"w\": " ENTRY("F32", "[2]", "[0, 8]"), "does not end after 1"},
    {"{\"w\": " ENTRY("F32", "[2]", "[0, 8]") ",}", "breaks off after tensor 1"},
    {"{\"\xc3\xa9\": " ENTRY("F32", "[2]", "[0, 8]") "}", "breaks off after tensor 0"},
    {"{\"a\\nb\": " ENTRY("F32", "[2]", "[0, 8]") "}", "breaks off after tensor 0"},
    {"{\"__metadata__\": {\"a\": 1}}", "__metadata__ is not an object of strings"},
    {"{\"__metadata__\": {\"a\": {\"b\": \"c\"}}}", "__metadata__ is not"},
    {"{\"__metadata__\": \"a\"}", "__metadata__ is not"},
    {"{\"__metadata__\": {\"a\": \"b\\", "__metadata__ is not"},
    {"{\"__metadata__\": {\"a\": \"line\nbreak\"}}", "__metadata__ is not"},
};

static void check_bad_headers(void)
{
    static const char data[8];
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        check_refused(make_file(BAD[i].header, -1, data, sizeof data), BAD[i].words);
}

static void check_bad_lengths(void)
{
    static const char data[8];
    const char *header = ONE("F32", "[2]", "[0, 8]");
    int64_t length = (int64_t)strlen(header);
    check_refused(make_file(header, length + 9, data, 8), "claims a header of");
    check_refused(make_file(header, INT64_MAX, data, 8), "claims a header of 9223372036854775807 bytes");
    check_refused(make_file(header, (int64_t)100 << 20, data, 8), "a header may have 16777216");
    check_refused(make_file(header, length - 1, data, 8), "does not end");
    check_refused(make_file(header, 0, data, 8), "not a JSON object");
    file f = make_file(header, 0, data, 8);
    memset(f.bytes, 0xff, 8);
    check_refused(f, "claims a header of 18446744073709551615 bytes");
}

static void check_limits_of_names_and_numbers(void)
{
    char header[300], name[DC_TENSOR_NAME + 1];
    static char many[(DC_TENSORS_MAX + 1) * 80];
    dc_tensors tensors;
    for (int n = DC_TENSOR_NAME - 1; n <= DC_TENSOR_NAME; n++) {
        memset(name, 'n', sizeof name);
        name[n] = '\0';
        snprintf(header, sizeof header, "{\"%s\": " ENTRY("F32", "[0]", "[0, 0]") "}", name);
        file f = make_file(header, -1, NULL, 0);
        if (n == DC_TENSOR_NAME) {
            check_refused(f, "breaks off after tensor 0");
            continue;
        }
        CHECK(dc_tensors_read(&tensors, f.bytes, f.n_bytes, NULL) == DC_OK && dc_tensors_find(&tensors, name) != NULL);
        dc_tensors_clear(&tensors);
        free(f.bytes);
    }
    for (int n = DC_TENSORS_MAX; n <= DC_TENSORS_MAX + 1; n++) {
        size_t length = 0;
        for (int i = 0; i < n; i++)
            length += (size_t)sprintf(many + length, "%s\"%d\": " ENTRY("F16", "[0]", "[0, 0]"), i ? "," : "{", i);
        strcpy(many + length, "}");
        file f = make_file(many, -1, NULL, 0);
        if (n > DC_TENSORS_MAX) {
            check_refused(f, "more than 4096 tensors");
            continue;
        }
        CHECK(dc_tensors_read(&tensors, f.bytes, f.n_bytes, NULL) == DC_OK && tensors.n == n);
        dc_tensors_clear(&tensors);
        free(f.bytes);
    }
}

/* A good file cut anywhere is refused; with any one byte changed it is refused or read, within its bytes. */
static void check_every_cut_and_byte(void)
{
    static const char put[] = "\0\x01 \"\\{}[],:-09eF\x7f\xff";
    file f = good_file();
    int cut_refused = 1, inside = 1, known = 1;
    dc_tensors tensors;
    for (int64_t n = 0; n < f.n_bytes; n++) {
        char *cut = malloc((size_t)n);
        if (n > 0)
            memcpy(cut, f.bytes, (size_t)n);
        cut_refused &= dc_tensors_read(&tensors, cut, n, NULL) == DC_ERR_FORMAT && tensors.items == NULL;
        free(cut);
    }
    for (int64_t at = 0; at < f.n_bytes; at++) {
        char before = f.bytes[at];
        for (size_t i = 0; i < sizeof put; i++) {
            f.bytes[at] = put[i];
            dc_status status = dc_tensors_read(&tensors, f.bytes, f.n_bytes, NULL);
            known &= status == DC_OK || status == DC_ERR_FORMAT;
            for (int64_t j = 0; status == DC_OK && j < tensors.n; j++) {
                const dc_tensor *t = &tensors.items[j];
                const char *end = t->data + t->n_items * (int64_t)dc_dtype_bytes(t->dtype);
                inside &= t->n_items >= 0 && t->data >= f.bytes + 8 && end <= f.bytes + f.n_bytes;
            }
            dc_tensors_clear(&tensors);
        }
        f.bytes[at] = before;
    }
    CHECK(cut_refused && inside && known);
    free(f.bytes);
}

static void check_values_that_are_not_finite(void)
{
    const float floats[2] = {1.0f, NAN};
    const double too_large[1] = {1e39};
    const uint16_t infinite[4] = {0, 0, 0, 0x7c00}, brain[4] = {0, 0xff80, 0, 0};
    const struct {
        const char *header;
        const void *data;
        int item;
    } cases[] = {
        {ONE("F32", "[2]", "[0, 8]"), floats, 1},
        {ONE("F64", "[1]", "[0, 8]"), too_large, 0},
        {ONE("F16", "[4]", "[0, 8]"), infinite, 3},
        {ONE("BF16", "[2, 2]", "[0, 8]"), brain, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        file f = make_file(cases[i].header, -1, cases[i].data, 8);
        dc_tensors tensors;
        dc_error err = {0};
        float out[4];
        char words[64];
        snprintf(words, sizeof words, "tensor w of the weights file is not finite at item %d", cases[i].item);
        CHECK(dc_tensors_read(&tensors, f.bytes, f.n_bytes, &err) == DC_OK);
        for (int first = 0; first <= cases[i].item; first++) { /* a part's first item is not the tensor's */
            int64_t count = tensors.items[0].n_items - first;
            err = (dc_error){0};
            CHECK(dc_tensor_to_float(out, &tensors.items[0], first, count, &err) == DC_ERR_FORMAT);
            CHECK(strcmp(err.message, words) == 0);
        }
        dc_tensors_clear(&tensors);
        free(f.bytes);
    }
}

int main(void)
{
    check_good_file();
    check_bad_headers();
    check_bad_lengths();
    check_limits_of_names_and_numbers();
    check_every_cut_and_byte();
    check_values_that_are_not_finite();
    return test_done();
}
