/* P(T > t) = I_x(df / 2, 1 / 2) / 2 with x = df / (df + t^2), I the regularised incomplete beta function by its continued
 * fraction (Abramowitz and Stegun 26.5.8), evaluated after Lentz. */
#include "method/student.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* Gamma(a + 1/2) / Gamma(a): the difference of two lgamma would lose seven digits at a = 5e5. */
static double gamma_ratio(double a)
{
    if (a < 40.0)
        return tgamma(a + 0.5) / tgamma(a);
    double r = 1.0 / a;
    return sqrt(a) * (1.0 + r * (-1.0 / 8 + r * (1.0 / 128 + r * (5.0 / 1024 + r * (-21.0 / 32768 - r * 399.0 / 262144)))));
}

static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);
    d = 1.0 / (fabs(d) > tiny ? d : tiny);
    double value = d;
    for (int m = 1; m < 100000; m++) {
        double even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        double step = 1.0;
        for (int part = 0; part < 2; part++) {
            double numerator = part == 0 ? even : odd;
            d = 1.0 + numerator * d;
            d = 1.0 / (fabs(d) > tiny ? d : tiny);
            c = 1.0 + numerator / c;
            c = fabs(c) > tiny ? c : tiny;
            step = d * c;
            value *= step;
        }
        if (fabs(step - 1.0) < 1e-15)
            break;
    }
    return value;
}

double dc_student_sf(double t, double df)
{
    if (t < 0.0)
        return 1.0 - dc_student_sf(-t, df);
    double a = 0.5 * df, square = t * t / df, x = 1.0 / (1.0 + square), y = square / (1.0 + square);
    /* x^a y^(1/2) / B(a, 1/2) */
    double front = exp(-a * log1p(square)) * sqrt(y) * gamma_ratio(a) / sqrt(pi);
    if (x < (a + 1.0) / (a + 2.5))
        return 0.5 * front * beta_fraction(a, 0.5, x) / a;
    return 0.5 - 0.5 * front * beta_fraction(0.5, a, y) / 0.5;
}

double dc_student_isf(double p, double df)
{
    if (p > 0.5)
        return -dc_student_isf(1.0 - p, df);
    if (p == 0.5)
        return 0.0;
    double low = 0.0, high = 1.0;
    while (dc_student_sf(high, df) > p) {
        low = high;
        high *= 2.0;
    }
    double log_norm = log(gamma_ratio(0.5 * df)) - 0.5 * log(df * pi), t = 0.5 * (low + high);
    for (int i = 0; i < 200; i++) {
        double excess = dc_student_sf(t, df) - p;
        if (excess > 0.0)
            low = t;
        else
            high = t;
        double density = exp(log_norm - 0.5 * (df + 1.0) * log1p(t * t / df));
        double next = t + excess / density;
        if (!(next > low && next < high))
            next = 0.5 * (low + high);
        if (fabs(next - t) <= 4e-16 * t)
            return next;
        t = next;
    }
    return t;
}
