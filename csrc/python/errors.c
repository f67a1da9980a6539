/* The one table from dc_status to exception class. */
#include "python/core.h"

int core_errors_init(core_state *state)
{
    static const struct {
        dc_status status;
        const char *name;
    } table[] = {
        {DC_ERR_SHAPE, "ShapeError"},       {DC_ERR_DTYPE, "DTypeError"},         {DC_ERR_DEVICE, "DeviceError"},
        {DC_ERR_DENOISER, "DenoiserError"}, {DC_ERR_NONFINITE, "NonFiniteError"}, {DC_ERR_FORMAT, "WeightsError"},
        {DC_ERR_VALUE, "InputError"},
    };
    PyObject *errors = PyImport_ImportModule("diffcls.errors");
    if (errors == NULL)
        return -1;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        PyObject *exception = PyObject_GetAttrString(errors, table[i].name);
        if (exception == NULL) {
            Py_DECREF(errors);
            return -1;
        }
        state->exceptions[table[i].status] = exception;
    }
    Py_DECREF(errors);
    state->exceptions[DC_ERR_NOMEM] = Py_NewRef(PyExc_MemoryError);
    return 0;
}

PyObject *core_raise(core_state *state, const dc_error *err)
{
    if (err->status == DC_ERR_CALLBACK)
        return NULL;
    PyObject *type = state->exceptions[err->status];
    if (err->status != DC_ERR_NONFINITE) {
        PyErr_SetString(type, err->message);
        return NULL;
    }
    PyObject *exception = PyObject_CallFunction(type, "sLLL", err->message, (long long)err->class_index,
                                                (long long)err->timestep, (long long)err->noise_index);
    if (exception != NULL)
        PyErr_SetObject(type, exception);
    Py_XDECREF(exception);
    return NULL;
}
