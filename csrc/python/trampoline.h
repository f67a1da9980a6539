/* A Python callable as the loop's denoiser.
 *
 * On the host:  * x_t lives in memory that a NumPy array owns.  When nobody else holds that array after the call, the next batch is written
 * into it again; when somebody does, they keep it, unchanged, and the next batch gets a new one.
 *
 * With a device x_t is what callable.input(batch_size) gives, a tensor (batch_size, *shape) of the callable's own framework,
 * of any dtype that the core knows, its channels last if it likes: written anew for every batch, in the order of the stream.
 *
 * A MemoryError, or what PyTorch calls OutOfMemoryError, asks for half of the rows and is told once as a warning; of one row it
 * is the error.  Where callable.is_recorded is true, callable.record(graph), what it does in the call itself, and
 * callable.recorded(graph) make a graph of a step, and callable.replay(graph, timesteps, time, condition) runs it;
 * callable.abandon(graph) ends what failed. */
#ifndef DC_PYTHON_TRAMPOLINE_H
#define DC_PYTHON_TRAMPOLINE_H

#include "method/loop.h"
#include "python/arrays.h"

typedef struct trampoline {
    core_state *state;
    PyObject *callable; /* borrowed from the Loop, like the backend */
    const dc_backend *backend;
    int n_dims;         /* of a batch: (B, *shape) */
    int64_t shape[TENSOR_DIMS];
    int64_t batch_size;
    PyObject *x_t; /* (batch_size, *shape), or NULL */
    tensor x_t_memory; /* x_t's, with a device */
    dc_layout layout;  /* its */
    int told, is_recording; /* told: that memory was full */
    tensor prediction;
    PyThreadState *thread; /* of the advance under way, while the GIL is released */
} trampoline;

dc_denoiser trampoline_entry(trampoline *self);
void trampoline_clear(trampoline *self);

#endif
