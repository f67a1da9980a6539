/* Dicts of the stub file to the structs of method/, and a race's result back. */
#include <string.h>

#include "base/memory.h"
#include "python/arrays.h"

static PyObject *get(PyObject *dict, const char *name, const char *what)
{
    PyObject *value = PyDict_Check(dict) ? PyDict_GetItemString(dict, name) : NULL; /* borrowed */
    if (value == NULL)
        PyErr_Format(PyExc_TypeError, "%s must be a dict with %s", what, name);
    return value;
}

static int get_integer(int64_t *out, PyObject *dict, const char *name)
{
    PyObject *value = get(dict, name, "policy");
    if (value == NULL)
        return -1;
    *out = PyLong_AsLongLong(value);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

static int get_double(double *out, PyObject *dict, const char *name)
{
    PyObject *value = get(dict, name, "policy");
    if (value == NULL)
        return -1;
    *out = PyFloat_AsDouble(value);
    return *out == -1.0 && PyErr_Occurred() ? -1 : 0;
}

int core_policy_parse(core_state *state, dc_policy *out, PyObject **caps_array, PyObject *dict)
{
    int64_t anytime;
    *caps_array = NULL;
    if (get_double(&out->risk, dict, "risk") < 0 || get_integer(&out->n_min, dict, "n_min") < 0 ||
        get_integer(&out->n_winner, dict, "n_winner") < 0 || get_integer(&out->ramp, dict, "ramp") < 0 || get_double(&out->prior_weight, dict, "prior_weight") < 0 ||
        get_integer(&out->fill, dict, "fill") < 0 || get_integer(&out->max_evals, dict, "max_evals") < 0 ||
        get_integer(&anytime, dict, "anytime") < 0 || get_double(&out->min_gap, dict, "min_gap") < 0)
        return -1;
    out->anytime = anytime != 0;
    PyObject *caps = get(dict, "caps", "policy");
    if (caps == NULL || (*caps_array = array_in(state, caps, ARRAY_INT64, 2, "caps")) == NULL)
        return -1;
    if (array_dim(*caps_array, 1) != 2) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "caps has %lld columns, must have 2: trials, keep",
                     (long long)array_dim(*caps_array, 1));
        Py_CLEAR(*caps_array);
        return -1;
    }
    out->caps = array_data(*caps_array); /* a row is a dc_cap: two int64 */
    out->n_caps = array_dim(*caps_array, 0);
    return 0;
}

