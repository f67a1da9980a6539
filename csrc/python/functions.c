/* Schedules, trials, Student's t: arrays in, arrays out. */
#include <string.h>

#include "base/memory.h"
#include "formulas/philox.h"
#include "method/schedule.h"
#include "method/student.h"
#include "python/arrays.h"

/* (alpha, sigma) or (alpha, sigma, time), all of length n. */
static PyObject *pack_arrays(PyObject *alpha, PyObject *sigma, PyObject *time)
{
    PyObject *result = time == NULL ? PyTuple_Pack(2, alpha, sigma) : PyTuple_Pack(3, alpha, sigma, time);
    Py_DECREF(alpha);
    Py_DECREF(sigma);
    Py_XDECREF(time);
    return result;
}

static int check_length(core_state *state, Py_ssize_t n)
{
    if (n >= 1 && n <= DC_SCHEDULE_MAX)
        return 0;
    PyErr_Format(state->exceptions[DC_ERR_VALUE], "the schedule has %zd timesteps, must have 1 to %d", n, DC_SCHEDULE_MAX);
    return -1;
}

/* *a and *b: new arrays (n,) float64; -1 with nothing kept. */
static int new_pair(core_state *state, int64_t n, PyObject **a, PyObject **b)
{
    *a = *b = NULL;
    if (check_length(state, n) < 0)
        return -1;
    *a = array_new(1, &n, ARRAY_FLOAT64);
    *b = array_new(1, &n, ARRAY_FLOAT64);
    if (*a != NULL && *b != NULL)
        return 0;
    Py_CLEAR(*a);
    Py_CLEAR(*b);
    return -1;
}

static PyObject *failed(core_state *state, const dc_error *err, PyObject *a, PyObject *b, PyObject *c)
{
    Py_XDECREF(a);
    Py_XDECREF(b);
    Py_XDECREF(c);
    return core_raise(state, err);
}

/* betas -> alphas_cumprod -> (alpha, sigma), in the two arrays themselves */
static PyObject *from_betas(core_state *state, dc_status status, int64_t n, PyObject *alpha, PyObject *sigma, dc_error *err)
{
    double *bar = array_data(sigma);
    if (status == DC_OK) {
        dc_schedule_alphas_cumprod(bar, array_data(alpha), n);
        status = dc_schedule_from_alphas_cumprod(array_data(alpha), bar, bar, n, err);
    }
    return status == DC_OK ? pack_arrays(alpha, sigma, NULL) : failed(state, err, alpha, sigma, NULL);
}

static PyObject *schedule_linear(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    Py_ssize_t n;
    double first, last;
    PyObject *alpha, *sigma;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "ndd", &n, &first, &last) || new_pair(state, n, &alpha, &sigma) < 0)
        return NULL;
    return from_betas(state, dc_schedule_betas_linear(array_data(alpha), n, first, last, &err), n, alpha, sigma, &err);
}

static PyObject *schedule_scaled_linear(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    Py_ssize_t n;
    double first, last;
    PyObject *alpha, *sigma;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "ndd", &n, &first, &last) || new_pair(state, n, &alpha, &sigma) < 0)
        return NULL;
    return from_betas(state, dc_schedule_betas_scaled_linear(array_data(alpha), n, first, last, &err), n, alpha, sigma,
                      &err);
}

static PyObject *schedule_squaredcos(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    Py_ssize_t n;
    PyObject *alpha, *sigma;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "n", &n) || new_pair(state, n, &alpha, &sigma) < 0)
        return NULL;
    return from_betas(state, dc_schedule_betas_squaredcos(array_data(alpha), n, &err), n, alpha, sigma, &err);
}

