/* The pool: every task once, whoever asks: one caller, several, a task itself, a forked child. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/threads.h"
#include "test.h"

enum { MOST_TASKS = 1000, N_CALLERS = 4, N_ROUNDS = 300 };

typedef struct tally {
    dc_threads *threads;
    atomic_int seen[MOST_TASKS];
} tally;

static void count(void *argument, int64_t index)
{
    atomic_fetch_add(&((tally *)argument)->seen[index], 1);
}

/* A task that asks the pool it runs on. */
static void nested(void *argument, int64_t index)
{
    tally inner = {0};
    dc_threads_run(((tally *)argument)->threads, count, &inner, 7);
    int all = 1;
    for (int i = 0; i < 7; i++)
        all &= atomic_load(&inner.seen[i]) == 1;
    if (all)
        count(argument, index);
}

/* 1 when tasks 0 .. n - 1 ran `times` times each and no other ran. */
static int ran(tally *tasks, int n, int times)
{
    for (int i = 0; i < MOST_TASKS; i++)
        if (atomic_load(&tasks->seen[i]) != (i < n ? times : 0))
            return 0;
    return 1;
}

static void test_each_task_once(void)
{
    const int counts[] = {0, 1, 2, 3, 100, MOST_TASKS};
    for (int n_threads = 1; n_threads <= 8; n_threads++) {
        dc_error err = {0};
        dc_threads *threads = NULL;
        CHECK(dc_threads_new(&threads, n_threads, &err) == DC_OK);
        CHECK(dc_threads_count(threads) == n_threads);
        for (int c = 0; c < 6; c++) {
            tally tasks = {threads, {0}};
            dc_threads_run(threads, count, &tasks, counts[c]);
            CHECK(ran(&tasks, counts[c], 1));
        }
        tally tasks = {threads, {0}};
        for (int round = 0; round < N_ROUNDS; round++)
            dc_threads_run(threads, count, &tasks, 5);
        CHECK(ran(&tasks, 5, N_ROUNDS));
        tally outer = {threads, {0}};
        dc_threads_run(threads, nested, &outer, 20);
        CHECK(ran(&outer, 20, 1));
        dc_threads_free(threads);
    }
}

static void *call_often(void *argument)
{
    tally *tasks = argument;
    for (int round = 0; round < N_ROUNDS; round++)
        dc_threads_run(tasks->threads, count, tasks, 9);
    return NULL;
}

static void test_several_callers(void)
{
    static tally tasks[N_CALLERS];
    pthread_t callers[N_CALLERS];
    dc_error err = {0};
    dc_threads *threads = NULL;
    CHECK(dc_threads_new(&threads, 3, &err) == DC_OK);
    for (int i = 0; i < N_CALLERS; i++) {
        tasks[i].threads = threads;
        CHECK(pthread_create(&callers[i], NULL, call_often, &tasks[i]) == 0);
    }
    for (int i = 0; i < N_CALLERS; i++) {
        pthread_join(callers[i], NULL);
        CHECK(ran(&tasks[i], 9, N_ROUNDS));
    }
    dc_threads_free(threads);
}

static void test_forked_child(void)
{
    dc_error err = {0};
    dc_threads *threads = NULL;
    CHECK(dc_threads_new(&threads, 4, &err) == DC_OK);
    pid_t child = fork();
    if (child == 0) {
        tally tasks = {threads, {0}};
        dc_threads_run(threads, count, &tasks, 50);
        dc_threads_free(threads);
        _exit(ran(&tasks, 50, 1) ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tally tasks = {threads, {0}};
    dc_threads_run(threads, count, &tasks, 50);
    CHECK(ran(&tasks, 50, 1));
    dc_threads_free(threads);
}

static void test_refusals(void)
{
    const int wrong[] = {-1, 0, 257};
    for (int i = 0; i < 3; i++) {
        dc_error err = {0};
        dc_threads *threads = NULL;
        CHECK(dc_threads_new(&threads, wrong[i], &err) == DC_ERR_VALUE);
        CHECK(threads == NULL && strstr(err.message, "n_threads is") != NULL);
    }
    dc_threads_free(NULL);
}

int main(void)
{
    test_each_task_once();
    test_several_callers();
    test_forked_child();
    test_refusals();
    return test_done();
}
