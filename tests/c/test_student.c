/* Student's t against the closed forms of 1, 2 and 3 degrees of freedom and the normal limit. */
#include "method/student.h"
#include "test.h"

static const double pi = 3.14159265358979323846;

/* Relative to what was wanted. */
#define CHECK_NEAR(got, wanted, tolerance) CHECK_CLOSE((got) / (wanted), 1.0, tolerance)

static void check_tails(void)
{
    for (double t = 0.01; t < 1e4; t *= 1.7) {
        double root = sqrt(t * t + 2.0), x = t / sqrt(3.0);
        CHECK_NEAR(dc_student_sf(t, 1.0), atan(1.0 / t) / pi, 1e-12);
        CHECK_NEAR(dc_student_sf(t, 2.0), 1.0 / (root * (root + t)), 1e-12);
        if (t < 20.0) /* beyond, the closed form cancels */
            CHECK_NEAR(dc_student_sf(t, 3.0), (atan(1.0 / x) - x / (1.0 + x * x)) / pi, 1e-10);
        CHECK_CLOSE(dc_student_sf(-t, 2.0), 1.0 - dc_student_sf(t, 2.0), 1e-16);
    }
    CHECK(dc_student_sf(0.0, 7.0) == 0.5);
    for (double t = 0.1; t < 5.0; t += 0.3) /* the t tail is the normal one and a term in 1 / df */
        CHECK_NEAR(dc_student_sf(t, 1e6), 0.5 * erfc(t / sqrt(2.0)), 3e-4);
}

static void check_quantiles(void)
{
    for (double p = 1e-12; p < 0.5; p *= 3.1) {
        CHECK_NEAR(dc_student_isf(p, 1.0), 1.0 / tan(pi * p), 1e-11);
        CHECK_NEAR(dc_student_isf(p, 2.0), (1.0 - 2.0 * p) / sqrt(2.0 * p * (1.0 - p)), 1e-10);
        for (double df = 1.0; df <= 1e6; df *= 4.7)
            CHECK_NEAR(dc_student_sf(dc_student_isf(p, df), df), p, 1e-10);
    }
    CHECK(dc_student_isf(0.5, 3.0) == 0.0);
    CHECK_NEAR(dc_student_isf(0.9, 5.0), -dc_student_isf(0.1, 5.0), 1e-12);
}

int main(void)
{
    check_tails();
    check_quantiles();
    return test_done();
}
