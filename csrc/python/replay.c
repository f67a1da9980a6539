/* Replay of a whole table: one call a policy, arrays of all images out. */
#include <string.h>

#include "base/memory.h"
#include "method/replay.h"
#include "python/arrays.h"

enum { IMAGES_A_CALL = 1024 }; /* between two looks for Ctrl-C */

/* The arrays that are given back: images first. */
typedef struct replay_arrays {
    PyObject *index, *losses, *stderrs, *excess, *n_trials, *alive, *n_evals, *p_disagree, *status, *trace, *trace_offset;
} replay_arrays;

static void free_arrays(replay_arrays *out)
{
    Py_XDECREF(out->index);
    Py_XDECREF(out->losses);
    Py_XDECREF(out->stderrs);
    Py_XDECREF(out->excess);
    Py_XDECREF(out->n_trials);
    Py_XDECREF(out->alive);
    Py_XDECREF(out->n_evals);
    Py_XDECREF(out->p_disagree);
    Py_XDECREF(out->status);
    Py_XDECREF(out->trace);
    Py_XDECREF(out->trace_offset);
}

static int new_arrays(replay_arrays *out, int64_t n_images, int64_t n_classes)
{
    int64_t shape[2] = {n_images, n_classes}, n_offsets = n_images + 1;
    return (out->index = array_new(1, shape, ARRAY_INT64)) && (out->losses = array_new(2, shape, ARRAY_FLOAT64)) &&
                   (out->stderrs = array_new(2, shape, ARRAY_FLOAT64)) &&
                   (out->excess = array_new(2, shape, ARRAY_FLOAT64)) &&
                   (out->n_trials = array_new(2, shape, ARRAY_INT64)) && (out->alive = array_new(2, shape, ARRAY_BOOL)) &&
                   (out->n_evals = array_new(1, shape, ARRAY_INT64)) &&
                   (out->p_disagree = array_new(1, shape, ARRAY_FLOAT64)) &&
                   (out->trace_offset = array_new(1, &n_offsets, ARRAY_INT64)) && (out->status = PyList_New(n_images))
               ? 0
               : -1;
}

/* Each row's arrays are a row of the arrays that are given back. */
static void point_rows(dc_replay_row *rows, const replay_arrays *out, int64_t n_images, int64_t n_classes)
{
    for (int64_t i = 0; i < n_images; i++)
        rows[i].result = (dc_race_result){.losses = (double *)array_data(out->losses) + i * n_classes,
                                          .stderrs = (double *)array_data(out->stderrs) + i * n_classes,
                                          .excess = (double *)array_data(out->excess) + i * n_classes,
                                          .n_trials = (int64_t *)array_data(out->n_trials) + i * n_classes,
                                          .alive = (uint8_t *)array_data(out->alive) + i * n_classes};
}

/* What is one number an image, and the traces behind one another. */
static int collect_rows(replay_arrays *out, const dc_replay_row *rows, int64_t n_images)
{
    int64_t *offset = array_data(out->trace_offset), shape[2] = {0, 3};
    for (int64_t i = 0; i < n_images; i++) {
        PyObject *name = core_status_name(rows[i].result.status);
        if (name == NULL)
            return -1;
        PyList_SET_ITEM(out->status, i, name);
        ((int64_t *)array_data(out->index))[i] = rows[i].result.index;
        ((int64_t *)array_data(out->n_evals))[i] = rows[i].result.n_evals;
        ((double *)array_data(out->p_disagree))[i] = rows[i].result.p_disagree;
        offset[i] = shape[0];
        shape[0] += rows[i].n_rounds;
    }
    offset[n_images] = shape[0];
    if ((out->trace = array_new(2, shape, ARRAY_INT64)) == NULL)
        return -1;
    for (int64_t i = 0; i < n_images; i++) /* a dc_round: three int64 */
        memcpy((int64_t *)array_data(out->trace) + 3 * offset[i], rows[i].rounds,
               (size_t)rows[i].n_rounds * sizeof *rows[i].rounds);
    return 0;
}

