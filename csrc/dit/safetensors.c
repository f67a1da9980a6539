#include "dit/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- the header's JSON ------------------------------------------------------------------------------------------- */

/* Where reading stands; every reader returns 0 at the first character it does not want. */
typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_space(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

static int read_char(cursor *c, char wanted)
{
    skip_space(c);
    if (c->at == c->end || *c->at != wanted)
        return 0;
    c->at++;
    return 1;
}

/* A string of plain ASCII without escapes into out[size]; NULL out: any string, skipped. */
static int read_string(cursor *c, char *out, size_t size)
{
    size_t length = 0;
    if (!read_char(c, '"'))
        return 0;
    for (; c->at < c->end && *c->at != '"'; c->at++) {
        if ((unsigned char)*c->at < 0x20)
            return 0;
        if (*c->at == '\\') {
            if (out != NULL || ++c->at == c->end)
                return 0;
        } else if (out != NULL) {
            if (length + 1 == size || (unsigned char)*c->at > 0x7e)
                return 0;
            out[length++] = *c->at;
        }
    }
    if (out != NULL)
        out[length] = '\0';
    return read_char(c, '"');
}

/* A non-negative integer below 2^62. */
static int read_integer(cursor *c, int64_t *out)
{
    skip_space(c);
    const char *start = c->at;
    int64_t value = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (value > ((int64_t)1 << 58))
            return 0;
        value = value * 10 + (*c->at - '0');
    }
    *out = value;
    return c->at > start && (c->at - start == 1 || *start != '0');
}

static int read_integers(cursor *c, int64_t *out, int *n, int max)
{
    *n = 0;
    if (!read_char(c, '['))
        return 0;
    if (read_char(c, ']'))
        return 1;
    do {
        if (*n == max || !read_integer(c, &out[(*n)++]))
            return 0;
    } while (read_char(c, ','));
    return read_char(c, ']');
}

static int read_dtype(cursor *c, dc_dtype *out)
{
    static const struct {
        char name[8];
        dc_dtype dtype;
    } known[] = {{"F32", DC_FLOAT32}, {"F64", DC_FLOAT64}, {"F16", DC_FLOAT16}, {"BF16", DC_BFLOAT16}};
    char name[8];
    if (!read_string(c, name, sizeof name))
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].dtype;
            return 1;
        }
    }
    return 0;
}

/* {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}, each key once, in any order. */
static int read_entry(cursor *c, dc_tensor *out)
{
    unsigned seen = 0;
    int64_t offsets[2];
    int n_offsets = 0;
    if (!read_char(c, '{'))
        return 0;
    do {
        char key[16];
        unsigned bit;
        int ok;
        if (!read_string(c, key, sizeof key) || !read_char(c, ':'))
            return 0;
        if (strcmp(key, "dtype") == 0) {
            bit = 1;
            ok = read_dtype(c, &out->dtype);
        } else if (strcmp(key, "shape") == 0) {
            bit = 2;
            ok = read_integers(c, out->shape, &out->n_dims, DC_TENSOR_DIMS);
        } else if (strcmp(key, "data_offsets") == 0) {
            bit = 4;
            ok = read_integers(c, offsets, &n_offsets, 2) && n_offsets == 2;
        } else {
            return 0;
        }
        if (!ok || (seen & bit))
            return 0;
        seen |= bit;
    } while (read_char(c, ','));
    if (seen != 7 || !read_char(c, '}'))
        return 0;
    out->begin = offsets[0];
    out->end = offsets[1];
    return 1;
}

/* {"key": "value", ...}: what wrote the file says about itself; not used. */
static int skip_metadata(cursor *c)
{
    if (!read_char(c, '{'))
        return 0;
    if (read_char(c, '}'))
        return 1;
    do {
        if (!read_string(c, NULL, 0) || !read_char(c, ':') || !read_string(c, NULL, 0))
            return 0;
    } while (read_char(c, ','));
    return read_char(c, '}');
}

static dc_status read_header(dc_tensors *tensors, cursor *c, dc_error *err)
{
    if (!read_char(c, '{'))
        return dc_error_set(err, DC_ERR_FORMAT, "the weights file's header is not a JSON object");
    if (read_char(c, '}'))
        return DC_OK;
    do {
        char name[DC_TENSOR_NAME];
        if (!read_string(c, name, sizeof name) || !read_char(c, ':'))
            return dc_error_set(err, DC_ERR_FORMAT, "the weights file's header breaks off after tensor %lld",
                                (long long)tensors->n);
        if (strcmp(name, "__metadata__") == 0) {
            if (!skip_metadata(c))
                return dc_error_set(err, DC_ERR_FORMAT, "the weights file's __metadata__ is not an object of strings");
            continue;
        }
        if (tensors->n == DC_TENSORS_MAX)
            return dc_error_set(err, DC_ERR_FORMAT, "the weights file has more than %d tensors", DC_TENSORS_MAX);
        dc_tensor *tensor = &tensors->items[tensors->n];
        if (!read_entry(c, tensor))
            return dc_error_set(err, DC_ERR_FORMAT,
                                "tensor %s of the weights file has no valid dtype (F64, F32, F16, BF16), shape and "
                                "data_offsets",
                                name);
        memcpy(tensor->name, name, sizeof name);
        tensors->n++;
    } while (read_char(c, ','));
    if (!read_char(c, '}'))
        return dc_error_set(err, DC_ERR_FORMAT, "the weights file's header does not end after %lld tensors",
                            (long long)tensors->n);
    skip_space(c);
    return c->at == c->end ? DC_OK
                           : dc_error_set(err, DC_ERR_FORMAT, "the weights file's header has text after its object");
}

