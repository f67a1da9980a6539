/* Status codes and error text.  Every function that can fail returns dc_status and fills a dc_error owned by its caller:
 * the place that detects a problem writes one sentence with the argument's name, what came and what was wanted. */
#ifndef DC_BASE_STATUS_H
#define DC_BASE_STATUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DC_MUST_USE __attribute__((warn_unused_result))
#define DC_PRINTF(text, first) __attribute__((format(printf, text, first)))

typedef enum dc_status {
    DC_OK = 0,
    DC_ERR_VALUE,     /* ValueError */
    DC_ERR_SHAPE,     /* ShapeError */
    DC_ERR_DTYPE,     /* DTypeError */
    DC_ERR_DEVICE,    /* DeviceError */
    DC_ERR_DENOISER,  /* DenoiserError: the denoiser broke its contract */
    DC_ERR_NONFINITE, /* NonFiniteError: dc_error's class_index, timestep and noise_index say where */
    DC_ERR_FORMAT,    /* WeightsError: a weights file is malformed */
    DC_ERR_NOMEM,     /* MemoryError */
    DC_ERR_CALLBACK,  /* a callback failed and keeps the cause (a Python exception is set) */
} dc_status;

enum { DC_ERROR_MESSAGE = 512 };

/* Caller-owned; zero-initialise with {0}.  Two calls can not mix messages. */
typedef struct dc_error {
    dc_status status;
    int64_t class_index, timestep, noise_index; /* for DC_ERR_NONFINITE */
    char message[DC_ERROR_MESSAGE];
} dc_error;

/* Fills err (which may be NULL) and returns status, so that a check is one line: return dc_error_set(err, ...). */
dc_status dc_error_set(dc_error *err, dc_status status, const char *format, ...) DC_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif
#endif