static int run(core_state *state, dc_replay_row *rows, dc_replay_params params)
{
    int64_t n_images = params.n_images, stride = params.arms.n_arms * params.n_stored;
    dc_error err = {0};
    for (int64_t first = 0; first < n_images; first += IMAGES_A_CALL) {
        dc_status status;
        params.n_images = n_images - first < IMAGES_A_CALL ? n_images - first : IMAGES_A_CALL;
        params.first_image = first;
        Py_BEGIN_ALLOW_THREADS
        status = dc_replay(rows + first, &params, &err);
        Py_END_ALLOW_THREADS
        if (status != DC_OK) {
            core_raise(state, &err);
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
        params.errors += params.n_images * stride;
    }
    return 0;
}

PyObject *core_replay(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"errors", "columns", "n_classes", "class_of_arm", "cost_of_arm", "trials", "policy", "backend", NULL};
    core_state *state = core_state_of(module);
    PyObject *errors_object, *columns_object, *class_object, *cost_object, *trials_dict, *policy_dict, *backend;
    PyObject *errors = NULL, *columns = NULL, *class_of_arm = NULL, *cost_of_arm = NULL, *caps = NULL, *result = NULL;
    Py_ssize_t n_classes;
    core_trials trials = {0};
    replay_arrays out = {0};
    void *memory = NULL;
    dc_replay_row *rows = NULL;
    dc_replay_params params = {0};
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O$OnOOOOO:replay", names, &errors_object, &columns_object, &n_classes,
                                     &class_object, &cost_object, &trials_dict, &policy_dict, &backend))
        return NULL;
    if ((params.backend = core_backend_of(state, backend)) == NULL ||
        (errors = array_in(state, errors_object, ARRAY_FLOAT64, 3, "errors")) == NULL)
        goto done;
    params.n_images = array_dim(errors, 0);
    params.n_stored = array_dim(errors, 2);
    params.arms = (dc_arms){.n_arms = array_dim(errors, 1), .n_classes = n_classes};
    if ((class_of_arm = array_of_size(state, class_object, ARRAY_INT64, params.arms.n_arms, "class_of_arm")) == NULL ||
        (cost_of_arm = array_of_size(state, cost_object, ARRAY_INT64, params.arms.n_arms, "cost_of_arm")) == NULL ||
        core_trials_parse(state, &trials, trials_dict) < 0 ||
        core_policy_parse(state, &params.policy, &caps, policy_dict) < 0 ||
        (columns = array_of_size(state, columns_object, ARRAY_INT64, trials.n, "columns")) == NULL)
        goto done;
    if (n_classes < 1) { /* before arrays are made for them; the rest is the race's to check */
        PyErr_Format(state->exceptions[DC_ERR_VALUE], "n_classes is %zd, must be 1 or more", n_classes);
        goto done;
    }
    params.errors = array_data(errors);
    params.arms.class_of_arm = array_data(class_of_arm);
    params.arms.cost_of_arm = array_data(cost_of_arm);
    params.columns = array_data(columns);
    params.trials = trials.items;
    params.n_trials = trials.n;
    if (new_arrays(&out, params.n_images, n_classes) < 0)
        goto done;
    if (dc_alloc(&memory, params.n_images, sizeof *rows, "the results", &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    rows = memory;
    point_rows(rows, &out, params.n_images, n_classes);
    if (run(state, rows, params) < 0 || collect_rows(&out, rows, params.n_images) < 0)
        goto done;
    result = Py_BuildValue("{sOsOsOsOsOsOsOsOsOsOsO}", "index", out.index, "losses", out.losses, "stderr", out.stderrs,
                           "excess", out.excess, "n_trials", out.n_trials, "alive", out.alive, "n_evals", out.n_evals,
                           "p_disagree", out.p_disagree, "status", out.status, "trace", out.trace, "trace_offset",
                           out.trace_offset);
done:
    for (int64_t i = 0; rows != NULL && i < params.n_images; i++)
        dc_free(rows[i].rounds);
    dc_free(rows);
    dc_free(trials.items);
    free_arrays(&out);
    Py_XDECREF(caps);
    Py_XDECREF(columns);
    Py_XDECREF(errors);
    Py_XDECREF(class_of_arm);
    Py_XDECREF(cost_of_arm);
    return result;
}
