/* diffcls._core.Loop: one run of the method, see method/loop.h and the stub file. */
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "python/trampoline.h"

enum { N_ARRAYS = 10 };

typedef struct loop_object {
    PyObject_HEAD
    dc_loop *loop;
    dc_dit_denoiser *native; /* or NULL: the trampoline */
    trampoline trampoline;
    core_trials trials;
    int64_t n_elem;
    int keep_errors, running, failed;
    double last_progress;
    PyObject *denoiser, *backend, *progress;
    PyObject *arrays[N_ARRAYS]; /* what the loop borrows */
} loop_object;

static core_state *state_of(loop_object *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* After every batch: Ctrl-C, and twenty times a second the caller's progress. */
static dc_status after_batch(void *context, int64_t n_evals, dc_error *err)
{
    loop_object *self = context;
    int ok = 1;
    PyEval_RestoreThread(self->trampoline.thread);
    ok = PyErr_CheckSignals() == 0;
    if (ok && self->progress != NULL && now() - self->last_progress > 0.05) {
        PyObject *answer = PyObject_CallFunction(self->progress, "L", (long long)n_evals);
        ok = answer != NULL;
        Py_XDECREF(answer);
        self->last_progress = now();
    }
    self->trampoline.thread = PyEval_SaveThread();
    return ok ? DC_OK : dc_error_set(err, DC_ERR_CALLBACK, "a Python exception is set");
}

/* Keeps a new reference in the object and gives its data. */
static void *keep(loop_object *self, int index, PyObject *array)
{
    self->arrays[index] = array;
    return array == NULL ? NULL : array_data(array);
}

static int parse_shape(loop_object *self, PyObject *shape)
{
    PyObject *sequence = PySequence_Fast(shape, "shape must be a sequence of integers");
    if (sequence == NULL)
        return -1;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(sequence);
    int result = -1;
    self->n_elem = 1;
    if (n >= TENSOR_DIMS) {
        PyErr_Format(state_of(self)->exceptions[DC_ERR_SHAPE], "shape has %zd dimensions, must have fewer than %d", n,
                     TENSOR_DIMS);
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        int64_t size = PyLong_AsLongLong(PySequence_Fast_GET_ITEM(sequence, i));
        if (size == -1 && PyErr_Occurred())
            goto done;
        if (size < 1 || !dc_size_mul(&self->n_elem, self->n_elem, size) || self->n_elem > INT64_C(1) << 40) {
            PyErr_Format(state_of(self)->exceptions[DC_ERR_SHAPE], "shape is %R, must be of positive sizes that fit in memory",
                         shape);
            goto done;
        }
        self->trampoline.shape[i + 1] = size;
    }
    self->trampoline.n_dims = (int)n + 1;
    result = 0;
done:
    Py_DECREF(sequence);
    return result;
}

/* What __init__ was called with, before it is checked. */
typedef struct loop_arguments {
    PyObject *denoiser, *backend, *shape, *alpha, *sigma, *time, *p, *q, *class_of_arm, *offset, *conditions;
    PyObject *trials, *policy, *seed, *noise, *progress;
    Py_ssize_t n_classes, batch_size, max_in_flight;
    double pool_temperature, delta;
    const char *loss;
    int keep_errors;
} loop_arguments;

static int parse_arguments(loop_arguments *a, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"denoiser", "backend",      "shape",      "alpha",         "sigma",    "time",
                            "p",        "q",            "n_classes",  "class_of_arm",  "condition_offset", "conditions",
                            "pool_temperature", "trials", "policy",   "loss",          "delta",    "seed",
                            "noise",    "batch_size",   "max_in_flight", "progress",   "keep_errors", NULL};
    *a = (loop_arguments){.loss = "l2", .delta = 1.0, .batch_size = 64, .max_in_flight = 32, .noise = Py_None,
                          .progress = Py_None};
    return PyArg_ParseTupleAndKeywords(args, kwargs, "O$OOOOOOOnOOOdOOsdOOnnOp:Loop", names, &a->denoiser, &a->backend,
                                       &a->shape, &a->alpha, &a->sigma, &a->time, &a->p, &a->q, &a->n_classes,
                                       &a->class_of_arm, &a->offset, &a->conditions, &a->pool_temperature, &a->trials,
                                       &a->policy, &a->loss, &a->delta, &a->seed, &a->noise, &a->batch_size,
                                       &a->max_in_flight, &a->progress, &a->keep_errors);
}

