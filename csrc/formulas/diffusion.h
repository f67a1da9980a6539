/* Per-element formulas of the method, in the common subset of C11 and CUDA C++.
 *
 *   x_t    = alpha * x_start + sigma * eps           noising
 *   target = p * x_start + q * eps                   every prediction type is a pair (p, q), see method/schedule.h
 *   term   = rho(prediction - target)                rho: l2, l1 or Huber
 *
 * Products and sums are rounded one by one (contraction is off), so every twin gives the same bits. */
#ifndef DC_FORMULAS_DIFFUSION_H
#define DC_FORMULAS_DIFFUSION_H

#include "formulas/qualifiers.h"

typedef enum dc_loss { DC_LOSS_L2 = 0, DC_LOSS_L1, DC_LOSS_HUBER } dc_loss;

/* a * x + b * y, each operation rounded once: x_t with (alpha, sigma), the target with (p, q). */
DC_HD float dc_mix(float a, float x, float b, float y)
{
    return DC_ADD(DC_MUL(a, x), DC_MUL(b, y));
}

DC_HD float dc_loss_l2(float difference)
{
    return DC_MUL(difference, difference);
}

DC_HD float dc_loss_l1(float difference)
{
    return fabsf(difference);
}

/* Quadratic within delta, linear outside: torch.nn.functional.huber_loss.  With m = min(|d|, delta) both branches are
 * m (|d| - m / 2). */
DC_HD float dc_loss_huber(float difference, float delta)
{
    float size = fabsf(difference), m = size < delta ? size : delta;
    return DC_MUL(m, DC_ADD(size, DC_MUL(-0.5f, m)));
}

#endif
