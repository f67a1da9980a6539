#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

int dc_size_mul(int64_t *out, int64_t a, int64_t b)
{
    return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, out);
}

dc_status dc_alloc(void **out, int64_t count, size_t item_bytes, const char *what, dc_error *err)
{
    int64_t bytes;
    *out = NULL;
    if (!dc_size_mul(&bytes, count, (int64_t)item_bytes) || bytes > PTRDIFF_MAX - DC_ALIGNMENT)
        return dc_error_set(err, DC_ERR_NOMEM, "%s of %lld items of %zu bytes does not fit in memory", what,
                            (long long)count, item_bytes);
    size_t padded = ((size_t)bytes / DC_ALIGNMENT + 1) * DC_ALIGNMENT;
    *out = aligned_alloc(DC_ALIGNMENT, padded);
    if (*out == NULL)
        return dc_error_set(err, DC_ERR_NOMEM, "no memory for %s (%lld bytes)", what, (long long)bytes);
    memset(*out, 0, padded);
    return DC_OK;
}

void dc_free(void *memory)
{
    free(memory);
}