/* Arrays of the schedule and of the arms into params, each kept. */
static int take_arrays(loop_object *self, dc_loop_params *params, const loop_arguments *a)
{
    core_state *state = state_of(self);
    if ((params->alpha = keep(self, 0, array_in(state, a->alpha, ARRAY_FLOAT64, 1, "alpha"))) == NULL)
        return -1;
    int64_t t = params->n_timesteps = array_size(self->arrays[0]);
    if ((params->sigma = keep(self, 1, array_of_size(state, a->sigma, ARRAY_FLOAT64, t, "sigma"))) == NULL ||
        (params->time = keep(self, 2, array_of_size(state, a->time, ARRAY_FLOAT64, t, "time"))) == NULL ||
        (params->p = keep(self, 3, array_of_size(state, a->p, ARRAY_FLOAT64, t, "p"))) == NULL ||
        (params->q = keep(self, 4, array_of_size(state, a->q, ARRAY_FLOAT64, t, "q"))) == NULL ||
        (params->arms.class_of_arm = keep(self, 5, array_in(state, a->class_of_arm, ARRAY_INT64, 1, "class_of_arm"))) == NULL)
        return -1;
    int64_t n_arms = params->arms.n_arms = array_size(self->arrays[5]);
    if ((params->condition_offset =
             keep(self, 6, array_of_size(state, a->offset, ARRAY_INT64, n_arms + 1, "condition_offset"))) == NULL ||
        (params->conditions = keep(self, 7, array_in(state, a->conditions, ARRAY_INT64, 1, "conditions"))) == NULL)
        return -1;
    const int64_t *offset = params->condition_offset;
    int rising = offset[0] == 0 && offset[n_arms] == array_size(self->arrays[7]);
    for (int64_t i = 0; rising && i < n_arms; i++)
        rising = offset[i] <= offset[i + 1];
    if (!rising) {
        PyErr_Format(state->exceptions[DC_ERR_VALUE], "condition_offset must rise from 0 to the number of conditions");
        return -1;
    }
    if (a->noise == Py_None)
        return 0;
    if ((params->noise = keep(self, 8, array_in(state, a->noise, ARRAY_FLOAT32, -1, "noise"))) == NULL)
        return -1;
    params->n_noise = array_size(self->arrays[8]) / self->n_elem;
    if (params->n_noise * self->n_elem != array_size(self->arrays[8])) {
        PyErr_Format(state->exceptions[DC_ERR_SHAPE], "noise has %lld items, must have rows of %lld",
                     (long long)array_size(self->arrays[8]), (long long)self->n_elem);
        return -1;
    }
    return 0;
}

static int make_denoiser(loop_object *self, dc_loop_params *params, const loop_arguments *a)
{
    core_state *state = state_of(self);
    dc_error err = {0};
    if (!Py_IS_TYPE(a->denoiser, state->dit_type)) {
        if (!PyCallable_Check(a->denoiser)) {
            PyErr_Format(PyExc_TypeError, "denoiser is %R, must be a DiT or callable", Py_TYPE(a->denoiser));
            return -1;
        }
        self->trampoline.state = state;
        self->trampoline.callable = a->denoiser;
        self->trampoline.backend = params->backend;
        self->trampoline.batch_size = a->batch_size;
        params->denoiser = trampoline_entry(&self->trampoline);
        return 0;
    }
    if (dc_dit_denoiser_new(&self->native, core_dit_of(state, a->denoiser), params->backend, a->batch_size, &err) != DC_OK) {
        core_raise(state, &err);
        return -1;
    }
    params->denoiser = dc_dit_denoiser_entry(self->native);
    return 0;
}

