/* diffcls._core: multi-phase initialisation, everything in the module's state. */
#include "python/arrays.h"

core_state *core_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static int add_type(PyObject *module, PyTypeObject **out, PyType_Spec *spec)
{
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out == NULL ? -1 : PyModule_AddType(module, *out);
}

static int core_exec(PyObject *module)
{
    core_state *state = core_state_of(module);
    if (arrays_init() < 0 || core_errors_init(state) < 0 || add_type(module, &state->cpu_type, &core_cpu_spec) < 0 ||
        add_type(module, &state->dit_type, &core_dit_spec) < 0 || add_type(module, &state->loop_type, &core_loop_spec) < 0 ||
        PyModule_AddFunctions(module, core_ops_methods) < 0)
        return -1;
    return PyModule_AddFunctions(module, core_function_methods);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *state = core_state_of(module);
    for (int i = 0; i < N_STATUS; i++)
        Py_VISIT(state->exceptions[i]);
    Py_VISIT(state->cpu_type);
    Py_VISIT(state->dit_type);
    Py_VISIT(state->loop_type);
    return 0;
}

static int core_clear(PyObject *module)
{
    core_state *state = core_state_of(module);
    for (int i = 0; i < N_STATUS; i++)
        Py_CLEAR(state->exceptions[i]);
    Py_CLEAR(state->cpu_type);
    Py_CLEAR(state->dit_type);
    Py_CLEAR(state->loop_type);
    return 0;
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED}, /* NumPy's C API is not */
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_USED}, /* a Loop's "running" mark is guarded by the GIL */
#endif
    {0, NULL},
};

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "diffcls._core",
    .m_doc = "The compiled core of diffcls, CPU.",
    .m_size = sizeof(core_state),
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
