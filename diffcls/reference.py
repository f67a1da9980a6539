"""The arithmetic core again, in plain NumPy: slow, readable, equal to the compiled core in every bit.

Noise is csrc/formulas/philox.h and gaussian.h; the rest is csrc/formulas/diffusion.h and the order of summation that
csrc/backend.h states.  NumPy rounds every float32 product, sum and square root once, as the C does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

STREAM = 0xDC010000  # "diffcls, version 1"; its low half is free for the block's high word
BLOCK, LANES = 1024, 32
F32 = np.float32

# ln(1 + z) = z - z^2 / 2 + z^3 P(z); sin(pi x / 2) / x and cos(pi x / 2) in x^2.  Highest power first.
LOG = (0.0950119, -0.1420182, 0.1464612, -0.16583455, 0.19986238, -0.2500113, 0.33333403)
SINE = (-0.004602177, 0.07968023, -0.6459635, 1.5707964)
COSINE = (-0.020408353, 0.25359863, -1.233697, 1.0)

Words = NDArray[np.uint32]
Floats = NDArray[np.float32]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 (Salmon et al., 2011): counters (..., 4) to words (..., 4)."""
    w0, w1, w2, w3 = (counter[..., i].astype(np.uint64) for i in range(4))
    low = np.uint64(0xFFFFFFFF)
    for r in range(10):
        key0 = np.uint64((key[0] + r * 0x9E3779B9) & 0xFFFFFFFF)
        key1 = np.uint64((key[1] + r * 0xBB67AE85) & 0xFFFFFFFF)
        product0, product1 = w0 * np.uint64(0xD2511F53), w2 * np.uint64(0xCD9E8D57)
        w0, w1, w2, w3 = (
            (product1 >> np.uint64(32)) ^ w1 ^ key0,
            product1 & low,
            (product0 >> np.uint64(32)) ^ w3 ^ key1,
            product0 & low,
        )
    return np.stack([w0, w1, w2, w3], axis=-1).astype(np.uint32)


def noise_words(seed: int, noise_index: int, timestep: int, blocks: NDArray[np.uint64]) -> Words:
    """Words (n, 4) of blocks (n,) of four elements each: the file format of csrc/formulas/philox.h."""
    counter = np.empty((len(blocks), 4), np.uint32)
    counter[:, 0] = blocks & np.uint64(0xFFFFFFFF)
    counter[:, 1] = timestep
    counter[:, 2] = noise_index
    counter[:, 3] = np.uint64(STREAM) + (blocks >> np.uint64(32))
    return philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))


def polynomial(coefficients: Sequence[float], x: Floats) -> Floats:
    """Horner's rule: one rounding a product, one a sum."""
    value = np.full_like(x, F32(coefficients[0]))
    for c in coefficients[1:]:
        value = value * x + F32(c)
    return value


def radius(word: Words) -> Floats:
    """sqrt(-2 ln u) with u an odd multiple of 2^-24, from the word's upper 23 bits."""
    u = ((word >> np.uint32(9)) * np.uint32(2) + np.uint32(1)).astype(F32) * F32(2.0**-24)
    bits = u.view(np.int32)
    k = (bits - np.int32(0x3F3504F3)) >> np.int32(23)  # u = 2^k m, m in [sqrt(1/2), sqrt(2))
    z = (bits - (k << np.int32(23))).view(F32) - F32(1)
    z2 = z * z
    log1p = (z2 * z) * polynomial(LOG, z) + (z + F32(-0.5) * z2)
    return np.asarray(np.sqrt(F32(-2) * (k.astype(F32) * F32(0.693147181) + log1p)))


def pair(radius_word: Words, angle_word: Words) -> tuple[Floats, Floats]:
    """Two normals from two words: Box and Muller (1958), the angle as a quadrant and x in (-1/2, 1/2) within it."""
    r, quadrant = radius(radius_word), angle_word >> np.uint32(30)
    n = ((angle_word << np.uint32(2)) >> np.uint32(9)).astype(np.int32)
    x = (2 * n + 1 - (1 << 23)).astype(F32) * F32(2.0**-24)
    x2 = x * x
    c, s = r * polynomial(COSINE, x2), r * (polynomial(SINE, x2) * x)
    return np.choose(quadrant, [c, -s, -c, s]), np.choose(quadrant, [s, c, -s, -c])


def normal(seed: int, noise_index: int, timestep: int, first: int, count: int) -> Floats:
    """Elements first .. first + count - 1 of the eps that (seed, noise_index, timestep) names."""
    start, stop = first // 4, -(-(first + count) // 4)
    words = noise_words(seed, noise_index, timestep, np.arange(start, stop, dtype=np.uint64))
    eps = np.stack([*pair(words[:, 0], words[:, 1]), *pair(words[:, 2], words[:, 3])], axis=-1).reshape(-1)
    return eps[first - 4 * start :][:count]


def mix(a: NDArray[np.float64], x: Floats, b: NDArray[np.float64], y: Floats) -> Floats:
    """``a x + b y`` of rows (N, D) with coefficients (N,), rounded to float32 first: noising and the target."""
    return a.astype(F32)[:, None] * x + b.astype(F32)[:, None] * y


def add_noise(x_start: Floats, alpha: NDArray[np.float64], sigma: NDArray[np.float64], eps: Floats) -> Floats:
    """``x_t = alpha x_start + sigma eps``: x_start, eps (N, D), alpha, sigma (N,) -> (N, D)."""
    return mix(alpha, x_start, sigma, eps)


def target(x_start: Floats, eps: Floats, p: NDArray[np.float64], q: NDArray[np.float64]) -> Floats:
    """``p x_start + q eps``, what a denoiser of any prediction type is compared with: (N, D), (N,) -> (N, D)."""
    return mix(p, x_start, q, eps)


def eps_error(prediction: Floats, target: Floats, loss: str = "l2", delta: float = 1.0) -> NDArray[np.float64]:
    """Mean of rho(prediction - target) of every row, (N, D) -> (N,) float64.

    Blocks of 1024 elements; in a block element e adds to float32 lane e mod 32, in order; the 32 lanes meet in a float64
    pairwise tree; blocks add up in order in float64.
    """
    n_rows, n_elem = target.shape
    size, d = np.abs(prediction - target), F32(delta)
    if loss == "l2":
        terms = size * size
    elif loss == "l1":
        terms = size
    else:
        least = np.where(size < d, size, d)
        terms = least * (size + F32(-0.5) * least)
    padded = np.zeros((n_rows, -(-n_elem // BLOCK) * BLOCK), F32)
    padded[:, :n_elem] = terms
    steps = padded.reshape(n_rows, -1, BLOCK // LANES, LANES)
    lanes = np.zeros((n_rows, steps.shape[1], LANES), F32)
    for i in range(steps.shape[2]):
        lanes = lanes + steps[:, :, i]
    sums = lanes.astype(np.float64)
    while sums.shape[-1] > 1:
        half = sums.shape[-1] // 2
        sums = sums[..., :half] + sums[..., half:]
    total = np.zeros(n_rows)
    for block in range(sums.shape[1]):
        total = total + sums[:, block, 0]
    return np.asarray(total / n_elem)