static int start(loop_object *self, const loop_arguments *a)
{
    core_state *state = state_of(self);
    dc_error err = {0};
    dc_loop_params params = {.pool_temperature = a->pool_temperature,
                             .delta = (float)a->delta,
                             .batch_size = a->batch_size,
                             .max_in_flight = a->max_in_flight,
                             .after_batch = after_batch,
                             .after_batch_context = self};
    self->denoiser = Py_NewRef(a->denoiser);
    self->backend = Py_NewRef(a->backend);
    self->progress = a->progress == Py_None ? NULL : Py_NewRef(a->progress);
    self->keep_errors = a->keep_errors;
    params.arms.n_classes = a->n_classes;
    if ((params.backend = core_any_backend_of(state, a->backend)) == NULL || parse_shape(self, a->shape) < 0)
        return -1;
    params.n_elem = self->n_elem;
    if (a->batch_size < 1 || a->batch_size > 1 << 20) {
        PyErr_Format(state->exceptions[DC_ERR_VALUE], "batch_size is %zd, must be 1 to %d", a->batch_size, 1 << 20);
        return -1;
    }
    if (take_arrays(self, &params, a) < 0 || core_trials_parse(state, &self->trials, a->trials) < 0 ||
        core_policy_parse(state, &params.policy, &self->arrays[9], a->policy) < 0 ||
        core_loss_parse(state, &params.loss, a->loss) < 0 || core_seed_parse(state, &params.seed, a->seed) < 0 ||
        make_denoiser(self, &params, a) < 0)
        return -1;
    params.trials = self->trials.items;
    params.n_trials = self->trials.n;
    if (dc_loop_new(&self->loop, &params, &err) != DC_OK) {
        core_raise(state, &err);
        return -1;
    }
    return 0;
}

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    loop_arguments a;
    if (!parse_arguments(&a, args, kwargs))
        return NULL;
    loop_object *self = (loop_object *)type->tp_alloc(type, 0);
    if (self != NULL && start(self, &a) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int loop_traverse(PyObject *object, visitproc visit, void *arg)
{
    loop_object *self = (loop_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->denoiser);
    Py_VISIT(self->backend);
    Py_VISIT(self->progress);
    for (int i = 0; i < N_ARRAYS; i++)
        Py_VISIT(self->arrays[i]);
    return 0;
}

/* Only what can be part of a cycle: a Loop whose callable or progress refers to it. */
static int loop_clear(PyObject *object)
{
    loop_object *self = (loop_object *)object;
    self->failed = 1;
    Py_CLEAR(self->progress);
    Py_CLEAR(self->denoiser);
    return 0;
}

static void loop_dealloc(PyObject *object)
{
    loop_object *self = (loop_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    dc_loop_free(self->loop);
    dc_dit_denoiser_free(self->native); /* before the model and the backend it borrows */
    trampoline_clear(&self->trampoline);
    dc_free(self->trials.items);
    loop_clear(object);
    Py_CLEAR(self->backend);
    for (int i = 0; i < N_ARRAYS; i++)
        Py_CLEAR(self->arrays[i]);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

static int check_usable(loop_object *self)
{
    if (self->running) {
        PyErr_SetString(PyExc_RuntimeError, "this Loop is running: it is not for use by its own callbacks or by two threads");
        return -1;
    }
    if (self->failed) {
        PyErr_SetString(PyExc_RuntimeError, "this Loop has failed before; make a new one");
        return -1;
    }
    return 0;
}

static PyObject *loop_add(PyObject *object, PyObject *args)
{
    loop_object *self = (loop_object *)object;
    core_state *state = state_of(self);
    PyObject *x_object, *arms_object = Py_None, *x_start = NULL, *arms = NULL, *result = NULL;
    long long tag;
    dc_error err = {0};
    if (!PyArg_ParseTuple(args, "OL|O:add", &x_object, &tag, &arms_object))
        return NULL;
    if ((x_start = array_of_size(state, x_object, ARRAY_FLOAT32, self->n_elem, "x_start")) == NULL ||
        (arms_object != Py_None && (arms = array_in(state, arms_object, ARRAY_INT64, 1, "arms")) == NULL) ||
        check_usable(self) < 0) /* only now: the conversion may run Python that starts this Loop */
        goto done;
    if (dc_loop_add(self->loop, array_data(x_start), arms == NULL ? NULL : array_data(arms),
                    arms == NULL ? 0 : array_size(arms), tag, &err) != DC_OK) {
        core_raise(state, &err);
        goto done;
    }
    result = Py_NewRef(Py_None);
done:
    Py_XDECREF(x_start);
    Py_XDECREF(arms);
    return result;
}

static PyObject *loop_wants_image(PyObject *object, PyObject *unused)
{
    (void)unused;
    loop_object *self = (loop_object *)object;
    return check_usable(self) < 0 ? NULL : PyBool_FromLong(dc_loop_wants_image(self->loop));
}

static PyObject *loop_advance(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"drain", NULL};
    loop_object *self = (loop_object *)object;
    core_state *state = state_of(self);
    int drain;
    const dc_race *race = NULL;
    int64_t tag = 0;
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$p:advance", names, &drain) || check_usable(self) < 0)
        return NULL;
    self->running = 1;
    self->trampoline.thread = PyEval_SaveThread();
    dc_status status = dc_loop_advance(self->loop, drain, &race, &tag, &err);
    PyEval_RestoreThread(self->trampoline.thread);
    self->running = 0;
    if (status != DC_OK) {
        self->failed = 1;
        return core_raise(state, &err);
    }
    if (race == NULL)
        Py_RETURN_NONE;
    PyObject *result = core_race_result(state, race, self->trials.n, self->keep_errors);
    return result == NULL ? NULL : Py_BuildValue("(LN)", (long long)tag, result);
}

static PyObject *loop_stats(PyObject *object, void *closure)
{
    (void)closure;
    dc_loop_stats stats = dc_loop_statistics(((loop_object *)object)->loop);
    return Py_BuildValue("{sLsLsdsL}", "n_evals", (long long)stats.n_evals, "n_batches", (long long)stats.n_batches, "fill",
                         stats.fill, "batch_size", (long long)stats.batch_size);
}

static PyMethodDef loop_methods[] = {
    {"add", loop_add, METH_VARARGS, "add($self, x_start, tag, arms=None, /)\n--\n\nQueues an image, of some arms alone or of all; its result carries the tag."},
    {"wants_image", loop_wants_image, METH_NOARGS, "Fewer images than max_in_flight are in flight."},
    {"advance", (PyCFunction)(void (*)(void))loop_advance, METH_VARARGS | METH_KEYWORDS,
     "advance($self, /, *, drain)\n--\n\nRuns until an image is finished: (tag, result); None when an image could be added or "
     "nothing is left."},
    {0},
};

static PyGetSetDef loop_getset[] = {
    {"stats", loop_stats, NULL, "n_evals, n_batches, fill, batch_size.", NULL},
    {0},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "Loop(denoiser, *, backend, ...)\n--\n\nOne run of the method over any number of images."},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {0, NULL},
};

PyType_Spec core_loop_spec = {
    .name = "diffcls._core.Loop",
    .basicsize = sizeof(loop_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};
