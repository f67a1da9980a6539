"""Student's t against SciPy, to 1e-10."""

import numpy as np
import pytest
from scipy import stats

from diffcls import _core

DF = [1.0, 2.0, 3.0, 7.0, 11.0, 12.5, 35.0, 79.0, 80.0, 81.0, 1000.0, 1e5, 1e6]


@pytest.mark.parametrize("df", DF)
def test_tail(df):
    for t in [0.0, 1e-6, 0.01, 0.3, 1.0, 1.7, 2.0, 3.5, 6.0, 9.0]:
        assert _core.student_sf(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-10)
        assert _core.student_sf(-t, df) == pytest.approx(stats.t.sf(-t, df), rel=1e-10)


@pytest.mark.parametrize("df", DF)
def test_quantile(df):
    for p in [1e-12, 1e-8, 1e-5, 0.00125, 0.02, 0.1, 0.3, 0.49, 0.5, 0.7, 0.999]:
        assert _core.student_isf(p, df) == pytest.approx(stats.t.isf(p, df), rel=1e-10, abs=1e-14)


def test_they_invert_one_another(rng):
    for _ in range(200):
        df, p = 10 ** rng.uniform(0, 6), 10 ** rng.uniform(-12, -0.31)
        assert _core.student_sf(_core.student_isf(p, df), df) == pytest.approx(p, rel=1e-10)


@pytest.mark.parametrize(("p", "df"), [(0.0, 3.0), (1.0, 3.0), (-0.1, 3.0), (0.1, 0.0), (float("nan"), 3.0)])
def test_impossible_arguments(p, df):
    with pytest.raises(ValueError, match="p must be in"):
        _core.student_isf(p, df)


def test_normal_limit():
    assert _core.student_isf(0.025, 1e6) == pytest.approx(1.959966, abs=1e-5)
    assert np.isfinite(_core.student_isf(1e-12, 1.0))