int core_trials_parse(core_state *state, core_trials *out, PyObject *dict)
{
    static const struct {
        const char *name;
        array_type type;
    } columns[] = {
        {"timestep", ARRAY_UINT32}, {"noise_index", ARRAY_UINT32}, {"eps_sign", ARRAY_FLOAT32}, {"weight", ARRAY_FLOAT64}};
    PyObject *arrays[4] = {NULL};
    void *memory;
    dc_error err = {0};
    int result = -1;
    *out = (core_trials){0};
    for (int i = 0; i < 4; i++) {
        PyObject *value = get(dict, columns[i].name, "trials");
        if (value == NULL)
            goto done;
        arrays[i] = i == 0 ? array_in(state, value, columns[i].type, 1, columns[i].name)
                           : array_of_size(state, value, columns[i].type, out->n, columns[i].name);
        if (arrays[i] == NULL)
            goto done;
        out->n = array_size(arrays[0]);
    }
    if (dc_alloc(&memory, out->n, sizeof(dc_trial), "the trials", &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    out->items = memory;
    for (int64_t i = 0; i < out->n; i++)
        out->items[i] = (dc_trial){((uint32_t *)array_data(arrays[0]))[i], ((uint32_t *)array_data(arrays[1]))[i],
                                   ((float *)array_data(arrays[2]))[i], ((double *)array_data(arrays[3]))[i]};
    result = 0;
done:
    for (int i = 0; i < 4; i++)
        Py_XDECREF(arrays[i]);
    return result;
}

PyObject *core_trials_build(const dc_trial *trials, int64_t n)
{
    PyObject *timestep = array_new(1, &n, ARRAY_UINT32), *noise_index = array_new(1, &n, ARRAY_UINT32);
    PyObject *eps_sign = array_new(1, &n, ARRAY_FLOAT32), *weight = array_new(1, &n, ARRAY_FLOAT64);
    PyObject *result = NULL;
    if (timestep == NULL || noise_index == NULL || eps_sign == NULL || weight == NULL)
        goto done;
    for (int64_t i = 0; i < n; i++) {
        ((uint32_t *)array_data(timestep))[i] = trials[i].timestep;
        ((uint32_t *)array_data(noise_index))[i] = trials[i].noise_index;
        ((float *)array_data(eps_sign))[i] = trials[i].eps_sign;
        ((double *)array_data(weight))[i] = trials[i].weight;
    }
    result = Py_BuildValue("{sOsOsOsO}", "timestep", timestep, "noise_index", noise_index, "eps_sign", eps_sign, "weight",
                           weight);
done:
    Py_XDECREF(timestep);
    Py_XDECREF(noise_index);
    Py_XDECREF(eps_sign);
    Py_XDECREF(weight);
    return result;
}

int core_loss_parse(core_state *state, dc_loss *out, const char *name)
{
    static const char *const names[] = {"l2", "l1", "huber"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (dc_loss)i;
            return 0;
        }
    }
    PyErr_Format(state->exceptions[DC_ERR_VALUE], "loss is '%s', must be 'l2', 'l1' or 'huber'", name);
    return -1;
}

int core_seed_parse(core_state *state, uint64_t *out, PyObject *seed)
{
    PyObject *index = PyNumber_Index(seed);
    if (index != NULL) {
        *out = PyLong_AsUnsignedLongLong(index);
        Py_DECREF(index);
        if (!(*out == UINT64_MAX && PyErr_Occurred()))
            return 0;
        PyErr_Clear();
        PyErr_Format(state->exceptions[DC_ERR_VALUE], "seed is %R, must be 0 to 2**64 - 1", seed);
        return -1;
    }
    PyErr_Clear();
    PyErr_Format(state->exceptions[DC_ERR_DTYPE], "seed is %R, must be an integer", seed);
    return -1;
}

static PyObject *build_trace(const dc_race *race)
{
    int64_t shape[2] = {0, 3};
    const dc_round *rounds = dc_race_rounds(race, &shape[0]);
    PyObject *trace = array_new(2, shape, ARRAY_INT64);
    if (trace != NULL && shape[0] > 0)
        memcpy(array_data(trace), rounds, (size_t)shape[0] * sizeof *rounds); /* a dc_round: three int64 */
    return trace;
}

PyObject *core_status_name(dc_race_status status)
{
    static const char *const names[] = {"running", "decided", "pool_exhausted", "budget"};
    return PyUnicode_InternFromString(names[status]);
}

PyObject *core_race_result(core_state *state, const dc_race *race, int64_t n_trials, int keep_errors)
{
    int64_t n_classes = dc_race_arms(race)->n_classes;
    PyObject *losses = array_new(1, &n_classes, ARRAY_FLOAT64), *stderrs = array_new(1, &n_classes, ARRAY_FLOAT64);
    PyObject *excess = array_new(1, &n_classes, ARRAY_FLOAT64), *trials = array_new(1, &n_classes, ARRAY_INT64);
    PyObject *alive = array_new(1, &n_classes, ARRAY_BOOL), *trace = build_trace(race), *errors = NULL, *out = NULL;
    int64_t shape[2] = {dc_race_arms(race)->n_arms, n_trials};
    dc_error err = {0};
    if (losses == NULL || stderrs == NULL || excess == NULL || trials == NULL || alive == NULL || trace == NULL)
        goto done;
    errors = keep_errors ? array_new(2, shape, ARRAY_FLOAT64) : Py_NewRef(Py_None);
    if (errors == NULL)
        goto done;
    dc_race_result result = {.losses = array_data(losses),
                             .stderrs = array_data(stderrs),
                             .excess = array_data(excess),
                             .n_trials = array_data(trials),
                             .alive = array_data(alive)};
    if (dc_race_read(race, &result, &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    if (keep_errors)
        dc_race_errors(race, array_data(errors));
    out = Py_BuildValue("{sLsOsOsOsOsOsLsdsNsOsO}", "index", (long long)result.index, "losses", losses, "stderr", stderrs,
                        "excess", excess, "n_trials", trials, "alive", alive, "n_evals", (long long)result.n_evals,
                        "p_disagree", result.p_disagree, "status", core_status_name(result.status), "trace", trace, "errors",
                        errors);
done:
    Py_XDECREF(losses);
    Py_XDECREF(stderrs);
    Py_XDECREF(excess);
    Py_XDECREF(trials);
    Py_XDECREF(alive);
    Py_XDECREF(trace);
    Py_XDECREF(errors);
    return out;
}