static PyObject *schedule_from_alphas_cumprod(PyObject *module, PyObject *object)
{
    core_state *state = core_state_of(module);
    PyObject *alpha, *sigma, *bar = array_in(state, object, ARRAY_FLOAT64, 1, "alphas_cumprod");
    dc_error err = {0};
    if (bar == NULL)
        return NULL;
    if (new_pair(state, array_size(bar), &alpha, &sigma) < 0) {
        Py_DECREF(bar);
        return NULL;
    }
    dc_status status =
        dc_schedule_from_alphas_cumprod(array_data(alpha), array_data(sigma), array_data(bar), array_size(bar), &err);
    Py_DECREF(bar);
    return status == DC_OK ? pack_arrays(alpha, sigma, NULL) : failed(state, &err, alpha, sigma, NULL);
}

static PyObject *schedule_flow(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    Py_ssize_t n;
    double shift;
    PyObject *alpha, *sigma, *time;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "nd", &n, &shift) || new_pair(state, n, &alpha, &sigma) < 0)
        return NULL;
    if ((time = array_new(1, (int64_t[]){n}, ARRAY_FLOAT64)) == NULL) {
        Py_DECREF(alpha);
        Py_DECREF(sigma);
        return NULL;
    }
    dc_status status = dc_schedule_flow(array_data(alpha), array_data(sigma), array_data(time), n, shift, &err);
    return status == DC_OK ? pack_arrays(alpha, sigma, time) : failed(state, &err, alpha, sigma, time);
}

static PyObject *schedule_edm(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    double sigma_data;
    PyObject *object, *sigmas, *alpha = NULL, *sigma = NULL, *time = NULL;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "Od", &object, &sigma_data) ||
        (sigmas = array_in(state, object, ARRAY_FLOAT64, 1, "sigmas")) == NULL)
        return NULL;
    int64_t n = array_size(sigmas);
    if (new_pair(state, n, &alpha, &sigma) < 0 || (time = array_new(1, &n, ARRAY_FLOAT64)) == NULL) {
        Py_XDECREF(alpha);
        Py_XDECREF(sigma);
        Py_DECREF(sigmas);
        return NULL;
    }
    dc_status status = dc_schedule_edm(array_data(alpha), array_data(sigma), array_data(time), array_data(sigmas), n,
                                       sigma_data, &err);
    Py_DECREF(sigmas);
    return status == DC_OK ? pack_arrays(alpha, sigma, time) : failed(state, &err, alpha, sigma, time);
}

static PyObject *schedule_check(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    PyObject *objects[3], *arrays[3] = {NULL}, *result = NULL;
    static const char *const names[] = {"alpha", "sigma", "time"};
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "OOO", &objects[0], &objects[1], &objects[2]))
        return NULL;
    for (int i = 0; i < 3; i++) {
        arrays[i] = i == 0 ? array_in(state, objects[i], ARRAY_FLOAT64, 1, names[i])
                           : array_of_size(state, objects[i], ARRAY_FLOAT64, array_size(arrays[0]), names[i]);
        if (arrays[i] == NULL)
            goto done;
    }
    if (dc_schedule_check(array_data(arrays[0]), array_data(arrays[1]), array_data(arrays[2]), array_size(arrays[0]),
                          &err) == DC_OK)
        result = Py_NewRef(Py_None);
    else
        core_raise(state, &err);
done:
    for (int i = 0; i < 3; i++)
        Py_XDECREF(arrays[i]);
    return result;
}

