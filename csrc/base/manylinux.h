/* Binds functions that glibc gave a new version since 2.17 to their version of before, so that the module loads there.
 *
 * Included by the compiler's option into every source when a wheel is built (setup.py, DIFFCLS_MANYLINUX=1), by no file.
 * The old versions of exp, expf, log and pow are the same code behind a check that sets errno; those of threads are the
 * same code under the name that it had when it was a library of its own.
 */
#ifndef DC_MANYLINUX_H
#define DC_MANYLINUX_H

#if !defined(__x86_64__) || !defined(__GLIBC__) && !defined(__linux__)
#error "DIFFCLS_MANYLINUX is for x86-64 and glibc: elsewhere the old versions have other names"
#endif

__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver expf, expf@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
__asm__(".symver pow, pow@GLIBC_2.2.5");
__asm__(".symver pthread_create, pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join, pthread_join@GLIBC_2.2.5");
__asm__(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.2.5");

#endif
