/* The one table of operations that a backend fills in.  method/ and dit/ reach a device only through it and never know
 * which one they have.
 *
 * Every operation takes `self` first, then outputs, inputs, sizes, options.  Arrays are dense, row-major float32 unless a
 * comment says otherwise; all pointers are borrowed for the call.  The operations of the method can not fail: arguments
 * were checked before the loop began. */
#ifndef DC_BACKEND_H
#define DC_BACKEND_H

#include <stdint.h>

#include "base/dtype.h"
#include "base/status.h"
#include "formulas/diffusion.h"

typedef struct dc_backend dc_backend;

/* Names one eps: a pure function of these and of the element.  formulas/philox.h has the counter's layout. */
typedef struct dc_noise_key {
    uint64_t seed;
    uint32_t noise_index, timestep;
} dc_noise_key;

/* One noised input and the neighbouring rows of a batch that share it: the classes asked at one (image, t, eps). */
typedef struct dc_group {
    const float *x_start;     /* (n_elem,) */
    const float *eps;         /* (n_elem,) noise given or kept, or NULL: made from key */
    dc_noise_key key;
    float eps_sign;           /* +1; -1 for the second of an antithetic pair */
    float alpha, sigma;       /* x_t = alpha * x_start + sigma * eps */
    float p, q;               /* target = p * x_start + q * eps */
    int64_t n_rows;
} dc_group;

/* How a denoiser wants the rows of x_t, which are dense; all zero: float32 in the order of x_start. */
typedef struct dc_layout {
    dc_dtype dtype;      /* rounded to nearest, ties to even */
    int64_t n_positions; /* 0: in the order of x_start.  Else channels last: its element c * n_positions + i comes at
                          * i * n_channels + c, n_channels = n_elem / n_positions */
} dc_layout;

/* What a denoiser answered: row r starts at data + r * row_stride elements. */
typedef struct dc_prediction {
    const void *data;
    dc_dtype dtype;
    int64_t row_stride;
    int64_t n_positions;     /* 0: a row is dense.  Else channels last: element c * n_positions + i of the target is at */
    int64_t position_stride; /* i * position_stride + c, which is n_channels apart, or more where some are left out */
} dc_prediction;

/* Runs task(argument, index) for every index below n_tasks, in any order, on the backend's threads. */
typedef void (*dc_task)(void *argument, int64_t index);

/* Numbers on their way back from a device. */
typedef struct dc_results {
    double *errors; /* host memory that the device writes */
    void *mark;     /* the device's own: where on its stream they are there */
} dc_results;

enum { DC_GRAPHS = 2 }; /* that take turns: the host writes what one reads while the other runs */

/* What a backend with memory of its own adds.  x_start, eps, x_t and predictions are then in its memory, and operations
 * only begin: they are done in their order, and what failed on the way is told by the next wait. */
typedef struct dc_device {
    /* *out: n_bytes on the device, not initialised.  Returns new. */
    dc_status (*memory_new)(const dc_backend *self, void **out, int64_t n_bytes, dc_error *err);
    void (*memory_free)(const dc_backend *self, void *memory); /* takes, when all that was begun is done; NULL is fine */

    /* Copies to the device, in the order of the operations; `from` (n_bytes,) may be written again at once. */
    dc_status (*upload)(const dc_backend *self, void *to, const void *from, int64_t n_bytes, dc_error *err);

    /* Makes room for batches of so many rows of n_elem, so that no operation allocates.  Waits if there was less. */
    dc_status (*reserve)(const dc_backend *self, int64_t max_rows, int64_t n_elem, dc_error *err);

    /* *out: errors (max_rows,).  Returns new. */
    dc_status (*results_new)(const dc_backend *self, dc_results *out, int64_t max_rows, dc_error *err);
    void (*results_free)(const dc_backend *self, dc_results *results); /* takes, waits; a zeroed one is fine */

    /* Marks what was begun so far; wait returns when the device has passed the mark. */
    void (*mark)(const dc_backend *self, dc_results *results);
    dc_status (*wait)(const dc_backend *self, const dc_results *results, dc_error *err);

    /* What failed since the backend was made, as far as the host knows: it does not wait. */
    dc_status (*check)(const dc_backend *self, dc_error *err);

    /* A noising and an eps_error that somebody records on the stream, to run them again for other groups with as many rows in
     * all: between record and recorded they are begun for that graph, 0 .. DC_GRAPHS - 1; refill puts the groups of the next
     * run in place.  The run before must have passed its mark.  recorded tells what failed on the way; that is forgotten. */
    dc_status (*record)(const dc_backend *self, int graph, dc_error *err);
    dc_status (*recorded)(const dc_backend *self, dc_error *err);
    void (*refill)(const dc_backend *self, int graph, const dc_group *groups, int64_t n_groups, int64_t n_elem);
} dc_device;

struct dc_backend {
    const char *name;
    void *context; /* the backend's own: threads, instruction set, BLAS */

    /* eps (count,): elements first .. first + count - 1 of the noise that key names. */
    void (*noise)(const dc_backend *self, float *eps, dc_noise_key key, int64_t first, int64_t count);

    /* eps (n_groups, n_elem): the noise that every group's key names, for a batch to keep between noising and eps_error.
     * NULL on a device that makes noise again sooner than it reads it. */
    void (*noise_of_groups)(const dc_backend *self, float *eps, const dc_group *groups, int64_t n_groups, int64_t n_elem);

    /* x_t (sum of n_rows, n_elem) in that layout: every group's noised input, written once and copied to its other rows. */
    void (*noising)(const dc_backend *self, void *x_t, const dc_group *groups, int64_t n_groups, int64_t n_elem,
                    dc_layout layout);

    /* errors (sum of n_rows,): mean over elements of rho(prediction - target), eps read or made again.  Blocks of 1024
     * elements; in a block element e adds to float32 lane e mod 32, in order; the 32 lanes meet in a float64
     * pairwise tree (i with i + 16, then + 8, ...); blocks add up in order in float64.  Every twin sums in this order. */
    void (*eps_error)(const dc_backend *self, double *errors, dc_prediction prediction, const dc_group *groups,
                      int64_t n_groups, int64_t n_elem, dc_loss loss, float delta);

    int n_threads; /* tasks that run at once */
    void (*parallel)(const dc_backend *self, dc_task task, void *argument, int64_t n_tasks);

    const struct dc_dit_operations *dit; /* dit/operations.h; NULL: the native DiT does not run there */
    const dc_device *device;             /* NULL: host memory, and an operation is done when it returns */
    int device_index;                    /* which one, and the stream of its operations, numbered as DLPack does */
    uint64_t stream;
};

#endif
