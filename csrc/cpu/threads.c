#include "cpu/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/memory.h"

enum { MAX_THREADS = 256 };

struct dc_threads {
    int n_workers; /* without the caller */
    pid_t pid;
    pthread_t workers[MAX_THREADS];
    pthread_mutex_t caller; /* held by the one caller whose tasks run */
    pthread_mutex_t mutex;  /* guards everything below */
    pthread_cond_t work, idle;
    dc_task task;
    void *argument;
    int64_t n_tasks;
    atomic_llong next;
    uint64_t generation;
    int n_running, stop;
};

static void take_tasks(dc_threads *threads, dc_task task, void *argument, int64_t n_tasks)
{
    for (int64_t i; (i = atomic_fetch_add(&threads->next, 1)) < n_tasks;)
        task(argument, i);
}

static void *worker_main(void *pool)
{
    dc_threads *threads = pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&threads->mutex);
    for (;;) {
        while (!threads->stop && threads->generation == seen)
            pthread_cond_wait(&threads->work, &threads->mutex);
        if (threads->stop)
            break;
        seen = threads->generation;
        dc_task task = threads->task;
        void *argument = threads->argument;
        int64_t n_tasks = threads->n_tasks;
        pthread_mutex_unlock(&threads->mutex);
        take_tasks(threads, task, argument, n_tasks);
        pthread_mutex_lock(&threads->mutex);
        if (--threads->n_running == 0)
            pthread_cond_signal(&threads->idle);
    }
    pthread_mutex_unlock(&threads->mutex);
    return NULL;
}

dc_status dc_threads_new(dc_threads **out, int n_threads, dc_error *err)
{
    void *memory;
    *out = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS)
        return dc_error_set(err, DC_ERR_VALUE, "n_threads is %d, must be 1 to %d", n_threads, MAX_THREADS);
    dc_status status = dc_alloc(&memory, 1, sizeof(dc_threads), "the thread pool", err);
    if (status != DC_OK)
        return status;
    dc_threads *threads = memory;
    threads->pid = getpid();
    pthread_mutex_init(&threads->caller, NULL);
    pthread_mutex_init(&threads->mutex, NULL);
    pthread_cond_init(&threads->work, NULL);
    pthread_cond_init(&threads->idle, NULL);
    for (; threads->n_workers < n_threads - 1; threads->n_workers++) {
        if (pthread_create(&threads->workers[threads->n_workers], NULL, worker_main, threads) != 0) {
            dc_threads_free(threads);
            return dc_error_set(err, DC_ERR_NOMEM, "the system refused to start %d threads", n_threads);
        }
    }
    *out = threads;
    return DC_OK;
}

void dc_threads_free(dc_threads *threads)
{
    if (threads == NULL)
        return;
    if (threads->pid == getpid()) { /* a forked child has no workers to stop, and its mutexes are in any state */
        pthread_mutex_lock(&threads->mutex);
        threads->stop = 1;
        pthread_cond_broadcast(&threads->work);
        pthread_mutex_unlock(&threads->mutex);
        for (int i = 0; i < threads->n_workers; i++)
            pthread_join(threads->workers[i], NULL);
        pthread_cond_destroy(&threads->idle);
        pthread_cond_destroy(&threads->work);
        pthread_mutex_destroy(&threads->mutex);
        pthread_mutex_destroy(&threads->caller);
    }
    dc_free(threads);
}

int dc_threads_count(const dc_threads *threads)
{
    return threads->n_workers + 1;
}

void dc_threads_run(dc_threads *threads, dc_task task, void *argument, int64_t n_tasks)
{
    if (n_tasks <= 1 || threads->n_workers == 0 || threads->pid != getpid() ||
        pthread_mutex_trylock(&threads->caller) != 0) {
        for (int64_t i = 0; i < n_tasks; i++)
            task(argument, i);
        return;
    }
    pthread_mutex_lock(&threads->mutex);
    threads->task = task;
    threads->argument = argument;
    threads->n_tasks = n_tasks;
    atomic_store(&threads->next, 0);
    threads->n_running = threads->n_workers;
    threads->generation++;
    pthread_cond_broadcast(&threads->work);
    pthread_mutex_unlock(&threads->mutex);
    take_tasks(threads, task, argument, n_tasks);
    pthread_mutex_lock(&threads->mutex);
    while (threads->n_running > 0)
        pthread_cond_wait(&threads->idle, &threads->mutex);
    pthread_mutex_unlock(&threads->mutex);
    pthread_mutex_unlock(&threads->caller);
}
