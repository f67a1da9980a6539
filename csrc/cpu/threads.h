/* A small pool of threads, owned by one backend.  No globals; nothing is decided by which thread runs what. */
#ifndef DC_CPU_THREADS_H
#define DC_CPU_THREADS_H

#include "backend.h"

typedef struct dc_threads dc_threads;

/* n_threads counts the caller: one means no thread is started.  *out: returns new. */
DC_MUST_USE dc_status dc_threads_new(dc_threads **out, int n_threads, dc_error *err);
void dc_threads_free(dc_threads *threads); /* takes; NULL is fine */
int dc_threads_count(const dc_threads *threads);

/* Runs task(argument, 0 .. n_tasks - 1).  When the pool is busy with another caller's tasks, or in a forked child whose
 * threads did not come along, the caller runs them all itself. */
void dc_threads_run(dc_threads *threads, dc_task task, void *argument, int64_t n_tasks);

#endif
