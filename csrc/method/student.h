/* Student's t distribution, to 1e-10 of SciPy over df in [1, 1e6] and p in [1e-12, 0.5]. */
#ifndef DC_METHOD_STUDENT_H
#define DC_METHOD_STUDENT_H

double dc_student_sf(double t, double df);  /* P(T > t) */
double dc_student_isf(double p, double df); /* t with P(T > t) = p, 0 < p < 1 */

#endif