static PyObject *schedule_target(PyObject *module, PyObject *args)
{
    static const char *const types[] = {"epsilon", "v_prediction", "sample", "flow_prediction", "edm"};
    core_state *state = core_state_of(module);
    PyObject *alpha_object, *sigma_object, *alpha = NULL, *sigma = NULL, *p = NULL, *q = NULL, *result = NULL;
    const char *name;
    double sigma_data;
    int type = 0;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "OOsd", &alpha_object, &sigma_object, &name, &sigma_data))
        return NULL;
    while (type < 5 && strcmp(name, types[type]) != 0)
        type++;
    if (type == 5)
        return PyErr_Format(state->exceptions[DC_ERR_VALUE],
                            "prediction_type is '%s', must be 'epsilon', 'v_prediction', 'sample', 'flow_prediction', 'edm' "
                            "or a pair of arrays (p, q)",
                            name);
    if ((alpha = array_in(state, alpha_object, ARRAY_FLOAT64, 1, "alpha")) == NULL ||
        (sigma = array_of_size(state, sigma_object, ARRAY_FLOAT64, array_size(alpha), "sigma")) == NULL ||
        new_pair(state, array_size(alpha), &p, &q) < 0)
        goto done;
    if (dc_schedule_target(array_data(p), array_data(q), array_data(alpha), array_data(sigma), array_size(alpha),
                           (dc_prediction_type)type, sigma_data, &err) == DC_OK)
        result = PyTuple_Pack(2, p, q);
    else
        core_raise(state, &err);
done:
    Py_XDECREF(alpha);
    Py_XDECREF(sigma);
    Py_XDECREF(p);
    Py_XDECREF(q);
    return result;
}

/* ---- trials ------------------------------------------------------------------------------------------------------ */

/* New array (n_timesteps,) float64, or NULL for None; *ok tells an error from None. */
static PyObject *optional_array(core_state *state, PyObject *object, int64_t n, const char *name, int *ok)
{
    if (object == Py_None)
        return NULL;
    PyObject *array = array_of_size(state, object, ARRAY_FLOAT64, n, name);
    *ok = *ok && array != NULL;
    return array;
}

static PyObject *trials_pool(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n_trials", "n_timesteps", "weighting", "density", "antithetic", NULL};
    core_state *state = core_state_of(module);
    Py_ssize_t n_trials, n_timesteps;
    PyObject *weighting, *density, *w = NULL, *q = NULL, *result = NULL;
    int antithetic, ok = 1;
    void *memory = NULL;
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nn$OOp", names, &n_trials, &n_timesteps, &weighting, &density,
                                     &antithetic))
        return NULL;
    w = optional_array(state, weighting, n_timesteps, "weighting", &ok);
    q = optional_array(state, density, n_timesteps, "density", &ok);
    if (!ok)
        goto done;
    if (dc_alloc(&memory, n_trials, sizeof(dc_trial), "the trials", &err) != DC_OK ||
        dc_trials_pool(memory, n_trials, n_timesteps, w ? array_data(w) : NULL, q ? array_data(q) : NULL, antithetic,
                       &err) != DC_OK)
        core_raise(state, &err);
    else
        result = core_trials_build(memory, n_trials);
done:
    dc_free(memory);
    Py_XDECREF(w);
    Py_XDECREF(q);
    return result;
}

static PyObject *trials_list(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timesteps", "n_timesteps", "weighting", "antithetic", NULL};
    core_state *state = core_state_of(module);
    Py_ssize_t n_timesteps;
    PyObject *object, *weighting, *timesteps = NULL, *w = NULL, *result = NULL;
    int antithetic, ok = 1;
    void *memory = NULL;
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "On$Op", names, &object, &n_timesteps, &weighting, &antithetic))
        return NULL;
    timesteps = array_in(state, object, ARRAY_INT64, 1, "timesteps");
    w = timesteps == NULL ? NULL : optional_array(state, weighting, n_timesteps, "weighting", &ok);
    if (timesteps == NULL || !ok)
        goto done;
    int64_t n = array_size(timesteps);
    if (dc_alloc(&memory, n, sizeof(dc_trial), "the trials", &err) != DC_OK ||
        dc_trials_list(memory, array_data(timesteps), n, n_timesteps, w ? array_data(w) : NULL, antithetic, &err) != DC_OK)
        core_raise(state, &err);
    else
        result = core_trials_build(memory, n);
done:
    dc_free(memory);
    Py_XDECREF(timesteps);
    Py_XDECREF(w);
    return result;
}

