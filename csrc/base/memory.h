/* Checked sizes and the one allocator: nothing else in csrc calls malloc. */
#ifndef DC_BASE_MEMORY_H
#define DC_BASE_MEMORY_H

#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DC_ALIGNMENT = 64 }; /* one cache line, one AVX-512 register */

/* *out = a * b for sizes that come from outside; false on overflow or a negative factor. */
DC_MUST_USE int dc_size_mul(int64_t *out, int64_t a, int64_t b);

/* *out = zeroed memory for count items of item_bytes each, aligned to DC_ALIGNMENT; at least one byte, so never NULL
 * on success.  `what` names the thing in the message.  Returns new: free with dc_free. */
DC_MUST_USE dc_status dc_alloc(void **out, int64_t count, size_t item_bytes, const char *what, dc_error *err);
void dc_free(void *memory); /* takes; NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
