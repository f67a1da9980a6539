/* diffcls._core.Cpu: a backend with its threads and instruction set.  Immutable. */
#include "cpu/cpu.h"
#include "python/core.h"

typedef struct cpu_object {
    PyObject_HEAD
    dc_backend *backend;
} cpu_object;

static core_state *state_of_type(PyTypeObject *type)
{
    return PyType_GetModuleState(type);
}

static PyObject *cpu_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n_threads", "simd", NULL};
    int n_threads = 1;
    const char *simd = "auto";
    dc_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$is:Cpu", names, &n_threads, &simd))
        return NULL;
    cpu_object *self = (cpu_object *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    if (dc_cpu_backend_new(&self->backend, n_threads, simd, &err) != DC_OK) {
        Py_DECREF(self);
        return core_raise(state_of_type(type), &err);
    }
    return (PyObject *)self;
}

static void cpu_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    dc_cpu_backend_free(((cpu_object *)self)->backend);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *cpu_n_threads(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(((cpu_object *)self)->backend->n_threads);
}

static PyObject *cpu_simd(PyObject *self, void *closure)
{
    (void)closure;
    const dc_cpu *cpu = ((cpu_object *)self)->backend->context;
    return PyUnicode_FromString(dc_simd_name(cpu->simd));
}

static PyObject *cpu_available(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    PyObject *list = PyList_New(0), *tuple;
    for (int simd = DC_SIMD_SCALAR; list != NULL && simd <= DC_SIMD_AVX512; simd++) {
        if (!dc_simd_available((dc_simd)simd))
            continue;
        PyObject *name = PyUnicode_FromString(dc_simd_name((dc_simd)simd));
        if (name == NULL || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    if (list == NULL)
        return NULL;
    tuple = PyList_AsTuple(list);
    Py_DECREF(list);
    return tuple;
}

const dc_backend *core_backend_of(core_state *state, PyObject *cpu)
{
    if (!Py_IS_TYPE(cpu, state->cpu_type)) {
        PyErr_Format(PyExc_TypeError, "backend is %R, must be a Cpu", Py_TYPE(cpu));
        return NULL;
    }
    return ((cpu_object *)cpu)->backend;
}

const dc_backend *core_any_backend_of(core_state *state, PyObject *object)
{
    if (PyCapsule_IsValid(object, CORE_BACKEND_CAPSULE))
        return PyCapsule_GetPointer(object, CORE_BACKEND_CAPSULE);
    return core_backend_of(state, object);
}

static PyGetSetDef cpu_getset[] = {
    {"n_threads", cpu_n_threads, NULL, "Threads, the caller's included.", NULL},
    {"simd", cpu_simd, NULL, "Instruction set: 'scalar', 'avx2' or 'avx512'.", NULL},
    {0},
};

static PyMethodDef cpu_methods[] = {
    {"available", cpu_available, METH_NOARGS | METH_STATIC, "Instruction sets of this machine, slowest first."},
    {0},
};

static PyType_Slot cpu_slots[] = {
    {Py_tp_doc, "Cpu(*, n_threads=1, simd='auto')\n--\n\nThe CPU backend: its threads and its instruction set."},
    {Py_tp_new, cpu_new},
    {Py_tp_dealloc, cpu_dealloc},
    {Py_tp_getset, cpu_getset},
    {Py_tp_methods, cpu_methods},
    {0, NULL},
};

PyType_Spec core_cpu_spec = {
    .name = "diffcls._core.Cpu",
    .basicsize = sizeof(cpu_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cpu_slots,
};
