/* What the files of the binding share.  The only folder that knows Python; arrays.c is the only file that knows NumPy. */
#ifndef DC_PYTHON_CORE_H
#define DC_PYTHON_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/dtype.h"
#include "base/status.h"
#include "backend.h"
#include "dit/dit.h"
#include "method/race.h"
#include "method/trials.h"

enum { N_STATUS = DC_ERR_CALLBACK + 1 };

typedef struct core_state {
    PyObject *exceptions[N_STATUS]; /* by dc_status; NULL: none */
    PyTypeObject *cpu_type, *dit_type, *loop_type;
} core_state;

core_state *core_state_of(PyObject *module);

/* errors.c: sets the Python exception of a failed call; with DC_ERR_CALLBACK one is set already.  Returns NULL. */
PyObject *core_raise(core_state *state, const dc_error *err);
int core_errors_init(core_state *state);

/* cpu_type.c, dit_type.c, loop_type.c: borrowed contents; NULL with TypeError when the object is of another type. */
extern PyType_Spec core_cpu_spec, core_dit_spec, core_loop_spec;
const dc_backend *core_backend_of(core_state *state, PyObject *cpu);
/* A Cpu's, or that in a capsule of another module: diffcls._cuda's. */
#define CORE_BACKEND_CAPSULE "diffcls.backend.1"
const dc_backend *core_any_backend_of(core_state *state, PyObject *object);
const dc_dit *core_dit_of(core_state *state, PyObject *dit);

/* ops.c, functions.c */
extern PyMethodDef core_ops_methods[], core_function_methods[];

/* replay.c: the module's function `replay` */
PyObject *core_replay(PyObject *module, PyObject *args, PyObject *kwargs);

/* policy.c: the dicts of the stub file. */
typedef struct core_trials {
    dc_trial *items; /* owned */
    int64_t n;
} core_trials;
int core_trials_parse(core_state *state, core_trials *out, PyObject *dict);
PyObject *core_trials_build(const dc_trial *trials, int64_t n);
/* out->caps borrows from *caps_array, a new reference. */
int core_policy_parse(core_state *state, dc_policy *out, PyObject **caps_array, PyObject *dict);
int core_loss_parse(core_state *state, dc_loss *out, const char *name);
/* {"losses": ..., ...} of a finished race. */
PyObject *core_race_result(core_state *state, const dc_race *race, int64_t n_trials, int keep_errors);
PyObject *core_status_name(dc_race_status status); /* new reference */
int core_seed_parse(core_state *state, uint64_t *out, PyObject *seed);

#endif