static PyObject *trials_published(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of(module);
    Py_ssize_t n_timesteps, n_trials;
    PyObject *object, *n_samples, *ends = NULL, *timesteps = NULL, *result = NULL;
    void *memory = NULL;
    int64_t items, shape;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "Onn", &object, &n_timesteps, &n_trials) ||
        (n_samples = array_in(state, object, ARRAY_INT64, 1, "n_samples")) == NULL)
        return NULL;
    int64_t n_stages = array_size(n_samples);
    if (!dc_size_mul(&items, n_timesteps, n_trials) || dc_alloc(&memory, items, sizeof(int64_t), "the grid", &err) != DC_OK) {
        PyErr_Format(state->exceptions[DC_ERR_VALUE], "n_trials is %zd, must be 1 or more and fit in memory", n_trials);
        goto done;
    }
    if ((ends = array_new(1, &n_stages, ARRAY_INT64)) == NULL)
        goto done;
    if (dc_trials_published(memory, array_data(ends), array_data(n_samples), n_stages, n_timesteps, n_trials, &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    shape = ((int64_t *)array_data(ends))[n_stages - 1];
    if ((timesteps = array_new(1, &shape, ARRAY_INT64)) == NULL)
        goto done;
    memcpy(array_data(timesteps), memory, (size_t)shape * sizeof(int64_t));
    result = PyTuple_Pack(2, timesteps, ends);
done:
    dc_free(memory);
    Py_XDECREF(n_samples);
    Py_XDECREF(ends);
    Py_XDECREF(timesteps);
    return result;
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

static PyObject *student_sf(PyObject *module, PyObject *args)
{
    double t, df;
    if (!PyArg_ParseTuple(args, "dd", &t, &df))
        return NULL;
    if (!(df > 0.0))
        return PyErr_Format(core_state_of(module)->exceptions[DC_ERR_VALUE], "df must be positive");
    return PyFloat_FromDouble(dc_student_sf(t, df));
}

static PyObject *student_isf(PyObject *module, PyObject *args)
{
    double p, df;
    if (!PyArg_ParseTuple(args, "dd", &p, &df))
        return NULL;
    if (!(p > 0.0 && p < 1.0 && df > 0.0))
        return PyErr_Format(core_state_of(module)->exceptions[DC_ERR_VALUE], "p must be in (0, 1) and df positive");
    return PyFloat_FromDouble(dc_student_isf(p, df));
}

static PyObject *philox4x32(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned c[4], k[2];
    if (!PyArg_ParseTuple(args, "(IIII)(II)", &c[0], &c[1], &c[2], &c[3], &k[0], &k[1]))
        return NULL;
    dc_words words = dc_philox4x32((dc_words){c[0], c[1], c[2], c[3]}, k[0], k[1]);
    return Py_BuildValue("(IIII)", words.w0, words.w1, words.w2, words.w3);
}

#define KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

PyMethodDef core_function_methods[] = {
    {"schedule_linear", schedule_linear, METH_VARARGS, NULL},
    {"schedule_scaled_linear", schedule_scaled_linear, METH_VARARGS, NULL},
    {"schedule_squaredcos", schedule_squaredcos, METH_VARARGS, NULL},
    {"schedule_from_alphas_cumprod", schedule_from_alphas_cumprod, METH_O, NULL},
    {"schedule_flow", schedule_flow, METH_VARARGS, NULL},
    {"schedule_edm", schedule_edm, METH_VARARGS, NULL},
    {"schedule_check", schedule_check, METH_VARARGS, NULL},
    {"schedule_target", schedule_target, METH_VARARGS, NULL},
    {"trials_pool", KEYWORDS(trials_pool), NULL},
    {"trials_list", KEYWORDS(trials_list), NULL},
    {"trials_published", trials_published, METH_VARARGS, NULL},
    {"student_sf", student_sf, METH_VARARGS, NULL},
    {"student_isf", student_isf, METH_VARARGS, NULL},
    {"philox4x32", philox4x32, METH_VARARGS, NULL},
    {"replay", KEYWORDS(core_replay), NULL},
    {0},
};
