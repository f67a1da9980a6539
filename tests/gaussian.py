"""Classes that are Gaussians with one variance: the best denoiser and the posterior are closed forms."""

from __future__ import annotations

import numpy as np

import diffcls


class GaussianClasses:
    """x_start of class k is N(mean_k, v I)."""

    def __init__(
        self, *, n_classes: int, dimension: int, seed: int, variance: float = 0.25, scale: float = 0.6
    ) -> None:
        rng = np.random.default_rng(seed)
        self.means = (scale * rng.standard_normal((n_classes, dimension))).astype(np.float32)
        self.v = variance
        self.schedule = diffcls.Schedule.linear(1000)

    def sample(self, labels, rng):
        noise = rng.standard_normal((len(labels), self.means.shape[1]))
        return (self.means[labels] + np.sqrt(self.v) * noise).astype(np.float32)

    def best_x_start(self, x_t, t, cond):
        """E[x_start | x_t, class]."""
        a, s = self.schedule.alpha[t][:, None], self.schedule.sigma[t][:, None]
        return self.means[cond] + a * self.v / (a * a * self.v + s * s) * (x_t - a * self.means[cond])

    def predict(self, x_t, t, cond):
        """E[eps | x_t, class]."""
        a, s = self.schedule.alpha[t][:, None], self.schedule.sigma[t][:, None]
        return ((x_t - a * self.best_x_start(x_t, t, cond)) / s).astype(np.float32)

    def denoiser(self, **options):
        facts = {
            "shape": self.means.shape[1:],
            "schedule": self.schedule,
            "n_classes": len(self.means),
            "name": "gaussian",
        }
        return diffcls.Denoiser(self.predict, **{**facts, **options})

    def expected_loss(self, x_start, k):
        """Mean over t of E[|eps_hat - eps|^2] / d for class k, in closed form.

        eps_hat - eps = (a / s) (x_start - x_hat), and x_start - x_hat is a Gaussian in eps with mean
        (1 - g a) (x_start - mean_k) and standard deviation g s, g = a v / (a^2 v + s^2).
        """
        a, s = self.schedule.alpha, self.schedule.sigma
        g = a * self.v / (a * a * self.v + s * s)
        distance = np.mean((x_start - self.means[k]) ** 2)
        return np.mean((a / s) ** 2 * ((1 - g * a) ** 2 * distance + (g * s) ** 2))
