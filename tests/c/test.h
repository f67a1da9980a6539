/* The whole C test harness: CHECK counts, `return test_done();` ends main. */
#ifndef DC_TEST_H
#define DC_TEST_H

#include <math.h>
#include <stdio.h>

static int test_n_passed, test_n_failed;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (condition) {                                                                                               \
            test_n_passed++;                                                                                           \
        } else {                                                                                                       \
            test_n_failed++;                                                                                           \
            printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                                             \
        }                                                                                                              \
    } while (0)

/* A NaN is never close. */
#define CHECK_CLOSE(got, wanted, tolerance) CHECK(fabs((double)(got) - (double)(wanted)) <= (tolerance))

static int test_done(void)
{
    printf("%s: %d passed, %d failed\n", test_n_failed ? "FAILED" : "ok", test_n_passed, test_n_failed);
    return test_n_failed != 0 || test_n_passed == 0;
}

#endif