/* ---- the data ---------------------------------------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const dc_tensor *x = a, *y = b;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin) : (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static dc_status check_names(const dc_tensors *tensors, dc_error *err)
{
    void *memory;
    dc_status status = dc_alloc(&memory, tensors->n, sizeof(char *), "the names", err);
    if (status != DC_OK)
        return status;
    const char **names = memory;
    for (int64_t i = 0; i < tensors->n; i++)
        names[i] = tensors->items[i].name;
    qsort(names, (size_t)tensors->n, sizeof *names, by_name);
    for (int64_t i = 1; i < tensors->n && status == DC_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = dc_error_set(err, DC_ERR_FORMAT, "the weights file has tensor %s twice", names[i]);
    dc_free(memory);
    return status;
}

/* Shapes fill their byte ranges, ranges follow one another without gap or overlap and end with the file. */
static dc_status place_data(dc_tensors *tensors, const char *data, int64_t n_bytes, dc_error *err)
{
    int64_t offset = 0;
    qsort(tensors->items, (size_t)tensors->n, sizeof *tensors->items, by_offset);
    for (int64_t i = 0; i < tensors->n; i++) {
        dc_tensor *tensor = &tensors->items[i];
        int64_t bytes = (int64_t)dc_dtype_bytes(tensor->dtype);
        tensor->n_items = 1;
        for (int d = 0; d < tensor->n_dims; d++)
            if (!dc_size_mul(&tensor->n_items, tensor->n_items, tensor->shape[d]))
                return dc_error_set(err, DC_ERR_FORMAT, "the shape of tensor %s overflows", tensor->name);
        if (!dc_size_mul(&bytes, bytes, tensor->n_items))
            return dc_error_set(err, DC_ERR_FORMAT, "the size of tensor %s overflows", tensor->name);
        if (tensor->begin != offset || tensor->end - tensor->begin != bytes || tensor->end > n_bytes)
            return dc_error_set(err, DC_ERR_FORMAT,
                                "tensor %s claims bytes %lld to %lld of %lld; its shape needs %lld bytes from %lld on",
                                tensor->name, (long long)tensor->begin, (long long)tensor->end, (long long)n_bytes,
                                (long long)bytes, (long long)offset);
        tensor->data = data + offset;
        offset = tensor->end;
    }
    if (offset != n_bytes)
        return dc_error_set(err, DC_ERR_FORMAT, "the weights file has %lld bytes of data, its tensors cover %lld",
                            (long long)n_bytes, (long long)offset);
    return DC_OK;
}

dc_status dc_tensors_read(dc_tensors *out, const void *file, int64_t n_bytes, dc_error *err)
{
    void *memory;
    const unsigned char *bytes = file;
    uint64_t header = 0;
    *out = (dc_tensors){0};
    if (n_bytes < 8)
        return dc_error_set(err, DC_ERR_FORMAT, "the weights file has %lld bytes, must have 8 or more",
                            (long long)n_bytes);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    if (header > (uint64_t)DC_HEADER_MAX || header > (uint64_t)n_bytes - 8)
        return dc_error_set(err, DC_ERR_FORMAT,
                            "the weights file claims a header of %llu bytes; it has %lld bytes, and a header may have %d",
                            (unsigned long long)header, (long long)n_bytes, DC_HEADER_MAX);
    dc_status status = dc_alloc(&memory, DC_TENSORS_MAX, sizeof(dc_tensor), "the tensor table", err);
    if (status != DC_OK)
        return status;
    out->items = memory;
    cursor c = {(const char *)file + 8, (const char *)file + 8 + header};
    if ((status = read_header(out, &c, err)) != DC_OK || (status = check_names(out, err)) != DC_OK ||
        (status = place_data(out, (const char *)file + 8 + header, n_bytes - 8 - (int64_t)header, err)) != DC_OK)
        dc_tensors_clear(out);
    return status;
}

void dc_tensors_clear(dc_tensors *tensors)
{
    dc_free(tensors->items);
    *tensors = (dc_tensors){0};
}

const dc_tensor *dc_tensors_find(const dc_tensors *tensors, const char *name)
{
    for (int64_t i = 0; i < tensors->n; i++)
        if (strcmp(tensors->items[i].name, name) == 0)
            return &tensors->items[i];
    return NULL;
}

dc_status dc_tensor_to_float(float *out, const dc_tensor *tensor, int64_t first, int64_t count, dc_error *err)
{
    const char *at = tensor->data + (size_t)first * dc_dtype_bytes(tensor->dtype);
    int all_finite = 1;
    switch (tensor->dtype) {
    case DC_FLOAT32:
        memcpy(out, at, (size_t)count * sizeof *out);
        break;
    case DC_FLOAT64:
        for (int64_t i = 0; i < count; i++) {
            double wide;
            memcpy(&wide, at + (size_t)i * sizeof wide, sizeof wide);
            out[i] = (float)wide;
        }
        break;
    case DC_FLOAT16:
    case DC_BFLOAT16:
        for (int64_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, at + (size_t)i * sizeof half, sizeof half);
            out[i] = tensor->dtype == DC_FLOAT16 ? dc_float16_to_float(half) : dc_bfloat16_to_float(half);
        }
        break;
    }
    for (int64_t i = 0; i < count; i++)
        all_finite &= isfinite(out[i]) != 0;
    for (int64_t i = 0; i < count && !all_finite; i++)
        if (!isfinite(out[i]))
            return dc_error_set(err, DC_ERR_FORMAT, "tensor %s of the weights file is not finite at item %lld",
                                tensor->name, (long long)(first + i));
    return DC_OK;
}
