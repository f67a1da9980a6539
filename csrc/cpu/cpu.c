#include "cpu/cpu.h"

#include <string.h>

#include "base/memory.h"
#include "cpu/dit_operations.h"

const char *dc_simd_name(dc_simd simd)
{
    return simd == DC_SIMD_AVX512 ? "avx512" : simd == DC_SIMD_AVX2 ? "avx2" : "scalar";
}

int dc_simd_available(dc_simd simd)
{
#if DC_X86
    __builtin_cpu_init();
    if (simd >= DC_SIMD_AVX2 && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")))
        return 0;
    if (simd == DC_SIMD_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return 1;
#else
    return simd == DC_SIMD_SCALAR;
#endif
}

static dc_status parse_simd(dc_simd *out, const char *name, dc_error *err)
{
    for (int simd = DC_SIMD_AVX512; simd >= DC_SIMD_SCALAR; simd--) {
        int wanted = strcmp(name, "auto") == 0 || strcmp(name, dc_simd_name((dc_simd)simd)) == 0;
        if (wanted && dc_simd_available((dc_simd)simd)) {
            *out = (dc_simd)simd;
            return DC_OK;
        }
        if (strcmp(name, dc_simd_name((dc_simd)simd)) == 0)
            return dc_error_set(err, DC_ERR_VALUE, "simd is \"%s\", which this machine does not have", name);
    }
    return dc_error_set(err, DC_ERR_VALUE, "simd is \"%.40s\", must be \"auto\", \"scalar\", \"avx2\" or \"avx512\"",
                        name);
}

void dc_parallel_cpu(const dc_backend *self, dc_task task, void *argument, int64_t n_tasks)
{
    const dc_cpu *cpu = self->context;
    dc_threads_run(cpu->threads, task, argument, n_tasks);
}

dc_status dc_cpu_backend_new(dc_backend **out, int n_threads, const char *simd, dc_error *err)
{
    void *memory = NULL;
    dc_cpu *cpu = NULL;
    dc_backend *backend = NULL;
    *out = NULL;
    dc_status status = dc_alloc(&memory, 1, sizeof *backend, "the backend", err);
    if (status != DC_OK)
        return status;
    backend = memory;
    if ((status = dc_alloc(&memory, 1, sizeof *cpu, "the backend", err)) != DC_OK)
        goto done;
    backend->context = cpu = memory;
    if ((status = parse_simd(&cpu->simd, simd, err)) != DC_OK ||
        (status = dc_threads_new(&cpu->threads, n_threads, err)) != DC_OK)
        goto done;
    cpu->noise_blocks = dc_noise_blocks(cpu->simd);
    backend->name = "cpu";
    backend->noise = dc_noise_cpu;
    backend->noise_of_groups = dc_noise_of_groups_cpu;
    backend->noising = dc_noising_cpu;
    backend->eps_error = dc_eps_error_cpu;
    backend->n_threads = n_threads;
    backend->parallel = dc_parallel_cpu;
    backend->dit = &dc_cpu_dit_operations;
    *out = backend;
    backend = NULL;
done:
    dc_cpu_backend_free(backend);
    return status;
}

void dc_cpu_backend_free(dc_backend *backend)
{
    if (backend == NULL)
        return;
    dc_cpu *cpu = backend->context;
    if (cpu != NULL)
        dc_threads_free(cpu->threads);
    dc_free(cpu);
    dc_free(backend);
}
